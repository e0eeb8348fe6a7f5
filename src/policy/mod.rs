//! What the configuration means: who is who, which command a request is, and whether it may run.
//!
//! Guarantees: a [`Snapshot`] is immutable and already right: whatever could be wrong was refused by `config`. Decisions
//! are pure functions over it, without clock, IO or lock. [`Grant`] is evidence and only this room makes it.

mod cors;
mod difference;
mod draft;
mod fields;
mod grant;
mod route;
mod servers;
mod shape;
mod snapshot;
mod template;

pub use cors::{Cors, Origins};
pub use difference::{ItemChanges, RemovedItem, SnapshotDifference};
pub use draft::{Draft, GrantDraft, Misfit};
pub use fields::{is_claim, is_hop_by_hop};
pub use grant::{CommandGlob, Grant};
pub use route::{Route, RouteTable};
pub use servers::{Balance, HashBy, HealthCheck, Queue, Retries};
pub use shape::{FieldEdits, Mirror, Redirect, Rewrite, Shape};
pub use snapshot::{
    Address, Command, DepartmentPolicy, Durability, GrantRule, Protocol, Snapshot, Subsystem, Timeouts, Unclaimed,
    Upstream,
};
pub use template::{BadTemplate, Filling, PathTemplate};

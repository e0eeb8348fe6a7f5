//! Policy: authentication to a department, routing to a command, and authorisation.
//!
//! Guarantees:
//! - A [`PolicySnapshot`] is immutable and valid: `config` has refused every faulty configuration before.
//! - Decisions are pure functions over the snapshot, without clock, IO or lock.
//! - [`Grant`] is evidence of an authorisation. Only this module makes it.

mod backend;
mod command_backends;
mod command_shape;
mod cors;
mod endpoint_sets;
mod grant;
mod header_names;
mod path_template;
mod policy_conflict;
mod request_conditions;
mod request_target;
mod route;
mod session_cookie;
mod shared_list;
mod snapshot;
mod snapshot_difference;
mod snapshot_draft;
mod subsystem;
mod upstream_policy;
mod usage_page;

pub use self::grant::{GlobMatches, GrantOrigin, GrantRule};
pub use self::policy_conflict::{MatchPlace, PolicyConflict};
pub use self::subsystem::{
    Command, CommandTimeouts, ConnectionMode, DepartmentPolicy, Durability, ListenerScope, RouteScope, SourceRanges,
    Subsystem,
};
pub use backend::{Backend, BackendTimeouts, EndpointDiscovery, UpstreamAddress, UpstreamProtocol, UpstreamServer};
pub use command_backends::{BackendShare, CommandBackends, ShareEdits, ShareTarget, WeightedBackends};
pub use command_shape::{CommandShape, FieldEdits, MirrorFraction, MirrorTarget};
pub use cors::{AllowedNames, AllowedOrigins, CorsPolicy, OriginPattern};
pub use endpoint_sets::{EndpointSets, ServiceEndpoints};
pub use grant::{CommandGlob, Grant};
pub use header_names::{is_hop_by_hop, is_reserved_header};
pub use path_template::{BadTemplate, PathFilling, PathTemplate};
pub use request_conditions::{
    AnchoredRegex, CommandMatch, HeaderCondition, PathMatch, QueryCondition, QueryPairs, RouteRequest, ValueCondition,
};
pub use request_target::{
    PathRewrite, PrefixReplacement, RedirectLocation, RedirectTarget, ReplacedParts, RequestRewrite, RequestUrl,
};
pub use route::{ANY_HOST, ConnectionMatch, DownstreamProtocol, ListenerRouting, RouteMatch, RouteTable, VirtualHost};
pub use session_cookie::{SessionCookie, SessionSecret};
pub use snapshot::{CallerOrigin, CallerUnclaimed, PolicySnapshot};
pub use snapshot_difference::{ItemChanges, RemovedItem, SnapshotDifference};
pub use snapshot_draft::SnapshotDraft;
pub use upstream_policy::{HashSource, HealthCheckPolicy, LoadBalancing, QueuePolicy, RetryPolicy};
pub use usage_page::{UsagePage, UsagePageNumbers};

//! The controller: follows the cluster, keeps the data plane of this process as the cluster says, and shows what is
//! true.
//!
//! Guarantees:
//! - The first configuration is made when all kinds have been listed once, never from half a picture. If that does not
//!   come in time, the last good configuration of the disk is served until it does.
//! - A burst of changes is one configuration. Changes that arrive while one is applied are in the next.
//! - `Programmed` follows from what the data plane has bound, not from what was asked for.
//! - Only the leader writes, and nothing waits for a write.
//!
//! Leaves to others:
//! - events (`watch`), meaning (`translate`), the form of a status and its writing (`status`), leadership (`lease`);
//! - starting and stopping the data plane (`app`).

mod applied;
mod condition_events;
mod controller_gauge;
mod data_plane;
mod endpoint_follower;
mod event_loop;
mod features;
mod first_picture;
mod last_good;
mod service_writer;
mod settled_routes;
mod text_checks;
mod wanted_status;

pub use self::controller_gauge::ControllerGauge;
pub use self::data_plane::{AppliedConfig, DataPlane, EndpointList};
pub use self::event_loop::{ControllerSettings, run_controller};
pub use self::first_picture::LastGoodSettings;
pub use self::last_good::{LastGoodConfig, LastGoodError, LastGoodStore, RecordDisk, RecordFault, SystemRecordDisk};

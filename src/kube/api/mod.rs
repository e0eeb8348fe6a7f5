//! The API server: the connection, the paths of kinds, faults, and pauses after faults.
//!
//! Guarantees:
//! - Requests of this room have times of their own.
//!
//! Leaves to others:
//! - lists and watches: `watch`;
//! - writes: `status`, `lease`.

mod client;
mod fault;
mod growing_pause;
mod path;

pub use self::client::{KubeClientError, connect};
pub use self::fault::ApiFault;
pub(crate) use self::fault::RequiredAccess;
pub(crate) use self::growing_pause::GrowingPause;
pub(crate) use self::path::{ApiPath, find_path};

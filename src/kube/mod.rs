//! The Kubernetes controller: from the objects of a cluster to facts, and from wanted conditions to their status.
//!
//! Guarantees:
//! - Every object fails alone: a malformed one is kept with the place of its fault, and hides no other.
//! - Endpoints have a path of their own: they wait for no status, no leadership and no other object.
//! - Only the holder of the lease writes status, and nothing waits for a write.
//!
//! Leaves to others:
//! - the meaning of a configuration: `config`;
//! - start and stop: `app`.

pub mod api;
pub mod controller;
pub mod crds;
pub mod events;
pub mod index;
pub mod lease;
pub mod objects;
pub mod status;
pub mod translate;
pub mod watch;

#[cfg(test)]
pub(crate) mod fake_api;
#[cfg(test)]
mod real_api;

pub use self::objects::CONTROLLER_NAME;

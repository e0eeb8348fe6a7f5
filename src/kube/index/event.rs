//! An event of a watch, as the index takes it.
//!
//! Guarantees:
//! - Events of one kind are applied in the order of the watch.
//!
//! Leaves to others:
//! - where events come from: `watch`.

use serde_json::Value;

use crate::kube::objects::{ObjectKey, ObjectKind};

/// An event of a watch.
#[derive(Clone, Debug, PartialEq)]
pub enum IndexEvent {
    /// A relist begins.
    Begin(ObjectKind),
    /// An object was created or changed, or is shown by a relist.
    Apply(ObjectKind, Value),
    /// An object was deleted.
    Delete(ObjectKind, ObjectKey),
    /// A relist is complete.
    End(ObjectKind),
}

impl IndexEvent {
    /// The kind of the object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Begin(kind) | Self::Apply(kind, _) | Self::Delete(kind, _) | Self::End(kind) => *kind,
        }
    }
}

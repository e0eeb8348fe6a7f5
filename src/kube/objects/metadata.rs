//! What every object says about itself.
//!
//! Guarantees:
//! - Fields of the server that no translation reads (managed fields, the last applied text) are dropped.
//!
//! Leaves to others:
//! - which change of the metadata matters: `index`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::kind::ObjectKey;

/// The text that `kubectl apply` leaves on each object: a second copy of the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The metadata of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// The namespace; empty for a cluster-wide object.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
    /// The identity of this object: an object that is created again has another one.
    pub uid: Box<str>,
    /// The number of the specification, for `observedGeneration`.
    pub generation: i64,
    /// The version that the server gave to the whole object, for a write that must not overwrite another.
    pub resource_version: Box<str>,
    /// When the object was created, in whole seconds. Of two objects in conflict the older wins.
    #[serde(rename = "creationTimestamp")]
    pub created: Option<Timestamp>,
    /// When its deletion was asked for. The object stays until its finalizers are done.
    #[serde(rename = "deletionTimestamp")]
    pub deleted: Option<Timestamp>,
    /// Labels.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// Annotations; empty for kinds whose annotations have no meaning here.
    pub annotations: BTreeMap<Box<str>, Box<str>>,
}

impl Metadata {
    /// The key of the object.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }

    /// Whether the deletion of the object was asked for.
    pub fn is_deleting(&self) -> bool {
        self.deleted.is_some()
    }

    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(AsRef::as_ref)
    }

    /// Drops what no translation reads.
    pub(crate) fn reduce(&mut self, keep_annotations: bool) {
        if !keep_annotations {
            self.annotations.clear();
        }
        self.annotations.remove(LAST_APPLIED);
    }

    /// Whether a translation would see a difference. The version of the server is no such difference.
    pub(crate) fn means_the_same(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.generation == other.generation
            && self.created == other.created
            && self.deleted == other.deleted
            && self.labels == other.labels
            && self.annotations == other.annotations
    }
}

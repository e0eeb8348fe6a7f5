//! What an event changed.
//!
//! Guarantees:
//! - Changes can be added up in any order.
//!
//! Leaves to others:
//! - what follows from a change: the caller.

use std::collections::BTreeSet;

use crate::kube::objects::ObjectKey;

/// The parts of the index that an event changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Something that a translation reads, beside endpoints.
    pub facts: bool,
    /// The status or the resource version of an object whose status we write. It asks for a comparison of the status,
    /// not for a translation.
    pub shown: bool,
    /// Services with other endpoints.
    pub endpoints: BTreeSet<ObjectKey>,
}

impl Change {
    /// A change of facts.
    pub(crate) const FACTS: Self = Self { facts: true, shown: false, endpoints: BTreeSet::new() };

    /// A change of the shown status only.
    pub(crate) const SHOWN: Self = Self { facts: false, shown: true, endpoints: BTreeSet::new() };

    /// Whether nothing changed.
    pub fn is_nothing(&self) -> bool {
        !self.facts && !self.shown && self.endpoints.is_empty()
    }

    /// Whether endpoints changed and nothing else.
    pub fn is_endpoints_only(&self) -> bool {
        !self.facts && !self.shown && !self.endpoints.is_empty()
    }

    /// Adds another change.
    pub fn merge(&mut self, other: Self) {
        self.facts |= other.facts;
        self.shown |= other.shown;
        self.endpoints.extend(other.endpoints);
    }
}

//! Revisions of the facts of a kind.
//!
//! Guarantees: two revisions are equal only if no fact has changed between them. Revisions of different indexes differ.
//!
//! Leaves to others: what depends on the facts (`translate`).

use std::sync::Arc;

/// A revision of the facts of one kind. A clone is equal, and every new one differs from all that exist.
#[derive(Clone, Debug, Default)]
pub struct FactRevision(Arc<RevisionMark>);

/// Has a size, so that every allocation has an address of its own.
#[derive(Debug, Default)]
struct RevisionMark(#[expect(dead_code, reason = "only the address counts")] u8);

impl PartialEq for FactRevision {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FactRevision {}

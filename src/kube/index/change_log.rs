//! The last changes of a store, so that whoever knows an earlier revision finds out what is different now.
//!
//! Guarantees:
//! - Complete or nothing: the changes since a revision that is too old, or of another store, are not known.
//! - Bounded: at most [`CHANGES_MAX`] changes are kept.

use std::collections::VecDeque;

use crate::kube::objects::ObjectKey;
use crate::model::IdentityToken;

/// The largest number of changes that are kept. Fifty changes a second make at most five between two translations.
const CHANGES_MAX: usize = 256;

/// The revision of a store, and the changes that led to it, the oldest first: the revision before each, and the object
/// that changed.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeLog {
    revision: IdentityToken,
    changes: VecDeque<(IdentityToken, ObjectKey)>,
}

impl ChangeLog {
    /// The revision now.
    pub(super) fn revision(&self) -> &IdentityToken {
        &self.revision
    }

    /// Notes a change: a new revision begins.
    pub(super) fn note(&mut self, key: ObjectKey) {
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back((std::mem::take(&mut self.revision), key));
    }

    /// The objects that changed since a revision, some perhaps more than once; `None` if that is not known.
    pub(super) fn since(&self, revision: &IdentityToken) -> Option<Vec<&ObjectKey>> {
        if self.revision == *revision {
            return Some(Vec::new());
        }
        let first = self.changes.iter().rposition(|(before, _)| before == revision)?;
        Some(self.changes.range(first..).map(|(_, key)| key).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_known_since_the_last_revisions() {
        let mut log = ChangeLog::default();
        let mut revisions = Vec::new();
        for at in 0..=CHANGES_MAX {
            revisions.push(log.revision().clone());
            log.note(ObjectKey::new("", &at.to_string()));
        }
        let since =
            |revision| Some(log.since(revision)?.into_iter().map(|key| key.name.to_string()).collect::<Vec<_>>());
        assert_eq!(since(log.revision()), Some(vec![]));
        assert_eq!(since(&revisions[CHANGES_MAX]), Some(vec![CHANGES_MAX.to_string()]));
        assert_eq!(since(&revisions[1]).map(|keys| keys.len()), Some(CHANGES_MAX));
        assert_eq!(since(&revisions[0]), None, "it is too old");
        assert_eq!(since(&IdentityToken::default()), None, "it is that of another store");
    }
}

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

/// The changes of a store, the oldest first: the revision before each, and the object that changed.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeLog(VecDeque<(IdentityToken, ObjectKey)>);

impl ChangeLog {
    /// Notes the change that ended a revision.
    pub(super) fn note(&mut self, before: IdentityToken, key: ObjectKey) {
        if self.0.len() == CHANGES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((before, key));
    }

    /// The objects that changed since a revision, some perhaps more than once; `None` if that is not known.
    pub(super) fn since(&self, revision: &IdentityToken) -> Option<impl Iterator<Item = &ObjectKey>> {
        let first = self.0.iter().rposition(|(before, _)| before == revision)?;
        Some(self.0.range(first..).map(|(_, key)| key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_known_since_the_last_revisions() {
        let mut log = ChangeLog::default();
        let revisions: Vec<IdentityToken> = (0..=CHANGES_MAX).map(|_| IdentityToken::default()).collect();
        for (at, revision) in revisions.iter().enumerate() {
            log.note(revision.clone(), ObjectKey::new("", &at.to_string()));
        }
        let since = |revision| Some(log.since(revision)?.map(|key| key.name.to_string()).collect::<Vec<_>>());
        assert_eq!(since(&revisions[CHANGES_MAX]), Some(vec![CHANGES_MAX.to_string()]));
        assert_eq!(since(&revisions[1]).map(|keys| keys.len()), Some(CHANGES_MAX));
        assert_eq!(since(&revisions[0]), None, "it is too old");
        assert_eq!(since(&IdentityToken::default()), None, "it is that of another store");
    }
}

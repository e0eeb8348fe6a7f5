//! The findings of an audit, and the numbers of checked items.

use std::fmt;

use serde::Serialize;

use crate::ledger::hash_chain::canonical::SealKind;

/// The most findings that are kept; of further findings only the number.
pub const FINDINGS_MAX: usize = 100;

/// The guarantee of the ledger that a finding violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditCheck {
    /// Seals are numbered 1, 2, 3 and each contains the hash of the one before.
    Link,
    /// A seal's hash is the hash of its columns.
    Hash,
    /// A seal's content is the content of its rows.
    Content,
    /// Every row has a seal or waits for one, and every seal has its rows.
    Rows,
    /// The chain ends at the head in the book, and contains the head that was noted elsewhere.
    Head,
    /// Days and totals are the sums of their sealed hours.
    Sums,
    /// Admitted = ended + in flight, commands and units; received = refused + admitted.
    Balance,
    /// Epochs are numbered without a gap, and their endings match their seals.
    Epochs,
    /// Every correction has a seal.
    Adjustments,
    /// The tally can be read and belongs to this book.
    Tally,
    /// The book's schema is exactly the schema of its format.
    Schema,
    /// No count is negative.
    Negative,
    /// The heads that somebody else's Prometheus remembers are those of the chain.
    Witness,
}

impl fmt::Display for AuditCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Hash => "hash",
            Self::Content => "content",
            Self::Rows => "rows",
            Self::Head => "head",
            Self::Sums => "sums",
            Self::Balance => "balance",
            Self::Epochs => "epochs",
            Self::Adjustments => "adjustments",
            Self::Tally => "tally",
            Self::Schema => "schema",
            Self::Negative => "negative",
            Self::Witness => "witness",
        })
    }
}

/// A violation found by a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditFinding {
    /// The check.
    pub check: AuditCheck,
    /// The place: a seal, an epoch, an hour or a day, a series.
    pub place: String,
    /// The value found, and the value expected.
    pub what: String,
}

/// The numbers of items that an audit checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditCounts {
    /// Seals whose numbers and links were checked.
    pub seals: u64,
    /// Of those, hours whose rows are kept as a day only. Their content is covered by the day's seal.
    pub rolled: u64,
    /// Canonical lines that were built and hashed.
    pub lines: u64,
    /// Days that were recomputed.
    pub days: u64,
    /// Series whose totals were recomputed.
    pub series: u64,
    /// Hours, epochs and series whose admitted and ended commands were compared.
    pub balances: u64,
    /// Corrections.
    pub adjustments: u64,
    /// Epochs.
    pub epochs: u64,
    /// Slots of the tally.
    pub slots: u64,
}

/// The head of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainHead {
    /// The last seal's number; 0 before the first.
    pub number: i64,
    /// The hash of the last seal.
    pub hash: String,
    /// The time of the last seal; `None` before the first.
    pub sealed_at: Option<String>,
}

/// The content of the chain after a head that was noted elsewhere. The head proves everything before it; this part is
/// not proved by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SealsAfterHead {
    /// Seals of all kinds.
    pub seals: u64,
    /// Hours that were sealed.
    pub hours: u64,
    /// Days that replaced their hours: the hours behind these sums can no longer be checked.
    pub days: u64,
    /// Endings of epochs.
    pub epochs: u64,
    /// Corrections of any period.
    pub corrections: u64,
}

impl SealsAfterHead {
    pub(crate) fn count_seal(&mut self, kind: SealKind) {
        self.seals += 1;
        match kind {
            SealKind::Hour => self.hours += 1,
            SealKind::Day => self.days += 1,
            SealKind::Epoch => self.epochs += 1,
            SealKind::Adjustment => self.corrections += 1,
            SealKind::Migration => {}
        }
    }
}

/// The result of `verify`.
#[derive(Clone, Debug, Serialize)]
pub struct AuditVerdict {
    /// Whether there are no findings.
    pub ok: bool,
    /// The head of the chain, to be noted elsewhere: later it proves that nothing before it was replaced.
    pub head: ChainHead,
    /// The content after the noted head, if a head was given and the chain contains its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<SealsAfterHead>,
    /// At most [`FINDINGS_MAX`] findings.
    pub findings: Vec<AuditFinding>,
    /// The number of further findings.
    pub more: u64,
    /// Notes: observations that are not faults.
    pub notes: Vec<String>,
    /// The numbers of checked items.
    pub checked: AuditCounts,
}

impl AuditVerdict {
    /// Adds findings of a comparison with something outside of the ledger.
    pub fn add_findings(&mut self, findings: impl IntoIterator<Item = AuditFinding>) {
        for finding in findings {
            self.ok = false;
            if self.findings.len() < FINDINGS_MAX {
                self.findings.push(finding);
            } else {
                self.more += 1;
            }
        }
    }
}

/// Collects the results of the checks.
#[derive(Debug, Default)]
pub(crate) struct AuditReport {
    pub(crate) findings: Vec<AuditFinding>,
    pub(crate) more: u64,
    pub(crate) after: Option<SealsAfterHead>,
    pub(crate) notes: Vec<String>,
    pub(crate) checked: AuditCounts,
}

impl AuditReport {
    pub(crate) fn add_finding(&mut self, check: AuditCheck, place: impl fmt::Display, what: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(AuditFinding { check, place: place.to_string(), what: what.into() });
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn add_note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn into_verdict(self, head: ChainHead) -> AuditVerdict {
        let Self { findings, more, after, notes, checked } = self;
        AuditVerdict { ok: findings.is_empty(), head, after, findings, more, notes, checked }
    }
}

/// Called with the name of the current step, the amount done and the total amount.
pub(super) type ProgressCallback<'a> = dyn FnMut(&str, u64, u64) + 'a;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_bounded_and_the_rest_is_counted() {
        let mut report = AuditReport::default();
        for number in 0..FINDINGS_MAX + 7 {
            report.add_finding(AuditCheck::Link, number, "broken");
        }
        let verdict = report.into_verdict(ChainHead { number: 0, hash: String::new(), sealed_at: None });
        assert_eq!((verdict.ok, verdict.findings.len(), verdict.more), (false, FINDINGS_MAX, 7));
    }

    #[test]
    fn findings_of_a_comparison_outside_are_bounded_too() {
        let head = ChainHead { number: 0, hash: String::new(), sealed_at: None };
        let mut verdict = AuditReport::default().into_verdict(head);
        verdict.add_findings(None);
        assert!(verdict.ok);
        let finding = AuditFinding { check: AuditCheck::Witness, place: String::new(), what: String::new() };
        verdict.add_findings(vec![finding; FINDINGS_MAX + 1]);
        assert_eq!((verdict.ok, verdict.findings.len(), verdict.more), (false, FINDINGS_MAX, 1));
    }
}

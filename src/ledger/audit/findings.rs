//! What an audit found, and what it could look at.

use std::fmt;

use serde::Serialize;

use crate::ledger::hash_chain::canonical::SealKind;

/// The most findings that are kept; of further ones only the number.
pub const FINDINGS_MAX: usize = 100;

/// Which of the ledger's promises a finding breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditCheck {
    /// Seals are numbered 1, 2, 3 and each names the hash of the one before.
    Link,
    /// A seal's hash is that of its columns.
    Hash,
    /// A seal's content is that of its rows.
    Content,
    /// Every row has a seal or waits for one, and every seal has its rows.
    Rows,
    /// The chain ends where the book, or a note kept elsewhere, says it does.
    Head,
    /// Days and totals are the sums of their sealed hours.
    Sums,
    /// Admitted = ended + in flight, commands and units; received = refused + admitted.
    Balance,
    /// Epochs are numbered without a gap and ended as their seals say.
    Epochs,
    /// Every correction has a seal.
    Adjustments,
    /// The tally can be read and belongs to this book.
    Tally,
    /// The book consists of what its format makes, and of nothing else.
    Schema,
    /// No count is negative.
    Negative,
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
        })
    }
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditFinding {
    /// What was looked at.
    pub check: AuditCheck,
    /// Where: a seal, an epoch, an hour or a day, a series.
    pub place: String,
    /// What is there, and what was expected.
    pub what: String,
}

/// How much an audit looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditCounts {
    /// Seals whose numbers and links were followed.
    pub seals: u64,
    /// Of those, hours whose rows are kept as a day only, so that their content is vouched for by the day's seal.
    pub rolled: u64,
    /// Canonical lines that were built and hashed.
    pub lines: u64,
    /// Days that were added up again.
    pub days: u64,
    /// Series whose totals were added up again.
    pub series: u64,
    /// Hours, epochs and series whose admitted and ended were compared.
    pub balances: u64,
    /// Corrections.
    pub adjustments: u64,
    /// Epochs.
    pub epochs: u64,
    /// Slots of the tally.
    pub slots: u64,
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainHead {
    /// The last seal's number; 0 before the first.
    pub number: i64,
    /// Its hash.
    pub hash: String,
    /// When it was made; nothing before the first.
    pub sealed_at: Option<String>,
}

/// What came into the chain after a head that was noted elsewhere. The head proves all before it; this is what it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SealsAfterHead {
    /// Seals, of all kinds.
    pub seals: u64,
    /// Hours that were sealed.
    pub hours: u64,
    /// Days that took the place of their hours: their sums are those of hours that can no longer be looked at.
    pub days: u64,
    /// Ends of epochs.
    pub epochs: u64,
    /// Corrections, of whatever period.
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

/// What `verify` says.
#[derive(Clone, Debug, Serialize)]
pub struct AuditVerdict {
    /// Whether there are no findings.
    pub ok: bool,
    /// Worth noting elsewhere: later, it proves that nothing before it was exchanged.
    pub head: ChainHead,
    /// What came after the head that was noted elsewhere, if one was and the chain holds its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<SealsAfterHead>,
    /// At most [`FINDINGS_MAX`].
    pub findings: Vec<AuditFinding>,
    /// Findings beyond those.
    pub more: u64,
    /// What is no fault but should be known.
    pub notes: Vec<String>,
    /// What was looked at.
    pub checked: AuditCounts,
}

/// Where the checks report to.
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

/// Called with what is being done, how much of it is done, and how much there is.
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
}

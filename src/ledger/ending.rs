//! How an epoch ended, and the one place that says so in the book.
//!
//! Guarantees: when and how an epoch ended is written once, and its seal with it, so that a crash cannot be made a clean end
//! afterwards without breaking the chain.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::canon::SealKind;
use super::lines;
use super::seal::{self, Covered};

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By closing the ledger.
    Clean,
    /// Without closing it, on a machine that went on: every count is there.
    ProcessDied,
    /// With the machine: what came after the last sync may be missing.
    MachineDied,
    /// Nobody knows: the tally was gone.
    TallyMissing,
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::ProcessDied => "process died",
            Self::MachineDied => "machine died",
            Self::TallyMissing => "tally missing",
        }
    }

    /// Writes that an epoch has ended so, and seals it.
    pub(super) fn write(self, transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
        let values = params![now.to_string(), self.name(), epoch];
        transaction.execute("UPDATE epoch SET ended_at = ?, ending = ? WHERE epoch = ?", values)?;
        seal(transaction, epoch, now)
    }
}

/// Seals what the book says of an epoch that has ended.
pub(super) fn seal(transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
    let lines = lines::of_epoch(transaction, epoch)?;
    let covered = Covered { kind: SealKind::Epoch, epoch: Some(epoch), window: None, lines };
    seal::append(transaction, covered, now).map(drop)
}

//! How an epoch ended, and the one place that says so in the book.
//!
//! Guarantees: when and how an epoch ended is written once, and its seal with it, so that a crash cannot be made a clean end
//! afterwards without breaking the chain.

use crate::model::Window;
use jiff::Timestamp;
use rusqlite::{Transaction, params};

use crate::ledger::hash_chain::canonical::SealKind;
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::hash_chain::seal::{self, SealContent};

/// How an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochEnding {
    /// By closing the ledger.
    Clean,
    /// Without closing it, on a machine that went on: every count is there.
    ProcessDied,
    /// With the machine: what came after the last sync may be missing.
    MachineDied,
    /// Nobody knows: the tally was gone.
    TallyMissing,
}

impl EpochEnding {
    const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::ProcessDied => "process died",
            Self::MachineDied => "machine died",
            Self::TallyMissing => "tally missing",
        }
    }

    /// Writes that an epoch has ended so, and seals it.
    pub(crate) fn record(self, transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
        let values = params![now.to_string(), self.name(), epoch];
        transaction.execute("UPDATE epoch SET ended_at = ?, ending = ? WHERE epoch = ?", values)?;
        seal_epoch(transaction, epoch, now)
    }
}

/// Seals what the book says of an epoch that has ended.
pub(crate) fn seal_epoch(transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
    let lines = canonical_rows::epoch_lines(transaction, epoch)?;
    let content = SealContent { kind: SealKind::Epoch, epoch: Some(epoch), window: None, lines };
    seal::append_seal(transaction, content, now).map(drop)
}

/// Where interrupted commands of sealed windows are counted: the window in which the epoch was last seen alive.
pub(crate) fn fallback_window(synced_at: Timestamp, floor: Window) -> Window {
    Window::of_unix_seconds(synced_at.as_second()).max(floor)
}

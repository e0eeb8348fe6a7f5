//! The ending of an epoch, and the only code that writes it into the book.
//!
//! Guarantees: the time and the kind of an ending are written once, together with a seal. So a crash cannot be turned
//! into a clean end afterwards without breaking the chain.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use crate::ledger::hash_chain::canonical::SealKind;
use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::hash_chain::seal::{self, SealContent};
use crate::model::Window;

/// The kind of an epoch's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochEnding {
    /// The ledger was closed.
    Clean,
    /// The process died and the machine went on: no count is lost.
    ProcessDied,
    /// The machine died: counts after the last sync may be missing.
    MachineDied,
    /// The tally was missing, so the ending is unknown.
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

    /// Records the ending of an epoch, and seals it.
    pub(crate) fn record(self, transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
        let values = params![now.to_string(), self.name(), epoch];
        transaction.execute("UPDATE epoch SET ended_at = ?, ending = ? WHERE epoch = ?", values)?;
        seal_epoch(transaction, epoch, now)
    }
}

/// Seals the book's row of an ended epoch.
pub(crate) fn seal_epoch(transaction: &Transaction<'_>, epoch: u32, now: Timestamp) -> rusqlite::Result<()> {
    let lines = canonical_rows::epoch_lines(transaction, epoch)?;
    let content = SealContent { kind: SealKind::Epoch, epoch: Some(epoch), window: None, lines };
    seal::append_seal(transaction, content, now).map(drop)
}

/// Returns the window for interrupted commands of sealed windows: the window of the epoch's last sync.
pub(crate) fn fallback_window(synced_at: Timestamp, floor: Window) -> Window {
    Window::of_unix_seconds(synced_at.as_second()).max(floor)
}

//! What the keeper and the workers tell each other: a few atomic words (`signals`), one channel towards the keeper.
//!
//! Guarantees: no lock is taken and nobody waits on the way of a command.

use std::sync::mpsc;

use tokio::sync::oneshot;

use super::error::LedgerError;
use super::fold::{OpenRows, OpenUse};
use super::names::Names;
use super::totals::Totals;

pub(super) use super::signals::{Shared, Worker};

/// What the keeper is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// There is something to do before the next turn: a worker is short of slots, or somebody waits for a sync.
    Wake,
    /// What is counted at this moment.
    Totals(oneshot::Sender<Totals>),
    /// The same, and what departments used in hours that the book does not have for good yet.
    TotalsAndUse(oneshot::Sender<(Totals, OpenUse)>),
    /// The rows that the book does not have for good yet.
    OpenRows(oneshot::Sender<OpenRows>),
    /// Sync, fold and seal now.
    Fold(oneshot::Sender<Result<(), LedgerError>>),
    /// Write the names that departments have now, within a second.
    Names(Names),
    /// End the epoch cleanly.
    Close,
    /// Stop where you stand, as a crash does.
    Abandon,
}

/// The way to the keeper.
pub(super) type Requests = mpsc::Sender<Request>;

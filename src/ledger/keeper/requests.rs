//! What the keeper and the workers tell each other: a few atomic words (`signals`), one channel towards the keeper.
//!
//! Guarantees: no lock is taken and nobody waits on the way of a command.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::ledger::book::department_names::DepartmentNames;
use crate::ledger::fold::{OpenRows, OpenUsage};
use crate::ledger::values::error::LedgerError;
use crate::ledger::values::measures::LedgerTotals;

pub(crate) use crate::ledger::tally::seal_protocol::{SharedFlags, WorkerFlags};

/// What the keeper is asked.
#[derive(Debug)]
pub(crate) enum KeeperRequest {
    /// There is something to do before the next turn: a worker is short of slots, or somebody waits for a sync.
    Wake,
    /// What is counted at this moment.
    Totals(oneshot::Sender<LedgerTotals>),
    /// The same, and what departments used in hours that the book does not have for good yet.
    TotalsAndUsage(oneshot::Sender<(LedgerTotals, OpenUsage)>),
    /// The rows that the book does not have for good yet.
    OpenRows(oneshot::Sender<OpenRows>),
    /// Sync, fold and seal now.
    Fold(oneshot::Sender<Result<(), LedgerError>>),
    /// Write the names that departments have now, within a second.
    DepartmentNames(DepartmentNames),
    /// End the epoch cleanly.
    Close,
    /// Stop where you stand, as a crash does.
    Abandon,
}

/// The way to the keeper.
pub(crate) type RequestSender = mpsc::Sender<KeeperRequest>;

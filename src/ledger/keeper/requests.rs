//! The requests to the keeper: one channel from readers and workers.
//!
//! The shared atomic words are in `tally::seal_protocol`.
//!
//! Guarantees: the path of a command takes no lock and does not wait.

use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::ledger::book::department_names::DepartmentNames;
use crate::ledger::fold::{OpenRows, OpenUsage};
use crate::ledger::values::error::LedgerError;
use crate::ledger::values::measures::LedgerTotals;

pub(crate) use crate::ledger::tally::seal_protocol::{SharedFlags, WorkerFlags};

/// A request to the keeper.
#[derive(Debug)]
pub(crate) enum KeeperRequest {
    /// Run the periodic work before its next turn: a worker needs slots, or a command waits for a sync.
    Wake,
    /// Return the totals at this moment.
    Totals(oneshot::Sender<LedgerTotals>),
    /// Return the totals, and the usage of departments in hours that the book has not sealed yet.
    TotalsAndUsage(oneshot::Sender<(LedgerTotals, OpenUsage)>),
    /// Return the rows that the book has not sealed yet.
    OpenRows(oneshot::Sender<OpenRows>),
    /// Sync, fold and seal now.
    Fold(oneshot::Sender<Result<(), LedgerError>>),
    /// Write the present names of departments, within a second.
    DepartmentNames(DepartmentNames),
    /// End the epoch cleanly.
    Close,
    /// Stop without further work, as in a crash.
    Abandon,
}

/// The sender of requests to the keeper.
pub(crate) type RequestSender = mpsc::Sender<KeeperRequest>;

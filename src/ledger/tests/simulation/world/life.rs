//! A live gateway: its meters, and its keeper without a thread.

use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use tokio::sync::oneshot;

use crate::ledger::files::lock::LedgerLock;
use crate::ledger::fold::OpenRows;
use crate::ledger::keeper::Keeper;
use crate::ledger::keeper::requests::{KeeperRequest, RequestSender};
use crate::ledger::tests::wait;
use crate::ledger::{Meter, Ticket, UsageRow};
use crate::model::{Refused, Window};

use super::super::books;
use super::super::model::ModelSeries;

/// A live gateway.
pub(crate) struct GatewayLife {
    pub(crate) tickets: Vec<(u64, Ticket)>,
    pub(crate) meters: Vec<Meter>,
    /// The window of each worker: the worker counts into no earlier window.
    pub(crate) windows: Vec<Window>,
    pub(crate) keeper: Keeper,
    pub(crate) inbox: mpsc::Receiver<KeeperRequest>,
    pub(crate) requests: RequestSender,
    pub(crate) _lock: LedgerLock,
}

impl GatewayLife {
    /// Lets the keeper reply to all waiting requests.
    pub(crate) fn drain(&mut self) {
        while let Ok(request) = self.inbox.try_recv() {
            self.keeper.handle_request(request).expect("an answer");
        }
    }

    /// Lets the keeper reply to the question of a reader.
    pub(crate) fn ask<T>(&mut self, question: impl Future<Output = T>) -> T {
        let mut question = pin!(question);
        let mut context = Context::from_waker(Waker::noop());
        assert!(question.as_mut().poll(&mut context).is_pending(), "no waiter is released");
        self.drain();
        wait(question)
    }

    pub(crate) fn open_rows(&mut self) -> OpenRows {
        let (reply, mut answer) = oneshot::channel();
        self.keeper.handle_request(KeeperRequest::OpenRows(reply)).expect("an answer");
        answer.try_recv().expect("rows")
    }

    /// Returns whether a refusal without its own slot was nevertheless counted under its own name.
    pub(crate) fn grew(&mut self, before: &OpenRows, window: Window, series: ModelSeries, refused: Refused) -> bool {
        let count = |rows: &[UsageRow]| {
            let is_it = |row: &&UsageRow| books::key(row) == (window, series, crate::model::Outcome::Refused(refused));
            rows.iter().find(is_it).map_or(0, |row| row.totals.commands)
        };
        count(&self.open_rows().rows) == count(&before.rows) + 1
    }

    /// Returns the hour in which a worker counts refusals without a slot of their own. It may be before the worker's
    /// present hour, but never an hour that the worker has left.
    pub(crate) fn unnamed_window(&self, worker: usize) -> Window {
        let window = self.meters[worker].unnamed_window().expect("a slot for a series without a name");
        assert!(self.meters[worker].acknowledged_window() <= window && window <= self.windows[worker], "{window}");
        window
    }
}

//! A gateway that lives: its meters, and its keeper without a thread.

use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use tokio::sync::oneshot;

use super::super::books;
use super::super::model::Series;
use crate::ledger::fold::OpenRows;
use crate::ledger::keeper::Keeper;
use crate::ledger::lock::LedgerLock;
use crate::ledger::shared::{Request, Requests};
use crate::ledger::tests::wait;
use crate::ledger::{Meter, Ticket, UsageRow};
use crate::model::{Refused, Window};

/// A gateway that lives.
pub(super) struct Life {
    pub(super) tickets: Vec<(u64, Ticket)>,
    pub(super) meters: Vec<Meter>,
    /// Where each worker stands: it counts into no window before.
    pub(super) windows: Vec<Window>,
    pub(super) keeper: Keeper,
    pub(super) inbox: mpsc::Receiver<Request>,
    pub(super) requests: Requests,
    pub(super) _lock: LedgerLock,
}

impl Life {
    /// The keeper answers whoever has asked.
    pub(super) fn drain(&mut self) {
        while let Ok(request) = self.inbox.try_recv() {
            self.keeper.answer(request).expect("an answer");
        }
    }

    /// Lets the keeper answer a question that a reader puts.
    pub(super) fn ask<T>(&mut self, question: impl Future<Output = T>) -> T {
        let mut question = pin!(question);
        let mut context = Context::from_waker(Waker::noop());
        assert!(question.as_mut().poll(&mut context).is_pending(), "nobody has answered yet");
        self.drain();
        wait(question)
    }

    pub(super) fn open_rows(&mut self) -> OpenRows {
        let (reply, mut answer) = oneshot::channel();
        self.keeper.answer(Request::OpenRows(reply)).expect("an answer");
        answer.try_recv().expect("rows")
    }

    /// Whether a refusal that had no slot of its own was counted under its own name all the same.
    pub(super) fn grew(&mut self, before: &OpenRows, window: Window, series: Series, refused: Refused) -> bool {
        let count = |rows: &[UsageRow]| {
            let is_it = |row: &&UsageRow| books::key(row) == (window, series, crate::model::Outcome::Refused(refused));
            rows.iter().find(is_it).map_or(0, |row| row.totals.commands)
        };
        count(&self.open_rows().rows) == count(&before.rows) + 1
    }

    /// The hour in which a worker counts what has no slot of its own: perhaps one before its present, never one it has left.
    pub(super) fn unnamed_window(&self, worker: usize) -> Window {
        let window = self.meters[worker].unnamed().expect("a slot for what has no name");
        assert!(self.meters[worker].left() <= window && window <= self.windows[worker], "{window}");
        window
    }
}

//! The model: the expected content of the ledger, in as little code as possible.
//!
//! Besides the facts of each command, the model gets the state of the workers: the hours that a worker has left, and
//! whether the worker had a slot. The model decides what these facts mean for the books.

use std::collections::BTreeMap;

use crate::ledger::values::measures::Measures;
use crate::model::{Finished, Outcome, Refused, Window};

/// The numbers of a department and a command. 0 and 0 stand for counts without a name.
pub(crate) type ModelSeries = (u32, u32);

pub(crate) const UNKNOWN: ModelSeries = (0, 0);

/// The hour of the end, hours since the admission, series, and outcome.
pub(crate) type ModelKey = (Window, u32, ModelSeries, Outcome);

/// The expected books. A command in flight is identified by the moment of its admission.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerModel {
    pub(crate) rows: BTreeMap<ModelKey, Measures>,
    pub(crate) admitted: BTreeMap<(Window, ModelSeries), (u64, u64)>,
    /// Waived commands and their units, by hour of the end, hours since the admission, and series.
    pub(crate) waived: BTreeMap<(Window, u32, ModelSeries), (u64, u64)>,
    pub(crate) open: BTreeMap<u64, ModelTicket>,
}

/// The end of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelEnd {
    pub(crate) finished: Finished,
    pub(crate) duration_ns: u64,
    /// No part of the command reached a subsystem.
    pub(crate) is_waived: bool,
}

impl ModelEnd {
    /// Returns whether the command is free. A response of a subsystem is always charged.
    fn is_free(self) -> bool {
        self.is_waived && !matches!(self.finished, Finished::Ok | Finished::ClientError | Finished::ServerError)
    }
}

/// A command in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelTicket {
    pub(crate) worker: usize,
    pub(crate) window: Window,
    pub(crate) series: ModelSeries,
    pub(crate) units: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// The command has ended, but waits for a slot of the present hour.
    pub(crate) over: Option<ModelEnd>,
}

impl LedgerModel {
    pub(crate) fn admit(&mut self, moment: u64, open: ModelTicket) {
        let sum = self.admitted.entry((open.window, open.series)).or_default();
        *sum = (sum.0 + 1, sum.1 + open.units);
        self.open.insert(moment, open);
    }

    /// Ends a command in an hour: the hour of its admission, or a later hour if the worker has left that hour.
    pub(crate) fn end(&mut self, moment: u64, window: Window, ended: ModelEnd) {
        let ModelEnd { finished, duration_ns, .. } = ended;
        let Some(open) = self.open.remove(&moment) else { panic!("{moment} ended twice") };
        let (request_bytes, response_bytes) = (open.request_bytes, open.response_bytes);
        let late = window.0 - open.window.0;
        let key = (window, late, open.series, Outcome::Finished(finished));
        let units = if ended.is_free() { 0 } else { open.units };
        if ended.is_free() {
            let sum = self.waived.entry((window, late, open.series)).or_default();
            *sum = (sum.0 + 1, sum.1 + open.units);
        }
        let totals = Measures { commands: 1, units, request_bytes, response_bytes, duration_ns };
        self.rows.entry(key).or_default().add(&totals);
    }

    pub(crate) fn refuse(&mut self, window: Window, series: ModelSeries, refused: Refused) {
        self.rows.entry((window, 0, series, Outcome::Refused(refused))).or_default().commands += 1;
    }

    /// Ends the epoch. Commands in flight become `interrupted` in the hour of their admission, or in `instead` if that
    /// hour is before `floor`. Commands of a slot share their duration, which is 0 if the last sync lies before it.
    pub(crate) fn interrupt(&mut self, now_ns: u64, floor: Window, instead: Window) {
        let mut time: BTreeMap<_, i128> = BTreeMap::new();
        for (moment, open) in &self.open {
            let slot = (open.worker, open.window, open.series, open.units);
            *time.entry(slot).or_default() += i128::from(now_ns) - i128::from(*moment);
        }
        for (moment, open) in self.open.clone() {
            let window = if open.window < floor { instead } else { open.window };
            let slot = (open.worker, open.window, open.series, open.units);
            let duration = time.remove(&slot).unwrap_or_default().max(0);
            let duration_ns = u64::try_from(duration).expect("not for centuries");
            self.end(moment, window, ModelEnd { finished: Finished::Interrupted, duration_ns, is_waived: false });
        }
    }

    /// Returns, for one series: admitted commands, units of ended commands, and the number of ended commands.
    pub(crate) fn sums(&self, series: ModelSeries) -> (u64, u64, u64) {
        let admitted = self.admitted.iter().filter(|(key, _)| key.1 == series).map(|(_, sum)| sum.0).sum();
        let is_end = |key: &ModelKey| key.2 == series && matches!(key.3, Outcome::Finished(_));
        let ended = || self.rows.iter().filter(|(key, _)| is_end(key)).map(|(_, totals)| totals);
        (admitted, ended().map(|totals| totals.units).sum(), ended().map(|totals| totals.commands).sum())
    }

    /// Returns the number of refusals of a series.
    pub(crate) fn refused(&self, series: ModelSeries, refused: Refused) -> u64 {
        self.total(series, Outcome::Refused(refused)).commands
    }

    pub(crate) fn finished(&self, series: ModelSeries, finished: Finished) -> Measures {
        self.total(series, Outcome::Finished(finished))
    }

    fn total(&self, series: ModelSeries, outcome: Outcome) -> Measures {
        let mut sum = Measures::default();
        let is_it = |key: &ModelKey| key.2 == series && key.3 == outcome;
        self.rows.iter().filter(|(key, _)| is_it(key)).for_each(|(_, totals)| sum.add(totals));
        sum
    }

    /// Returns request and response bytes of a series, including commands in flight.
    pub(crate) fn bytes(&self, series: ModelSeries) -> (u64, u64) {
        let ended = self.rows.iter().filter(|(key, _)| key.2 == series);
        let ended = ended.map(|(_, totals)| (totals.request_bytes, totals.response_bytes));
        let open = self.open.values().filter(|open| open.series == series);
        let open = open.map(|open| (open.request_bytes, open.response_bytes));
        ended.chain(open).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Returns the commands in flight, by window of admission and series.
    pub(crate) fn in_flight(&self, now_ns: u64) -> BTreeMap<(Window, ModelSeries), Measures> {
        let mut sums: BTreeMap<_, Measures> = BTreeMap::new();
        for (moment, open) in &self.open {
            let ModelTicket { units, request_bytes, response_bytes, .. } = *open;
            let duration_ns = now_ns - moment;
            let one = Measures { commands: 1, units, request_bytes, response_bytes, duration_ns };
            sums.entry((open.window, open.series)).or_default().add(&one);
        }
        sums
    }
}

//! What the ledger must say, in as few lines as that takes.
//!
//! Beside the facts of each command it is told where a worker stands: which hours it has left, whether it had a slot. The
//! model decides what these mean for the books.

use std::collections::BTreeMap;

use crate::ledger::totals::OutcomeTotals;
use crate::model::{Finished, Outcome, Refused, Window};

/// Numbers of a department and a command; 0 and 0 is what has no name.
pub(super) type Series = (u32, u32);

pub(super) const UNKNOWN: Series = (0, 0);

/// Hour of the end, hours since the admission, who and what, how it ended.
pub(super) type Key = (Window, u32, Series, Outcome);

/// The books as they should be. Commands in flight have the moment of their admission as a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) rows: BTreeMap<Key, OutcomeTotals>,
    pub(super) admitted: BTreeMap<(Window, Series), (u64, u64)>,
    /// Commands that cost nothing, and their units, by hour of the end, hours since the admission, who and what.
    pub(super) waived: BTreeMap<(Window, u32, Series), (u64, u64)>,
    pub(super) open: BTreeMap<u64, Open>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) finished: Finished,
    pub(super) duration_ns: u64,
    /// Nothing of it reached a subsystem.
    pub(super) is_waived: bool,
}

impl Ended {
    /// What a subsystem answered is charged, whatever else is said.
    fn is_free(self) -> bool {
        self.is_waived && !matches!(self.finished, Finished::Ok | Finished::ClientError | Finished::ServerError)
    }
}

/// A command in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) worker: usize,
    pub(super) window: Window,
    pub(super) series: Series,
    pub(super) units: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// It is over, but waits for a slot of the present hour.
    pub(super) over: Option<Ended>,
}

impl Model {
    pub(super) fn admit(&mut self, moment: u64, open: Open) {
        let sum = self.admitted.entry((open.window, open.series)).or_default();
        *sum = (sum.0 + 1, sum.1 + open.units);
        self.open.insert(moment, open);
    }

    /// Ends a command in an hour: that of its admission, or a later one if that has been left.
    pub(super) fn end(&mut self, moment: u64, window: Window, ended: Ended) {
        let Ended { finished, duration_ns, .. } = ended;
        let Some(open) = self.open.remove(&moment) else { panic!("{moment} ended twice") };
        let (request_bytes, response_bytes) = (open.request_bytes, open.response_bytes);
        let late = window.0 - open.window.0;
        let key = (window, late, open.series, Outcome::Finished(finished));
        let units = if ended.is_free() { 0 } else { open.units };
        if ended.is_free() {
            let sum = self.waived.entry((window, late, open.series)).or_default();
            *sum = (sum.0 + 1, sum.1 + open.units);
        }
        let totals = OutcomeTotals { commands: 1, units, request_bytes, response_bytes, duration_ns };
        self.rows.entry(key).or_default().add(&totals);
    }

    pub(super) fn refuse(&mut self, window: Window, series: Series, refused: Refused) {
        self.rows.entry((window, 0, series, Outcome::Refused(refused))).or_default().commands += 1;
    }

    /// The epoch is over: what is in flight is interrupted where it was admitted, or `instead` if that hour is before
    /// `floor`. Commands of a slot share their time, which is none if the last sync lies before it.
    pub(super) fn interrupt(&mut self, now_ns: u64, floor: Window, instead: Window) {
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
            self.end(moment, window, Ended { finished: Finished::Interrupted, duration_ns, is_waived: false });
        }
    }

    /// Admitted, units of what has ended, and how many have ended, of one series.
    pub(super) fn sums(&self, series: Series) -> (u64, u64, u64) {
        let admitted = self.admitted.iter().filter(|(key, _)| key.1 == series).map(|(_, sum)| sum.0).sum();
        let is_end = |key: &Key| key.2 == series && matches!(key.3, Outcome::Finished(_));
        let ended = || self.rows.iter().filter(|(key, _)| is_end(key)).map(|(_, totals)| totals);
        (admitted, ended().map(|totals| totals.units).sum(), ended().map(|totals| totals.commands).sum())
    }

    /// How often something was refused.
    pub(super) fn refused(&self, series: Series, refused: Refused) -> u64 {
        self.total(series, Outcome::Refused(refused)).commands
    }

    pub(super) fn finished(&self, series: Series, finished: Finished) -> OutcomeTotals {
        self.total(series, Outcome::Finished(finished))
    }

    fn total(&self, series: Series, outcome: Outcome) -> OutcomeTotals {
        let mut sum = OutcomeTotals::default();
        let is_it = |key: &Key| key.2 == series && key.3 == outcome;
        self.rows.iter().filter(|(key, _)| is_it(key)).for_each(|(_, totals)| sum.add(totals));
        sum
    }

    /// Request and response bytes of a series, those of commands in flight included.
    pub(super) fn bytes(&self, series: Series) -> (u64, u64) {
        let ended = self.rows.iter().filter(|(key, _)| key.2 == series);
        let ended = ended.map(|(_, totals)| (totals.request_bytes, totals.response_bytes));
        let open = self.open.values().filter(|open| open.series == series);
        let open = open.map(|open| (open.request_bytes, open.response_bytes));
        ended.chain(open).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// What is in flight, by window of admission and series.
    pub(super) fn in_flight(&self, now_ns: u64) -> BTreeMap<(Window, Series), OutcomeTotals> {
        let mut sums: BTreeMap<_, OutcomeTotals> = BTreeMap::new();
        for (moment, open) in &self.open {
            let Open { units, request_bytes, response_bytes, .. } = *open;
            let duration_ns = now_ns - moment;
            let one = OutcomeTotals { commands: 1, units, request_bytes, response_bytes, duration_ns };
            sums.entry((open.window, open.series)).or_default().add(&one);
        }
        sums
    }
}

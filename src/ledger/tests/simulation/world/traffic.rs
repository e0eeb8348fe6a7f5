//! The steps of the workers: commands begin, pass bytes and end; the worker ticks.

use std::time::Duration;

use crate::ledger::tests::{command, department};
use crate::model::{Finished, Refused, Window};

use super::super::model::{ModelEnd, ModelSeries, ModelTicket, UNKNOWN};
use super::SimulatedWorld;

impl SimulatedWorld {
    pub(crate) fn receive(&self, worker: usize) {
        let Some(life) = &self.life else { return };
        life.meters[worker % life.meters.len()].received();
    }

    pub(crate) fn admit(&mut self, worker: usize, series: ModelSeries, units: u64) {
        let Some(life) = &mut self.life else { return };
        self.clock.advance(Duration::from_nanos(1)); // makes the moment unique
        let worker = worker % life.meters.len();
        let window = self.clock.window().max(life.windows[worker]);
        life.windows[worker] = window;
        let (meter, was_tight) = (&life.meters[worker], life.meters[worker].is_nearly_full());
        meter.received();
        match meter.open(&department(series.0), &command(series.1), units, self.clock.window()) {
            Ok(ticket) => {
                let moment = self.clock.monotonic().nanoseconds();
                life.tickets.push((moment, ticket));
                let (request_bytes, response_bytes, over) = (0, 0, None);
                self.model
                    .admit(moment, ModelTicket { worker, window, series, units, request_bytes, response_bytes, over });
            }
            Err(refused) => {
                assert!(
                    refused == Refused::LedgerUnavailable && was_tight,
                    "refused although slots are free: {refused:?}"
                );
                self.refuse(worker, series, refused);
            }
        }
    }

    pub(crate) fn refuse(&mut self, worker: usize, series: ModelSeries, refused: Refused) {
        let Some(life) = &mut self.life else { return };
        let worker = worker % life.meters.len();
        let window = self.clock.window().max(life.windows[worker]);
        life.windows[worker] = window;
        let is_tight = life.meters[worker].is_nearly_full();
        let before = is_tight.then(|| life.open_rows());
        life.meters[worker].refuse(&department(series.0), &command(series.1), refused, self.clock.window());
        let named = before.is_none_or(|before| life.grew(&before, window, series, refused));
        match named {
            true => self.model.refuse(window, series, refused),
            false => self.model.refuse(life.unnamed_window(worker), UNKNOWN, refused),
        }
    }

    pub(crate) fn pass_bytes(&mut self, nth: usize, request: u64, response: u64) {
        let Some(life) = &mut self.life else { return };
        let count = life.tickets.len();
        let Some((moment, ticket)) = life.tickets.get_mut(nth % count.max(1)) else { return };
        ticket.add_request_bytes(request);
        ticket.add_response_bytes(response);
        let open = self.model.open.get_mut(moment).expect("a command in flight");
        open.request_bytes += request;
        open.response_bytes += response;
    }

    pub(crate) fn end(&mut self, nth: usize, finished: Option<Finished>) {
        let Some(life) = &mut self.life else { return };
        let count = life.tickets.len();
        if count == 0 {
            return;
        }
        let (moment, mut ticket) = life.tickets.remove(nth % count);
        let (duration_ns, is_waived) = (self.clock.monotonic().nanoseconds() - moment, moment % 3 == 0);
        let end = ModelEnd { finished: finished.unwrap_or(Finished::Aborted), duration_ns, is_waived };
        if is_waived {
            ticket.waive();
        }
        match finished {
            Some(finished) => assert_eq!(u128::from(duration_ns), ticket.settle(finished).as_nanos()),
            None => drop(ticket),
        }
        let open = self.model.open.get_mut(&moment).expect("a command in flight");
        let meter = &life.meters[open.worker];
        if open.window >= meter.acknowledged_window() {
            let window = open.window;
            self.model.end(moment, window, end);
        } else if meter.pending_windows().contains(&moment) {
            assert!(meter.is_nearly_full(), "an end waits although slots are free");
            open.over = Some(end);
        } else {
            let window = life.windows[open.worker];
            self.model.end(moment, window, end);
        }
    }

    pub(crate) fn tick(&mut self, worker: usize) {
        let Some(life) = &mut self.life else { return };
        let worker = worker % life.meters.len();
        let meter = &life.meters[worker];
        let waited = meter.pending_windows();
        meter.tick();
        let waiting = meter.pending_windows();
        for moment in waited.iter().filter(|moment| !waiting.contains(moment)) {
            let end = self.model.open[moment].over.expect("the command has ended");
            self.model.end(*moment, life.windows[worker], end);
        }
        life.windows[worker] = life.windows[worker].max(meter.acknowledged_window());
        let over = Window::of_unix_seconds(self.latest - 60);
        assert!(
            meter.acknowledged_window() <= over,
            "{} was left less than a minute after its end",
            meter.acknowledged_window()
        );
    }
}

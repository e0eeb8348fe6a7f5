//! The per-worker recorder of durations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Name;

use super::histogram::DurationHistogram;
use super::{LimitHit, Telemetry};

/// Records durations for one worker. The recorder stays on the worker's thread, because it is the only writer of its
/// histograms. Share it on that thread with `Rc`. No flush is needed: a scrape reads the histograms in place.
#[derive(Debug)]
pub struct WorkerRecorder {
    telemetry: Arc<Telemetry>,
    commands: RefCell<HashMap<Name, Arc<DurationHistogram>, foldhash::fast::RandomState>>,
    gateway: Arc<DurationHistogram>,
    _not_send: PhantomData<Rc<()>>,
}

impl WorkerRecorder {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        let gateway = telemetry.add_gateway_histogram();
        Self { telemetry, commands: RefCell::default(), gateway, _not_send: PhantomData }
    }

    /// Records that a command of `subsystem` ended `duration` after its admission.
    pub fn record_command(&self, subsystem: &Name, duration: Duration) {
        let mut commands = self.commands.borrow_mut();
        if let Some(histogram) = commands.get(subsystem) {
            return histogram.record(duration);
        }
        let histogram = self.telemetry.add_command_histogram(subsystem);
        histogram.record(duration);
        commands.insert(subsystem.clone(), histogram);
    }

    /// Records the `duration` that the gateway itself added to a command. The time starts with the complete request
    /// head and ends when the request is handed to an upstream connection. It excludes the time spent waiting for the
    /// subsystem.
    pub fn record_gateway(&self, duration: Duration) {
        self.gateway.record(duration);
    }

    /// Counts one hit of a limit.
    pub fn count_limit_hit(&self, hit: LimitHit) {
        self.telemetry.count_limit_hit(hit);
    }
}

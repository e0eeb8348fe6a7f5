//! What one worker measures about time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Name;

use super::histogram::DurationHistogram;
use super::{LimitHit, Telemetry};

/// Records durations for one worker. It stays on the worker's thread, because it is the only writer of its histograms;
/// share it there with `Rc`. There is nothing to flush: a scrape reads the histograms where they are.
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

    /// A command of `subsystem` ended `duration` after its admission.
    pub fn record_command(&self, subsystem: &Name, duration: Duration) {
        let mut commands = self.commands.borrow_mut();
        if let Some(histogram) = commands.get(subsystem) {
            return histogram.record(duration);
        }
        let histogram = self.telemetry.add_command_histogram(subsystem);
        histogram.record(duration);
        commands.insert(subsystem.clone(), histogram);
    }

    /// The gateway itself added `duration` to a command: from the complete head of the request to the moment it is handed
    /// to an upstream connection, without waiting for the subsystem.
    pub fn record_gateway(&self, duration: Duration) {
        self.gateway.record(duration);
    }

    /// A limit was hit.
    pub fn count_limit_hit(&self, hit: LimitHit) {
        self.telemetry.count_limit_hit(hit);
    }
}

//! Items that the whole city shares: names of commands, counts and an interruptible wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallygate::lifecycle::DrainWatcher;

/// A command in `city.yaml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) subsystem: &'static str,
    pub(crate) id: &'static str,
}

const fn command(subsystem: &'static str, id: &'static str) -> Command {
    Command { subsystem, id }
}

pub(crate) const SNAPSHOT_SUBMIT: Command = command("cameras", "snapshot.submit");
pub(crate) const SNAPSHOT_READ: Command = command("cameras", "snapshot.read");
pub(crate) const INCIDENT_REPORT: Command = command("control-centre", "incident.report");
pub(crate) const INCIDENT_ACKNOWLEDGE: Command = command("control-centre", "incident.acknowledge");
pub(crate) const DUTY_STREAM: Command = command("control-centre", "duty.stream");
pub(crate) const MOVEMENT_RECORD: Command = command("logistics", "movement.record");
pub(crate) const STOCK_READ: Command = command("logistics", "stock.read");
pub(crate) const JUNCTION_READ: Command = command("signals", "junction.read");
pub(crate) const JUNCTION_PRIORITY: Command = command("signals", "junction.priority");
pub(crate) const LOT_LIST: Command = command("parking", "lot.list");
pub(crate) const LOT_READ: Command = command("parking", "lot.read");

/// The key of a count: calling department, subsystem and command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) department: String,
    pub(crate) subsystem: String,
    pub(crate) command: String,
}

impl Line {
    pub(crate) fn new(department: &str, subsystem: &str, command: &str) -> Self {
        let [department, subsystem, command] = [department, subsystem, command].map(str::to_owned);
        Self { department, subsystem, command }
    }
}

/// A count per line, owned by one side of the comparison. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Mutex<BTreeMap<Line, u64>>>);

impl Counts {
    pub(crate) fn add(&self, line: Line) {
        *self.lock().entry(line).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<Line, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Line, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // an addition cannot be left half-done
    }
}

/// Waits for `time`, or until the city closes; returns whether the city is still open.
pub(crate) async fn rest(closing: &mut DrainWatcher, time: Duration) -> bool {
    tokio::select! {
        biased;
        () = closing.begun() => false,
        () = tokio::time::sleep(time) => true,
    }
}

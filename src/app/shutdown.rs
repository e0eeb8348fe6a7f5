//! Graceful shutdown of the whole gateway.
//!
//! The order of stop (graceful shutdown):
//! 1. turn unready, and answer with `Connection: close` or GOAWAY, so that clients connect elsewhere
//! 2. wait until no new connection has come for `shutdown.quiet`, at most `shutdown.delay`, so that load balancers
//!    notice
//! 3. accept no new connections
//! 4. let commands in flight finish, at most `shutdown.grace`
//! 5. write the last lines of the access log, send the last spans
//! 6. write the last fold and close the ledger
//!
//! Guarantees: a stop that succeeds has lost no count.
//!
//! Leaves to others: the end of one connection (`proxy::downstream::close_reasons`).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::ShutdownSettings;
use crate::ledger::{Ledger, LedgerReader, SeriesTotals};
use crate::lifecycle::{AcceptingEnd, AcceptingPhase, Departure, DrainTrigger, Readiness};
use crate::telemetry::{AccessLog, Telemetry, TraceExport};

use super::app_error::AppError;
use super::control_thread::ControlThread;
use super::threads::{ThreadHandle, block_on, wait_timeout};

/// The time between two looks at the number of accepted connections.
const ACCEPTED_POLL: Duration = Duration::from_millis(20);

/// The parts of a running gateway that a shutdown ends, one after the other.
pub(crate) struct RunningParts {
    pub(crate) ready: Readiness,
    /// Announces the stop to connections.
    pub(crate) departure: Departure,
    pub(crate) limits: ShutdownSettings,
    /// Counts the connections that are accepted.
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) workers: Vec<ThreadHandle>,
    pub(crate) control: ControlThread,
    /// Ends the acceptance of connections and commands.
    pub(crate) traffic_drain: DrainTrigger,
    /// Aborts the commands that are still in flight.
    pub(crate) abort: DrainTrigger,
    pub(crate) access_log: Arc<AccessLog>,
    pub(crate) traces: Option<Arc<TraceExport>>,
    pub(crate) ledger: Ledger,
}

/// What to do about a gateway that stops.
const SHUTDOWN_REMEDY: &str =
    "nothing: it was asked to stop (SIGTERM), and ends by itself; send callers to another gateway";

impl RunningParts {
    /// Shuts down gracefully and blocks until the end. The order is that of the module's head.
    pub(crate) fn shut_down(self) -> Result<(), AppError> {
        let _stopping = self.ready.block("the shutdown", SHUTDOWN_REMEDY);
        self.departure.announce();
        wait_while_connections_come(self.limits, &self.telemetry);
        self.traffic_drain.begin();
        if !wait_timeout(self.traffic_drain.done(), self.limits.grace)? {
            log_aborted_commands(&self.ledger.reader());
        }
        self.abort.begin();
        for worker in self.workers {
            worker.join();
        }
        self.control.stop();
        self.access_log.close();
        if let Some(traces) = &self.traces {
            traces.close();
        }
        Ok(self.ledger.close()?)
    }
}

/// Waits while the gateway still accepts connections.
fn wait_while_connections_come(limits: ShutdownSettings, telemetry: &Telemetry) {
    let accepted = || telemetry.connections().accepted.get();
    let (begun, before) = (Instant::now(), accepted());
    let mut phase = AcceptingPhase::begin(begun, (limits.delay, limits.quiet), before);
    let end = loop {
        match phase.end(Instant::now(), accepted()) {
            Some(end) => break end,
            None => thread::sleep(ACCEPTED_POLL.min(limits.delay)),
        }
    };
    let (connections, waited) = (accepted() - before, begun.elapsed());
    match end {
        AcceptingEnd::Quiet => tracing::info!(connections, ?waited, "no new connections; the listeners close"),
        AcceptingEnd::Delay => tracing::info!(connections, ?waited, "shutdown.delay is over; the listeners close"),
    }
}

/// Logs the number of commands that the end of the grace period aborts, if any. Idle connections are closed without a
/// log line.
fn log_aborted_commands(ledger: &LedgerReader) {
    let totals = block_on(ledger.totals()).map_err(AppError::from);
    match totals.and_then(|totals| Ok(totals?)) {
        Ok(totals) => {
            let commands: u64 = totals.series.iter().map(SeriesTotals::in_flight).sum();
            if commands > 0 {
                tracing::warn!(
                    commands,
                    "commands were still in flight after the grace period; they count as interrupted"
                );
            }
        }
        Err(error) => tracing::warn!(%error, "commands in flight after the grace period, if any, count as interrupted"),
    }
}

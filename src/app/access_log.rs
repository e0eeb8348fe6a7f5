//! The access log at start and at a reload: its output is opened before its settings are live.
//!
//! Guarantees: an output that cannot be opened is a problem of the configuration, with its path and a remedy.
//!
//! Leaves to others: lines and files (`telemetry`).

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{ConfigProblem, ConfigProblems, Configuration};
use crate::telemetry::{AccessLog, AccessLogOpenError, PreparedAccessLog, Telemetry};

use super::app_error::AppError;

/// Starts the access log of a gateway, on or off.
pub(crate) fn start_access_log(
    configuration: &Configuration,
    telemetry: &Telemetry,
    clock: &Clock,
) -> Result<Arc<AccessLog>, AppError> {
    let gateway = configuration.settings.gateway.clone();
    let log = AccessLog::new(telemetry.access_counts(), clock.clone(), gateway);
    log.switch(prepare(&log, configuration)?)?;
    Ok(log)
}

/// Opens the output that a configuration names.
pub(crate) fn prepare(log: &AccessLog, configuration: &Configuration) -> Result<PreparedAccessLog, ConfigProblems> {
    let prepared = log.prepare(configuration.settings.access_log.as_ref());
    prepared.map_err(|error| {
        let mut problems = vec![to_config_problem(&error)];
        configuration.locate_problems(&mut problems);
        ConfigProblems(problems)
    })
}

fn to_config_problem(error: &AccessLogOpenError) -> ConfigProblem {
    let problem = ConfigProblem::new("accessLog.output", error.message());
    match error.hint() {
        Some(hint) => problem.with_hint(hint),
        None => problem,
    }
}

//! The export of traces, at start.
//!
//! Guarantees: an endpoint whose authorities cannot be read is a problem of the configuration.
//!
//! Leaves to others: spans, and sending them (`telemetry`).

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{ConfigProblem, ConfigProblems, Configuration};
use crate::identity::system_client_tls;
use crate::telemetry::{Telemetry, TraceExport};

use super::app_error::AppError;

/// Starts the export of traces; `None` if there is no `tracing`.
pub(crate) fn start_trace_export(
    configuration: &Configuration,
    telemetry: &Telemetry,
    clock: &Clock,
) -> Result<Option<Arc<TraceExport>>, AppError> {
    let Some(settings) = &configuration.settings.tracing else { return Ok(None) };
    let tls = if settings.endpoint.is_tls { Some(collector_tls(clock)?) } else { None };
    let gateway = (&configuration.settings.gateway, tls);
    Ok(Some(TraceExport::start(settings, telemetry.span_counts(), gateway)?))
}

/// The TLS configuration towards a collector.
fn collector_tls(clock: &Clock) -> Result<Arc<rustls::ClientConfig>, ConfigProblems> {
    system_client_tls(clock).map_err(|problems| {
        let problem = |what: String| ConfigProblem::new("tracing.endpoint", format!("its authorities: {what}"));
        ConfigProblems(problems.into_iter().map(|one| problem(one.what)).collect())
    })
}

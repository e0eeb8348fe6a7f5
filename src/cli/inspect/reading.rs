//! One reading of a gateway: its metrics, readiness and configuration at a moment.

use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;

use crate::cli::admin_client::{AdminClient, AdminError, AdminFault};
use crate::cli::prometheus::excerpt;
use crate::clock::{Clock, MonotonicTime};

use super::exposition::Exposition;

/// A reading of a gateway.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) at: Timestamp,
    /// When the metrics were there, for rates between two readings.
    pub(super) time: MonotonicTime,
    pub(super) metrics: Exposition,
    pub(super) is_ready: bool,
    /// The lines of `/readyz` after the first word: why it is not ready, or which subsystems are not served.
    pub(super) notes: Vec<String>,
    /// The document of `/config`.
    pub(super) config: Value,
}

/// Reads a gateway. Each request is bounded by the client.
pub(super) async fn read_gateway(client: &AdminClient, clock: &Clock) -> Result<Reading, AdminError> {
    let page = client.get("/metrics", None).await?;
    let time = clock.monotonic();
    let metrics = Exposition::parse(&page.text())
        .map_err(|error| client.error("/metrics", AdminFault::Foreign(excerpt(&error.line))))?;
    if metrics.samples("tallygate_build_info").is_empty() {
        return Err(client.error("/metrics", AdminFault::Foreign("it lacks tallygate_build_info".to_owned())));
    }
    let readiness = client.get("/readyz", Some(StatusCode::SERVICE_UNAVAILABLE)).await?;
    let config = client.get("/config", None).await?;
    let config = serde_json::from_slice(&config.body)
        .map_err(|_| client.error("/config", AdminFault::Foreign(excerpt(&config.text()))))?;
    let is_ready = readiness.status == StatusCode::OK;
    let notes =
        readiness.text().lines().filter(|line| *line != "ready" && !line.starts_with(' ')).map(str::to_owned).collect();
    Ok(Reading { at: clock.wall(), time, metrics, is_ready, notes, config })
}

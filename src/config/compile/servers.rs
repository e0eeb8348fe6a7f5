//! How a subsystem's servers are kept well and chosen.

use std::time::Duration;

use crate::config::document::HealthCheck as HealthCheckDocument;
use crate::config::leaf;
use crate::policy::HealthCheck;

use super::place::Place;
use super::settings::wait;

/// A server that is asked more often does little else.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// More checks in a row than anybody would wait for.
const ROW_MAX: u64 = 100;

/// `healthCheck`.
pub(super) fn health_check(written: Option<&HealthCheckDocument>, place: &Place<'_>) -> Option<HealthCheck> {
    let written = written?;
    let time = |text: &Option<String>, default, key: &str| {
        wait(text.as_deref(), Duration::from_secs(default), &place.key(key))
    };
    let interval = time(&written.interval, 10, "interval");
    if (Duration::from_millis(1)..INTERVAL_MIN).contains(&interval) {
        place.key("interval").problem("checks this close are a load of their own; write at least 100ms");
    }
    let status = written.status.as_deref().unwrap_or("200..399");
    Some(HealthCheck {
        path: place.key("path").read(leaf::target(&written.path)).unwrap_or_default(),
        interval,
        timeout: time(&written.timeout, 2, "timeout"),
        rise: row(written.rise, 2, &place.key("rise")),
        fall: row(written.fall, 3, &place.key("fall")),
        status: place.key("status").read(leaf::statuses(status)).unwrap_or(200..=399),
    })
}

fn row(written: Option<u64>, default: u32, place: &Place<'_>) -> u32 {
    let Some(written) = written else { return default };
    if !(1..=ROW_MAX).contains(&written) {
        place.problem(format!("{written} is not a number of checks between 1 and {ROW_MAX}"));
    }
    u32::try_from(written).unwrap_or(default)
}

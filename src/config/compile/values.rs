//! Parsers of values with a default and a bound: addresses, durations, counts.

use std::net::SocketAddr;
use std::time::Duration;

use super::doc_path::DocPath;
use super::scalars;

/// Parses an IP address and a port.
pub(crate) fn parse_address(text: &str, place: &DocPath<'_>) -> SocketAddr {
    let read = text.parse().map_err(|_| format!("{text:?} is not an address; write IP:port, such as 127.0.0.1:8443"));
    place.value_or_problem(read).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// Parses a duration, or returns the default. Records a problem for a duration of 0.
pub(crate) fn nonzero_duration_or(text: Option<&str>, default: Duration, place: &DocPath<'_>) -> Duration {
    let duration = duration_or(text, default, place);
    if duration.is_zero() {
        place.problem("0 would expire immediately");
    }
    duration
}

/// Parses a duration of which 0 means that it is absent.
pub(crate) fn optional_duration(text: Option<&str>, place: &DocPath<'_>) -> Option<Duration> {
    Some(duration_or(text, Duration::ZERO, place)).filter(|duration| !duration.is_zero())
}

pub(crate) fn duration_or(text: Option<&str>, default: Duration, place: &DocPath<'_>) -> Duration {
    text.and_then(|text| place.value_or_problem(scalars::parse_duration(text))).unwrap_or(default)
}

pub(crate) fn count_or(value: Option<u64>, default: usize, place: &DocPath<'_>) -> usize {
    let Some(value) = value else { return default };
    if value == 0 {
        place.problem("0 would refuse everything; write at least 1");
    }
    let read = usize::try_from(value).map_err(|_| format!("{value} is too many"));
    place.value_or_problem(read).unwrap_or(default)
}

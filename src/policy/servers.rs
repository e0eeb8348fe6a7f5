//! How a subsystem's servers are kept well and chosen: what the configuration says, as plain values.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How a server is asked whether it is well, over the way that commands go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for, by GET; the subsystem's prefix is not put before it.
    pub path: String,
    /// From the end of a check to the next one, give or take a tenth.
    pub interval: Duration,
    /// For a whole check: connection, TLS and the head of the answer.
    pub timeout: Duration,
    /// So many passed in a row bring a server back.
    pub rise: u32,
    /// So many failed in a row take a server out.
    pub fall: u32,
    /// The statuses of a server that is well.
    pub status: RangeInclusive<u16>,
}

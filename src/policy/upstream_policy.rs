//! How a subsystem's servers are kept well and chosen: what the configuration says, as plain values.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

/// How a server is chosen among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    /// Of two at random the one with fewer requests in flight.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By a hash, so that what has the same one stays with one server while that is well.
    Hash(HashSource),
}

/// What a server is chosen by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashSource {
    /// The department's id.
    Department,
    /// The first value of a header; requests without it go by least request.
    Header(HeaderName),
}

/// Where commands wait when all servers that are well carry as many as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// How many may wait, all workers together; 0 is none.
    pub length: usize,
    /// How long each waits.
    pub timeout: Duration,
}

/// How often an attempt that failed is made again, for requests that may be repeated and have no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often one command is tried again.
    pub attempts: u32,
    /// How many retries there may be in a hundred commands of a worker.
    pub budget_percent: u32,
    /// The statuses that are tried again, beside connections that broke before the head of an answer.
    pub on: Vec<u16>,
}

/// How a server is asked whether it is well, over the way that commands go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckPolicy {
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

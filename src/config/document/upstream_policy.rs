//! How a subsystem's servers are kept well and chosen.

use schemars::JsonSchema;
use serde::Deserialize;

/// How a server is chosen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "leastRequest, roundRobin, { hash: department } or { hash: { header: NAME } } was expected"
)]
pub(crate) enum BalanceDocument {
    /// leastRequest (default), roundRobin, or consistentHash, which is { hash: department }.
    Word(String),
    /// By a hash.
    Hash(ByHashDocument),
}

/// A choice by a hash.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ByHashDocument {
    /// What stays with one server.
    pub(crate) hash: HashByDocument,
}

/// What stays with one server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "department or { header: NAME } was expected")]
pub(crate) enum HashByDocument {
    /// department
    Word(String),
    /// What has the same value of a header.
    Header(HashHeaderDocument),
}

/// A header that keeps requests with one server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(deny_unknown_fields)]
pub(crate) struct HashHeaderDocument {
    /// Its name.
    pub(crate) header: String,
}

/// Where commands wait when all servers that are well carry as many as they may.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct QueueDocument {
    /// How many may wait. Default: 0, nobody waits.
    pub(crate) length: Option<u64>,
    /// How long each waits. Default: 1s.
    pub(crate) timeout: Option<String>,
}

/// How often a failed attempt is made again, for GET, HEAD, OPTIONS, PUT and DELETE without a body.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RetriesDocument {
    /// How often one command is tried again: 1 (default) to 3.
    pub(crate) attempts: Option<u64>,
    /// How many retries there may be in a hundred commands. Default: 20.
    pub(crate) budget_percent: Option<u64>,
    /// The statuses that are tried again: 502, 503, 504. Default: none, only connections that broke before an answer.
    #[serde(default)]
    pub(crate) on: Vec<u64>,
}

/// How servers are asked whether they are well.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HealthCheckDocument {
    /// What is asked for by GET, such as /healthz; the subsystem's path is not put before it.
    pub(crate) path: String,
    /// From the end of a check to the next one. Default: 10s.
    pub(crate) interval: Option<String>,
    /// For a whole check. Default: 2s.
    pub(crate) timeout: Option<String>,
    /// So many passed in a row bring a server back. Default: 2.
    pub(crate) rise: Option<u64>,
    /// So many failed in a row take a server out. Default: 3.
    pub(crate) fall: Option<u64>,
    /// The statuses of a server that is well: one, such as "200", or the first and the last. Default: 200..399.
    pub(crate) status: Option<String>,
}

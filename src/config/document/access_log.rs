//! The section `accessLog` of a document.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The access log: one line for each command.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct AccessLogDocument {
    /// The file that lines are appended to, or stdout.
    pub(crate) output: String,
    /// json (default): one JSON object for each line; or logfmt: key=value.
    pub(crate) format: Option<String>,
    /// Whether lines have the query of the request. It may hold secrets. Default: false.
    pub(crate) query: Option<bool>,
    /// The part of the commands that have lines, by outcome: all, none, or 1/N. The keys finished and refused stand for
    /// all other outcomes of their kind. Default: all.
    #[serde(default)]
    pub(crate) sample: BTreeMap<String, String>,
    /// The limits of the lines that wait to be written. Lines beyond them are dropped and counted.
    pub(crate) queue: Option<AccessLogQueueDocument>,
}

/// The limits of the lines that wait to be written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct AccessLogQueueDocument {
    /// The most lines. Default: 16384.
    pub(crate) lines: Option<u64>,
    /// The most bytes of memory. Default: 16MiB.
    pub(crate) bytes: Option<String>,
}

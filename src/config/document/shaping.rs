//! What a configuration says about the shape of heads: fields and paths.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Fields that are set or removed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Headers {
    /// Of requests, towards the subsystem.
    pub(in crate::config) request: Option<HeaderEdits>,
    /// Of the subsystem's answers, towards callers.
    pub(in crate::config) response: Option<HeaderEdits>,
}

/// Fields of one direction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct HeaderEdits {
    /// Names and the value that each is given, in the place of any it had.
    #[serde(default)]
    pub(in crate::config) set: BTreeMap<String, String>,
    /// Names that are left out.
    #[serde(default)]
    pub(in crate::config) remove: Vec<String>,
}

/// Another path for what is forwarded: exactly one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Rewrite {
    /// The whole path, such as /v2/cameras/{id}, with what match.path captures.
    pub(in crate::config) path: Option<String>,
    /// What stands in the place of the subsystem's path, such as /internal.
    pub(in crate::config) prefix: Option<String>,
}

/// Where callers are sent, instead of anything being forwarded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Redirect {
    /// An http or https URL, or a path on the same host, with what match.path captures. The query is kept.
    pub(in crate::config) location: String,
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub(in crate::config) status: Option<u64>,
}

/// Which pages a browser lets read answers (Fetch standard).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Cors {
    /// Origins such as <https://console.city.example>, or * for all; at least one.
    #[serde(default)]
    pub(in crate::config) origins: Vec<String>,
    /// Methods that a page may use. Default: the one that is asked for, if a command answers to it.
    pub(in crate::config) methods: Option<Vec<String>>,
    /// Fields that a page may send beyond those that every page may. Default: none.
    pub(in crate::config) headers: Option<Vec<String>>,
    /// Fields of answers that a page may read beyond those that every page may. Default: none.
    pub(in crate::config) expose_headers: Option<Vec<String>>,
    /// How long a browser may remember the answer to a preflight. Default: as long as it likes.
    pub(in crate::config) max_age: Option<String>,
    /// Whether a page may send cookies and certificates. Default: false.
    pub(in crate::config) credentials: Option<bool>,
}

/// Where copies of requests go, whose answers nobody reads.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct Mirror {
    /// The id of another subsystem.
    pub(in crate::config) subsystem: String,
    /// How many requests of a hundred are copied, on average: 1 to 100. Default: 100.
    pub(in crate::config) percent: Option<u64>,
}

//! What a configuration says about the shape of heads: fields and paths.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Fields that are set or removed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HeadersDocument {
    /// Of requests, towards the subsystem.
    pub(crate) request: Option<HeaderEditsDocument>,
    /// Of the subsystem's answers, towards callers.
    pub(crate) response: Option<HeaderEditsDocument>,
}

/// Fields of one direction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HeaderEditsDocument {
    /// Names and the value that each is given, in the place of any it had.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// Names that are left out.
    #[serde(default)]
    pub(crate) remove: Vec<String>,
}

/// Another path for what is forwarded: exactly one of the two.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RewriteDocument {
    /// The whole path, such as /v2/cameras/{id}, with what match.path captures.
    pub(crate) path: Option<String>,
    /// What stands in the place of the subsystem's path, such as /internal.
    pub(crate) prefix: Option<String>,
}

/// Where callers are sent, instead of anything being forwarded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RedirectDocument {
    /// An http or https URL, or a path on the same host, with what match.path captures. The query is kept.
    pub(crate) location: String,
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub(crate) status: Option<u64>,
}

/// Which pages a browser lets read answers (Fetch standard).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CorsDocument {
    /// Origins such as <https://console.city.example>, or * for all; at least one.
    #[serde(default)]
    pub(crate) origins: Vec<String>,
    /// Methods that a page may use. Default: the one that is asked for, if a command answers to it.
    pub(crate) methods: Option<Vec<String>>,
    /// Fields that a page may send beyond those that every page may. Default: none.
    pub(crate) headers: Option<Vec<String>>,
    /// Fields of answers that a page may read beyond those that every page may. Default: none.
    pub(crate) expose_headers: Option<Vec<String>>,
    /// How long a browser may remember the answer to a preflight. Default: as long as it likes.
    pub(crate) max_age: Option<String>,
    /// Whether a page may send cookies and certificates. Default: false.
    pub(crate) credentials: Option<bool>,
}

/// Where copies of requests go, whose answers nobody reads.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct MirrorDocument {
    /// The id of another subsystem.
    pub(crate) subsystem: String,
    /// How many requests of a hundred are copied, on average: 1 to 100. Default: 100.
    pub(crate) percent: Option<u64>,
}

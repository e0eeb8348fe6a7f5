//! The transformations of a command in a configuration: header edits, rewrite, redirect, CORS, mirroring.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Header fields to set or remove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HeadersDocument {
    /// For requests, towards the subsystem.
    pub(crate) request: Option<HeaderEditsDocument>,
    /// For the subsystem's responses, towards callers.
    pub(crate) response: Option<HeaderEditsDocument>,
}

/// The edits of one direction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HeaderEditsDocument {
    /// Names with their new values; earlier values are replaced.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// Names with values that are added; earlier values stay.
    #[serde(default)]
    pub(crate) add: BTreeMap<String, String>,
    /// The names of the fields to remove.
    #[serde(default)]
    pub(crate) remove: Vec<String>,
}

/// The rewrite of the forwarded path: exactly one of the two keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RewriteDocument {
    /// The new whole path, such as /v2/cameras/{id}, with the parameters that match.path captures.
    pub(crate) path: Option<String>,
    /// The replacement of the subsystem's prefix, such as /internal.
    pub(crate) prefix: Option<String>,
}

/// The redirect of callers; then nothing is forwarded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RedirectDocument {
    /// An http or https URL, or a path on the same host, with the parameters that match.path captures. The query stays.
    pub(crate) location: String,
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub(crate) status: Option<u64>,
}

/// The origins whose pages a browser allows to read responses (Fetch standard, CORS).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CorsDocument {
    /// Origins such as <https://console.city.example> or https://*.city.example, or * for all; at least one.
    #[serde(default)]
    pub(crate) origins: Vec<String>,
    /// The methods that a page may use. Default: the requested method, if a command matches it.
    pub(crate) methods: Option<Vec<String>>,
    /// The fields that a page may send beyond the safelisted ones. Default: none.
    pub(crate) headers: Option<Vec<String>>,
    /// The response fields that a page may read beyond the safelisted ones. Default: none.
    pub(crate) expose_headers: Option<Vec<String>>,
    /// The time for which a browser may cache the response to a preflight. Default: the browser's default.
    pub(crate) max_age: Option<String>,
    /// Whether a page may send credentials: cookies and certificates. Default: false.
    pub(crate) credentials: Option<bool>,
}

/// The mirroring of requests to another subsystem; the responses are discarded.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct MirrorDocument {
    /// The id of another subsystem.
    pub(crate) subsystem: String,
    /// The percentage of requests that are copied, on average: 1 to 100. Default: 100.
    pub(crate) percent: Option<u64>,
}

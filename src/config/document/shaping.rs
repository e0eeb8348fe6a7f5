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

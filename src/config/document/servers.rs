//! How a subsystem's servers are kept well and chosen.

use schemars::JsonSchema;
use serde::Deserialize;

/// How servers are asked whether they are well.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(in crate::config) struct HealthCheck {
    /// What is asked for by GET, such as /healthz; the subsystem's path is not put before it.
    pub(in crate::config) path: String,
    /// From the end of a check to the next one. Default: 10s.
    pub(in crate::config) interval: Option<String>,
    /// For a whole check. Default: 2s.
    pub(in crate::config) timeout: Option<String>,
    /// So many passed in a row bring a server back. Default: 2.
    pub(in crate::config) rise: Option<u64>,
    /// So many failed in a row take a server out. Default: 3.
    pub(in crate::config) fall: Option<u64>,
    /// The statuses of a server that is well: one, such as "200", or the first and the last. Default: 200..399.
    pub(in crate::config) status: Option<String>,
}

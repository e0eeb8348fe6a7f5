//! The section `tracing` of a document.

use schemars::JsonSchema;
use serde::Deserialize;

/// Traces: commands that are sampled become spans, which are sent to a collector (OTLP over HTTP, protobuf).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct TracingDocument {
    /// The URL of the collector, such as http://otel-collector:4318/v1/traces. Without a path: /v1/traces.
    pub(crate) endpoint: String,
    /// The part of the traces that begin here and are recorded: all, none, or 1/N. Default: 1/100.
    pub(crate) sample: Option<String>,
    /// Whether a caller that sends traceparent decides for its own traces. Default: true.
    pub(crate) parent_based: Option<bool>,
    /// The attribute service.name of the spans. Default: tallygate.
    pub(crate) service_name: Option<String>,
    /// The longest time of one request to the collector. Default: 10s.
    pub(crate) timeout: Option<String>,
    /// The most spans that wait; more are dropped and counted. Default: 2048.
    pub(crate) queue: Option<u64>,
}

//! Traces: commands that are sampled become spans, which a thread of its own sends to a collector (OTLP over HTTP).
//!
//! Guarantees:
//! - Each sampled command that ends is a span that the collector took, or one that is dropped and counted. Its count in
//!   the ledger does not depend on that.
//! - Workers never wait for the collector. Without `tracing`, a command costs one comparison.
//! - At the end of the process the spans that wait are sent, within three seconds.
//!
//! ```text
//! worker: record -> batch --(64 records or 100 ms)--> queue (bounded) --> exporter: spans -> POST /v1/traces
//! ```
//!
//! Leaves to others: the facts of a command (`proxy::exchange`), the settings (`config`).

mod collector;
mod counts;
mod export;
mod exporter;
mod recorder;
mod span;
mod trace_sampler;

pub use counts::{SpanCounts, SpanDropReason};
pub use export::TraceExport;
pub use recorder::SpanRecorder;

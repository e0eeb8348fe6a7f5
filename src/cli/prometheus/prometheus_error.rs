//! Why a Prometheus gave no answer that can be used. Each message has what was asked, what came, and what to do.

/// The reason why a query has no result.
#[derive(Debug, thiserror::Error)]
#[error("the query of {url} failed: {what}")]
pub(in crate::cli) struct PrometheusError {
    /// The URL without credentials.
    pub(super) url: String,
    pub(super) what: QueryFault,
}

/// An option for the Prometheus cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct BadPrometheusOption(pub(super) String);

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueryFault {
    #[error("no connection: {0}; is the Prometheus running, and is --prometheus its address?")]
    Unreachable(String),
    #[error("no answer within {0} seconds; ask for a shorter period, or for fewer series with --matcher")]
    Slow(u64),
    #[error("the answer is not HTTP, or it ended early: {0}; is --prometheus its address?")]
    Broken(String),
    #[error("the answer is larger than {0} MiB; ask for fewer series with --matcher")]
    TooLarge(usize),
    #[error("TLS: {0}; the authorities are those of the system, or of SSL_CERT_FILE")]
    Tls(String),
    #[error("status {0}: give user and password in the URL, or --prometheus-token FILE")]
    Unauthorized(u16),
    #[error("status {0} to {1:?}, which is not followed: give the URL that it leads to")]
    Redirected(u16, String),
    #[error("status {status}, and the answer is not that of the query API ({excerpt}); is the path prefix right?")]
    NotTheApi { status: u16, excerpt: String },
    #[error("it refused the query {query:?}: {reason}")]
    Refused { query: String, reason: String },
    #[error("the answer is not a list of series with samples: {0}; is it a Prometheus, version 2 or later?")]
    Malformed(String),
}

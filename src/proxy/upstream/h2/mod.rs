//! HTTP/2 towards a subsystem: our own client on h2, many requests on one connection.
//!
//! Guarantees: a session carries at most [`STREAMS_MAX`] requests of ours at once; a request that was not sent comes
//! back, and so does one of which the server has processed nothing, as far as its body is held ([`super::loan`]);
//! interim answers are handed over as they come, at most [`super::INTERIM_MAX`] for one request. Leaves flow control,
//! and the limits that the server sets, to h2.

mod answer;
mod exchange;
mod ping;
mod session;
mod upload;

use std::time::Duration;

pub(super) use answer::StreamBody;
pub(in crate::proxy) use exchange::Exchange;
pub(super) use exchange::Head;
pub(super) use session::{Session, SessionMark};

/// Requests of ours on one session at once; beyond it another session is opened.
pub(super) const STREAMS_MAX: usize = 100;
/// Pings tell a dead server from a quiet one.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(10);

/// Whether a server has broken RFC 9113, as h2 has found.
pub(super) fn is_malformed(error: &h2::Error) -> bool {
    error.is_library()
}

/// Whether a server has taken its leave in good order (RFC 9113 section 6.8).
pub(super) fn is_leaving(error: &h2::Error) -> bool {
    error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}

//! HTTP/2 towards a subsystem: our own client on h2, many requests on one connection.
//!
//! Guarantees: a session carries at most [`STREAMS_MAX`] requests of ours at once; a request that was not sent comes
//! back, and so does one of which the server has processed nothing, as far as its body is held ([`self::replayable_body`]);
//! interim answers are handed over as they come, at most [`super::INTERIM_RESPONSES_MAX`] for one request. Leaves flow control,
//! and the limits that the server sets, to h2.

mod exchange;
mod keep_alive;
pub(crate) mod replayable_body;
pub(crate) mod response_body;
mod session;
mod stream_body;
mod stream_upload;

pub(crate) use self::session::STREAMS_MAX;
pub(crate) use super::endpoint::error::is_graceful_goaway;
pub(crate) use super::endpoint::error::is_protocol_violation;
pub(crate) use exchange::Http2Exchange;
pub(crate) use exchange::Http2ResponseHead;
pub(crate) use session::{Http2Session, SessionId};
pub(crate) use stream_body::StreamBody;

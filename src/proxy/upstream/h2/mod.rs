//! The HTTP/2 client towards a subsystem, built on h2: many requests on one connection.
//!
//! Guarantees:
//! - A session carries at most [`STREAMS_MAX`] concurrent requests.
//! - A request that was not sent is given back. So is a request of which the server has processed nothing, if its body
//!   is buffered ([`self::replayable_body`]).
//! - Interim responses are handed over as they arrive, at most
//!   [`ReceivedInterim`](crate::proxy::upstream::endpoint::received_interim::ReceivedInterim) accepts.
//!
//! Leaves to h2: flow control, and the limits that the server sets.

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

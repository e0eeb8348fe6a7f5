//! Interim responses (1xx, RFC 9110 section 15.2), such as 103 Early Hints, on their way to a caller.
//!
//! hyper's server has no API to send one. Therefore the layers below hyper write them:
//!
//! - over HTTP/1.1 as a head ([`http1_queue`], written by `proxy::downstream::h1_scanning_stream`);
//! - over HTTP/2 as a HEADERS frame ([`http2_queue`], written by `proxy::downstream::h2_frame_budget`).
//!
//! Guarantees:
//!
//! - An interim response comes before the final response to its own request: a command hands over its final response
//!   only once [`InterimTarget::poll_drained`] is ready.
//! - An interim response has no hop-by-hop fields, and no fields that only the gateway writes.
//!
//! Leaves to others: the number of interim responses, which `proxy::upstream` limits. `docs/decisions/interim.md` gives
//! the reasons.

mod headers_frame;
mod http1_queue;
mod http2_queue;
mod interim_head;

use std::rc::Rc;
use std::task::{Context, Poll};

use http::HeaderName;
#[cfg(test)]
use http::StatusCode;

pub(crate) use http1_queue::Http1InterimQueue;
pub(crate) use http2_queue::{Http2InterimQueue, InterimStream, PeerSetting};
use interim_head::BYTES_MAX;
pub(crate) use interim_head::InterimResponse;

/// The destination of the interim responses to one command.
pub(crate) enum InterimTarget {
    /// A connection with one command at a time.
    Http1(Rc<Http1InterimQueue>),
    /// One stream of a connection.
    Http2(InterimStream),
}

impl InterimTarget {
    /// Queues an interim response, without the fields that `is_removed` selects.
    pub(crate) fn push(&self, interim: &InterimResponse, is_removed: impl Fn(&HeaderName) -> bool) {
        match self {
            Self::Http1(heads) => heads.push(interim, is_removed),
            Self::Http2(stream) => stream.push(interim, is_removed),
        }
    }

    /// Ready when no interim response to this command waits to be written.
    pub(crate) fn poll_drained(&self, context: &Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(heads) => heads.poll_drained(context),
            Self::Http2(stream) => stream.poll_drained(context),
        }
    }
}

#[cfg(test)]
fn interim(status: u16, fields: &[(&'static str, &'static str)]) -> InterimResponse {
    let fields =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    InterimResponse { status: StatusCode::from_u16(status).expect("a status"), headers: fields.collect() }
}

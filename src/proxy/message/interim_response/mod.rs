//! Interim answers (1xx, RFC 9110 section 15.2) on their way to a caller.
//!
//! hyper's server has no call that writes one. So they are written beside it, by the layers below it: over HTTP/1.1 as
//! a head ([`http1_queue`], written by [`super::grammar::ScanningStream`]), over HTTP/2 as a HEADERS frame ([`http2_queue`], written by
//! [`crate::proxy::downstream::h2_frame_budget`]).
//!
//! Guarantees: an interim answer comes before the final answer to its own request, because a command does not hand over
//! its final answer before [`InterimTarget::poll_drained`] is ready; it has none of the fields of its connection, and none
//! that only the gateway writes. Leaves the number of them to `proxy::upstream`. `docs/decisions/interim.md` has the
//! reasons.

mod headers_frame;
mod http1_queue;
mod http2_queue;

use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, StatusCode};

use super::field_line::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::proxy::exchange::upstream_head::REQUEST_ID;

pub(crate) use http1_queue::Http1InterimQueue;
pub(crate) use http2_queue::{Http2InterimQueue, InterimStream, PeerSetting};

/// The most bytes of interim answers that wait to be written, on one connection; those beyond it are not passed on.
const BYTES_MAX: usize = 64 * 1024;

/// An interim answer as it came.
pub(crate) struct InterimResponse {
    pub(crate) status: StatusCode,
    /// Without the fields of its connection.
    pub(crate) headers: HeaderMap,
}

impl InterimResponse {
    /// Whether callers get it: not 100, which the gateway asks for itself, nor 101, which is final.
    pub(crate) fn is_forwarded(status: StatusCode) -> bool {
        status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
    }

    /// The fields that its caller gets: without those that `goes` names, and without those that only the gateway may
    /// write.
    fn forwarded_headers(&self, goes: impl Fn(&HeaderName) -> bool) -> impl Iterator<Item = (&str, &[u8])> {
        let stays = move |name: &HeaderName| !is_gateway_header(name) && !goes(name);
        let fields = self.headers.iter().filter(move |(name, _)| stays(name));
        fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

/// What an interim answer may not say: the gateway says it in the final one, or nobody does.
fn is_gateway_header(name: &HeaderName) -> bool {
    [&CONTENT_LENGTH, &REQUEST_ID, &RATE_LIMIT, &RATE_LIMIT_POLICY].contains(&name)
}

/// Where the interim answers to one command go.
pub(crate) enum InterimTarget {
    /// To a connection that has one command at a time.
    Http1(Rc<Http1InterimQueue>),
    /// To one stream of a connection.
    Http2(InterimStream),
}

impl InterimTarget {
    /// Passes an interim answer on, without the fields that `goes` names.
    pub(crate) fn push(&self, interim: &InterimResponse, goes: impl Fn(&HeaderName) -> bool) {
        match self {
            Self::Http1(heads) => heads.push(interim, goes),
            Self::Http2(stream) => stream.push(interim, goes),
        }
    }

    /// Ready when no interim answer to this command waits to be written.
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

/// How many interim answers (1xx) one request may have.
pub(crate) const INTERIM_RESPONSES_MAX: u32 = 16;

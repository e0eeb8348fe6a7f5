//! Interim answers (1xx, RFC 9110 section 15.2) on their way to a caller.
//!
//! hyper's server has no call that writes one. So they are written beside it, by the layers below it: over HTTP/1.1 as
//! a head ([`heads`], written by [`super::wire::Guard`]), over HTTP/2 as a HEADERS frame ([`streams`], written by
//! [`super::frames`]).
//!
//! Guarantees: an interim answer comes before the final answer to its own request, because a command does not hand over
//! its final answer before [`InterimLine::poll_left`] is ready; it has none of the fields of its connection, and none
//! that only the gateway writes. Leaves the number of them to `proxy::upstream`. `docs/decisions/interim.md` has the
//! reasons.

mod block;
mod heads;
mod streams;

use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, StatusCode};

use super::headers::REQUEST_ID;
use super::refuse::{RATE_LIMIT, RATE_LIMIT_POLICY};

pub(super) use heads::InterimHeads;
pub(super) use streams::{InterimStreams, OpenStream, Setting};

/// The most bytes of interim answers that wait to be written, on one connection; those beyond it are not passed on.
const BYTES_MAX: usize = 64 * 1024;

/// An interim answer as it came.
pub(super) struct Interim {
    pub(super) status: StatusCode,
    /// Without the fields of its connection.
    pub(super) headers: HeaderMap,
}

impl Interim {
    /// Whether callers get it: not 100, which the gateway asks for itself, nor 101, which is final.
    pub(super) fn is_for_callers(status: StatusCode) -> bool {
        status.is_informational() && !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
    }

    /// The fields that its caller gets: without those that `goes` names, and without those that only the gateway may
    /// write.
    fn fields(&self, goes: impl Fn(&HeaderName) -> bool) -> impl Iterator<Item = (&str, &[u8])> {
        let stays = move |name: &HeaderName| !is_ours(name) && !goes(name);
        let fields = self.headers.iter().filter(move |(name, _)| stays(name));
        fields.map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

/// What an interim answer may not say: the gateway says it in the final one, or nobody does.
fn is_ours(name: &HeaderName) -> bool {
    [&CONTENT_LENGTH, &REQUEST_ID, &RATE_LIMIT, &RATE_LIMIT_POLICY].contains(&name)
}

/// Where the interim answers to one command go.
pub(super) enum InterimLine {
    /// To a connection that has one command at a time.
    Http1(Rc<InterimHeads>),
    /// To one stream of a connection.
    Http2(OpenStream),
}

impl InterimLine {
    /// Passes an interim answer on, without the fields that `goes` names.
    pub(super) fn push(&self, interim: &Interim, goes: impl Fn(&HeaderName) -> bool) {
        match self {
            Self::Http1(heads) => heads.push(interim, goes),
            Self::Http2(stream) => stream.push(interim, goes),
        }
    }

    /// Ready when no interim answer to this command waits to be written.
    pub(super) fn poll_left(&self, context: &Context<'_>) -> Poll<()> {
        match self {
            Self::Http1(heads) => heads.poll_left(context),
            Self::Http2(stream) => stream.poll_left(context),
        }
    }
}

#[cfg(test)]
fn interim(status: u16, fields: &[(&'static str, &'static str)]) -> Interim {
    let fields =
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)));
    Interim { status: StatusCode::from_u16(status).expect("a status"), headers: fields.collect() }
}

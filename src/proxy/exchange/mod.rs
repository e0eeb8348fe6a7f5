//! The life of a command, from request to response, in one function. **Read this first.**
//!
//! Guarantees:
//!
//! - Every request is counted as received before any decision.
//! - A request leaves this function in one of three ways: forwarded (the ticket rides in the response body), answered
//!   with a local response (one from the configuration, that of a missing backend, or the department's own usage), or
//!   refused and counted as refused.
//! - hyper drops this future when the caller disconnects. That is safe at every `.await`: all counting is done by
//!   values that settle when they are dropped.
//!
//! Leaves to others: the decision (`admit`), the transport (`forward`), the usage page (`usage_response`), the refusal
//! (`refuse`).

mod admit;
mod bandwidth_limiter;
mod command_record;
pub(crate) mod connection;
mod context;
mod destination;
mod forward;
pub(crate) mod gzip;
mod in_flight_command;
mod local_response;
pub(crate) mod mirror;
pub(crate) mod refuse;
pub(crate) mod response_body;
mod response_head;
pub(crate) mod tunnel;
pub(crate) mod upstream_head;
mod usage_response;

use std::future::ready;
use std::rc::Rc;

use futures_util::future::Either;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;

use crate::clock::FrozenTime;

use self::admit::admit;
use self::context::RequestContext;
use self::destination::Destination;
use self::forward::forward;
use self::local_response::respond_locally;
use self::refuse::refuse;
use self::response_body::ExchangeResult;
use self::usage_response::respond_with_usage;
use super::message::grammar::HeadLimits;
use super::message::grammar::malformed::MalformedRequest;
use super::message::interim_response::InterimTarget;
use super::message::request_body::discard_request_body;
use super::message::request_head::RequestHead;
use super::worker::TrafficWorker;
use super::worker::peer::DownstreamPeer;

/// Takes one command through its life: identified, authorised, limited, counted, then forwarded or answered locally. A
/// command that fails a step is refused.
///
/// `interim` is the target for interim responses, if the caller accepts any. The decision is made before this function
/// returns; the returned future only forwards the command, or responds at once. hyper and tokio move that future often,
/// so the future stores no value twice.
pub(crate) fn exchange(
    worker: &Rc<TrafficWorker>,
    peer: &Rc<DownstreamPeer>,
    mut request: Request<Incoming>,
    interim: Option<InterimTarget>,
) -> impl Future<Output = ExchangeResult> + use<> {
    let still = FrozenTime::freeze(); // the whole decision sees one moment
    let context =
        RequestContext { interim_target: interim, ..RequestContext::receive(worker, peer, &mut request, &still) };
    context.note_request(&request);
    let limits = HeadLimits::from_capacity(&worker.capacity);
    let decided = RequestHead::parse_received(&request, limits)
        .map_err(|fault| context.malformed_refusal(fault))
        .and_then(|head| admit(&context, head, &request));
    drop(still);
    match decided {
        Ok(admitted) => match admitted.destination {
            Destination::Backend(chosen) => Either::Left(forward(context, admitted, chosen, request)),
            Destination::Local(local_response) => {
                Either::Right(Either::Left(Either::Left(respond_locally(context, admitted, local_response, request))))
            }
            Destination::UsagePage => {
                Either::Right(Either::Left(Either::Right(respond_with_usage(context, admitted, request))))
            }
        },
        Err(refusal) => {
            let mut response = refuse(&context, &refusal);
            if peer.is_deauthorized() && request.version() <= Version::HTTP_11 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close")); // HTTP/2 has GOAWAY
            }
            discard_request_body(request);
            Either::Right(Either::Right(ready(Ok(response))))
        }
    }
}

/// Counts and refuses a malformed request. `placeholder` is the synthetic request that hyper parsed in its place.
pub(crate) fn reject_malformed(
    worker: &Rc<TrafficWorker>,
    peer: &Rc<DownstreamPeer>,
    mut placeholder: Request<Incoming>,
    fault: MalformedRequest,
) -> ExchangeResult {
    let context = RequestContext::receive(worker, peer, &mut placeholder, &FrozenTime::freeze());
    let refusal = context.malformed_refusal(fault);
    Ok(refuse(&context, &refusal))
}

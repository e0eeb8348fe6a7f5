//! Takes an admitted command to its subsystem and its answer back.
//!
//! Guarantees: takes [`Admitted`] by value, so nothing unauthorised or unmetered can be forwarded; bodies stream both ways;
//! the path that was authorised is the path that is sent. When the caller leaves, hyper drops this future, and with it the
//! request upstream and the account.

use std::future::poll_fn;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use crate::model::Finished;
use crate::policy::Durability;

use super::admit::Admitted;
use super::body::{Body, Metered, Verdict};
use super::call::{Answer, Call};
use super::compress::{self, Compressed};
use super::extended::stream_of;
use super::grpc;
use super::headers::{Passing, REQUEST_ID};
use super::interim::Interim;
use super::mirror::Copy;
use super::pace::Tempo;
use super::progress::BodyFault;
use super::refuse::{busy, fail, tell_budget, too_large};
use super::request_body::RequestBody;
use super::tunnel::Tunnel;
use super::upstream::{Answered, Begun, Framing, Lease, Outgoing, Patience, SendError, Sent};
use super::wire::HeadLimits;

/// How long a subsystem has to ask for a body that its caller offers with `Expect: 100-continue`, before it gets it unasked
/// (RFC 9110 section 10.1.1); curl waits as long.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// Forwards an admitted command and answers with what came back.
pub(super) fn forward(
    call: Call,
    mut admitted: Admitted,
    mut request: Request<Incoming>,
) -> impl Future<Output = Answer> {
    tracing::trace!(request = %call.id.text(), rule = admitted.grant.rule(), "admitted");
    let upstreams = call.live.upstreams_of(&admitted.subsystem);
    let key = upstreams.key(request.headers(), &admitted.department.department.id);
    let method = request.method().clone();
    let stream = stream_of(&mut request);
    let outgoing = towards(&call, &admitted, request);
    let spare = upstreams.spare(&outgoing, &method).filter(|_| admitted.upgrade.is_none());
    let begun = upstreams.begin(outgoing, key);
    admitted.account.progress().sent.set(matches!(begun, Begun::Sent(..)));
    let before = call.worker.clock.monotonic().since(call.arrived);
    // Boxed, because hyper and tokio move what they are given often.
    Box::pin(async move {
        let upstreams = call.live.upstreams_of(&admitted.subsystem);
        let progress = admitted.account.progress();
        let response = admitted.subsystem.timeouts.response;
        let until = admitted.deadline.map(|deadline| call.instant + deadline);
        let line = call.interim.as_ref();
        let pass_on = line.map(|line| |interim: Interim| line.push(&interim, |name| admitted.takes_from_answers(name)));
        let interim = pass_on.as_ref().map(|pass_on| pass_on as &dyn Fn(Interim));
        let patience = Patience { alarms: &call.worker.alarms, response, until, progress, interim };
        let sent = upstreams.finish(begun, (key, spare), patience).await;
        if let Some(line) = line {
            poll_fn(|context| line.poll_left(context)).await;
        }
        if admitted.command.durability == Durability::Machine {
            admitted.account.durable().await;
        }
        let answered = call.worker.clock.monotonic();
        let answer = match sent {
            Ok(sent) if sent.answer.status == StatusCode::SWITCHING_PROTOCOLS => {
                switched(&call, admitted, sent, stream)
            }
            Ok(sent) if stream.is_some() && sent.answer.status.is_success() => no_tunnel(&call, admitted, &sent.lease),
            Ok(sent) => answer(&call, admitted, sent),
            Err(error) => {
                let reader = admitted.reader.take();
                let mut answer = no_answer(&call, admitted, &error);
                reader.inspect(|reader| reader.tell(answer.headers_mut()));
                answer
            }
        };
        call.worker.recorder.gateway(before + call.worker.clock.monotonic().since(answered));
        Ok(answer)
    })
}

/// The request as the subsystem gets it.
fn towards(call: &Call, admitted: &Admitted, request: Request<Incoming>) -> Outgoing {
    let framing = framing(request.body());
    let passing = Passing { call, admitted, request: &request, framing, copy_for: None };
    let copy = Copy::of(passing);
    let head = passing.written();
    let has_body = framing != Framing::None;
    let waits = has_body && request.headers().contains_key(EXPECT);
    let tempo = if has_body { Tempo::of(request.headers(), &call.worker.capacity) } else { Tempo::default() };
    let caller = (&call.peer, admitted.account.progress());
    let limits = (admitted.command.body_max, tempo, HeadLimits::of(&call.worker.capacity));
    let body = RequestBody::new(request, caller, limits, copy);
    match head.with(body, framing) {
        Outgoing::Http1(request) if waits => Outgoing::Http1(request.held(CONTINUE_PATIENCE)),
        outgoing => outgoing,
    }
}

/// How a body goes on: framing is made anew, whatever the caller's was.
fn framing(body: &Incoming) -> Framing {
    match body.size_hint().exact() {
        _ if body.is_end_stream() => Framing::None,
        Some(0) => Framing::None, // over HTTP/2 its END_STREAM may be a frame of its own
        Some(length) => Framing::Length(length),
        None => Framing::Chunked,
    }
}

/// The subsystem's answer, metered on its way to the caller.
fn answer(call: &Call, admitted: Admitted, sent: Sent) -> Response<Body> {
    let only_busy = sent.answer.is_only_busy();
    let Sent { answer: Answered { status, mut headers, body, upgrade, .. }, lease } = sent;
    let finished = outcome_of(status);
    if !admitted.account.progress().is_callers_doing() {
        note_answer(&lease, status, only_busy);
    }
    let verdict = verdict(&headers, finished);
    admitted.shape_answer(&mut headers);
    headers.insert(REQUEST_ID, call.id.header());
    tell_budget(&mut headers, admitted.budget);
    if let Some(protocol) = upgrade.filter(|_| status == StatusCode::UPGRADE_REQUIRED) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade")); // RFC 9110 section 15.5.22; HTTP/2 has neither
        headers.insert(UPGRADE, protocol);
    }
    let patience = admitted.subsystem.timeouts.idle;
    let until = admitted.deadline.map(|deadline| call.instant + deadline);
    let encoder = compress::begin(&call.worker, admitted.compress, (status, &mut headers), &body.size_hint());
    let body = Metered::new(body, (admitted.account, lease), verdict, (patience, until));
    let mut response = Response::new(match encoder {
        Some(encoder) => Body::Compressed(Box::new(Compressed::new(body, encoder))),
        None => Body::Metered(Box::new(body)),
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What an answer will have been once it has ended: its status tells, but for gRPC, which tells in head or trailers.
fn verdict(headers: &HeaderMap, finished: Finished) -> Verdict {
    match grpc::is_spoken(headers) && finished == Finished::Ok {
        true => grpc::outcome(headers).map_or(Verdict::InTrailers, Verdict::Known),
        false => Verdict::Known(finished),
    }
}

/// The subsystem switches to another protocol (RFC 9110 section 15.2.2): only to the one it was asked for, and only on a
/// connection that is the command's own. The caller's connection, or its stream, does so once this answer has left.
fn switched(
    call: &Call,
    admitted: Admitted,
    Sent { answer, lease }: Sent,
    stream: Option<OnUpgrade>,
) -> Response<Body> {
    let Answered { mut headers, upgrade, body, .. } = answer;
    let agreed = admitted.upgrade.as_ref().zip(upgrade.as_ref());
    let agreed = agreed.filter(|(asked, given)| asked.as_bytes().eq_ignore_ascii_case(given.as_bytes()));
    let Some((_, (subsystem, said))) = agreed.zip(body.into_stream()) else {
        lease.fail(Finished::UpstreamFailed);
        return broke_its_word(call, admitted, "the subsystem switched to another protocol, unasked");
    };
    lease.note_success();
    headers.remove(CONTENT_LENGTH); // it may not be there (RFC 9110 section 8.6), and would cut a stream off
    headers.insert(REQUEST_ID, call.id.header());
    let status = if stream.is_some() {
        headers.remove(SEC_WEBSOCKET_ACCEPT); // the key was ours (RFC 8441 section 5)
        StatusCode::OK
    } else {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.extend(upgrade.map(|protocol| (UPGRADE, protocol)));
        StatusCode::SWITCHING_PROTOCOLS
    };
    let idle = admitted.subsystem.timeouts.idle;
    call.peer.tunnel.leave(Tunnel { subsystem, said, account: admitted.account, lease, idle, stream });
    let mut response = Response::new(Body::Whole(Full::default()));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The subsystem answers well and does not switch, where its caller would take that for a tunnel.
fn no_tunnel(call: &Call, admitted: Admitted, lease: &Lease) -> Response<Body> {
    lease.note_success(); // it is well, and only knows no such protocol
    broke_its_word(call, admitted, "the subsystem did not switch to the protocol that it was asked for")
}

fn broke_its_word(call: &Call, admitted: Admitted, detail: &str) -> Response<Body> {
    admitted.account.settle(Finished::UpstreamFailed);
    fail(call, Finished::UpstreamFailed, detail)
}

/// Tells a server's health what it answered.
pub(super) fn note_answer(lease: &Lease, status: StatusCode, only_busy: bool) {
    match outcome_of(status) {
        Finished::ServerError if only_busy => {}
        Finished::ServerError => lease.note_server_error(),
        _ => lease.note_success(),
    }
}

fn outcome_of(status: StatusCode) -> Finished {
    match status.as_u16() {
        500.. => Finished::ServerError,
        400..=499 => Finished::ClientError,
        _ => Finished::Ok,
    }
}

/// No answer: whose doing was it?
fn no_answer(call: &Call, admitted: Admitted, error: &SendError) -> Response<Body> {
    if let Some(fault) = admitted.account.fault().or_else(|| error.fault_of_request()) {
        admitted.account.settle(Finished::Aborted);
        return match fault {
            BodyFault::TooLarge => too_large(call),
            BodyFault::Slow => fail(call, Finished::Aborted, "the request body stopped coming, or came too slowly"),
            BodyFault::Broken => fail(call, Finished::Aborted, "the request body broke off"),
            BodyFault::Trailers(detail) => fail(call, Finished::Aborted, detail),
        };
    }
    let finished = match error {
        SendError::Unreachable(_) | SendError::Refused(_) | SendError::Busy => Finished::Unreachable, // nothing was processed
        SendError::Failed(_) => Finished::UpstreamFailed,
        SendError::Timeout => Finished::Timeout,
    };
    tracing::debug!(subsystem = %admitted.subsystem.id, request = %call.id.text(), %error, "no answer");
    admitted.account.settle(finished);
    match error {
        SendError::Busy => busy(call, finished, error.for_callers()),
        _ => fail(call, finished, error.for_callers()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_outcomes() {
        for (status, outcome) in [
            (200, Finished::Ok),
            (304, Finished::Ok),
            (404, Finished::ClientError),
            (429, Finished::ClientError),
            (503, Finished::ServerError),
        ] {
            assert_eq!(outcome_of(StatusCode::from_u16(status).expect("a status")), outcome);
        }
    }
}

//! Takes an admitted command to its subsystem and its answer back.
//!
//! Guarantees: takes [`Admitted`] by value, so nothing unauthorised or unmetered can be forwarded; bodies stream both ways;
//! the path that was authorised is the path that is sent. When the caller leaves, hyper drops this future, and with it the
//! request upstream and the account.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};

use crate::model::Finished;
use crate::policy::{Durability, Subsystem};

use super::admit::Admitted;
use super::body::{Body, Metered};
use super::call::{Answer, Call};
use super::fields::towards_caller;
use super::headers::{REQUEST_ID, towards_subsystem};
use super::pace::Tempo;
use super::progress::BodyFault;
use super::refuse::{fail, tell_budget, too_large};
use super::request_body::RequestBody;
use super::upstream::{Lease, Patience, SendError, Sent};

/// Forwards an admitted command and answers with what came back.
pub(super) fn forward(call: Call, admitted: Admitted, request: Request<Incoming>) -> impl Future<Output = Answer> {
    tracing::trace!(request = %call.id.text(), rule = admitted.grant.rule(), "admitted");
    let department = admitted.department.department.number;
    let outgoing = towards(&call, &admitted, request);
    let begun = call.live.upstreams_of(&admitted.subsystem).begin(outgoing, department);
    let before = call.worker.clock.monotonic().since(call.arrived);
    // Boxed, because hyper and tokio move what they are given often.
    Box::pin(async move {
        let upstreams = call.live.upstreams_of(&admitted.subsystem);
        let progress = admitted.account.progress();
        let response = admitted.subsystem.timeouts.response;
        let patience = Patience { alarms: &call.worker.alarms, response, progress };
        let sent = upstreams.finish(begun, department, patience).await;
        if admitted.command.durability == Durability::Machine {
            admitted.account.durable().await;
        }
        let answered = call.worker.clock.monotonic();
        let answer = match sent {
            Ok(sent) => answer(&call, admitted, sent),
            Err(error) => no_answer(&call, admitted, &error),
        };
        call.worker.recorder.gateway(before + call.worker.clock.monotonic().since(answered));
        Ok(answer)
    })
}

/// The request as the subsystem gets it.
fn towards(call: &Call, admitted: &Admitted, request: Request<Incoming>) -> Request<RequestBody> {
    let (mut head, body) = request.into_parts();
    head.uri = below(&admitted.subsystem, &head.uri);
    head.version = Version::HTTP_11;
    towards_subsystem(&mut head.headers, call, admitted);
    frame(&head.method, &mut head.headers, &body);
    let tempo = Tempo::of(&head.headers, &call.worker.capacity);
    let body = RequestBody::new(body, admitted.account.progress(), admitted.command.body_max, tempo);
    Request::from_parts(head, body)
}

/// Says how the body is framed where hyper, left alone, would not: a GET with a body of unknown length would lose it
/// (RFC 9112 section 6.3), a POST without one would not say so (RFC 9110 section 8.6).
fn frame(method: &Method, headers: &mut HeaderMap, body: &Incoming) {
    let rarely_has_body = matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else if body.is_end_stream() && !rarely_has_body {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// The target below the subsystem's prefix, in origin form.
fn below(subsystem: &Subsystem, uri: &Uri) -> Uri {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let stripped = match subsystem.keep_path {
        true => target,
        false => target.strip_prefix(subsystem.prefix.as_str()).unwrap_or(target),
    };
    let target = match stripped.starts_with('/') {
        true => PathAndQuery::try_from(stripped),
        false => PathAndQuery::try_from(format!("/{stripped}")),
    };
    target.map_or_else(|_| uri.clone(), Uri::from)
}

/// The subsystem's answer, metered on its way to the caller.
fn answer(call: &Call, admitted: Admitted, Sent { response, lease }: Sent) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switched(call, admitted, &lease);
    }
    let finished = outcome_of(response.status());
    note_health(&lease, finished);
    let (mut head, body) = response.into_parts();
    head.version = Version::HTTP_11; // ours, whatever the subsystem speaks
    towards_caller(&mut head.headers);
    head.headers.insert(REQUEST_ID, call.id.header());
    tell_budget(&mut head.headers, admitted.budget);
    let patience = admitted.subsystem.timeouts.idle;
    let body = Metered::new(body, (admitted.account, lease), finished, patience);
    Response::from_parts(head, Body::Metered(Box::new(body)))
}

/// `Upgrade` is never forwarded, so nobody asked for another protocol (RFC 9110 section 15.2.2).
fn switched(call: &Call, admitted: Admitted, lease: &Lease) -> Response<Body> {
    lease.fail(Finished::UpstreamFailed);
    admitted.account.settle(Finished::UpstreamFailed);
    fail(call, Finished::UpstreamFailed, "the subsystem switched to another protocol, unasked")
}

fn note_health(lease: &Lease, finished: Finished) {
    match finished {
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
    if let Some(fault) = admitted.account.progress().fault.get() {
        admitted.account.settle(Finished::Aborted);
        return match fault {
            BodyFault::TooLarge => too_large(call),
            BodyFault::Idle => fail(call, Finished::Aborted, "the request body stopped coming, or came too slowly"),
            BodyFault::Broken | BodyFault::Over => fail(call, Finished::Aborted, "the request body broke off"),
        };
    }
    let finished = match error {
        SendError::Unreachable(_) => Finished::Unreachable,
        SendError::Failed(_) => Finished::UpstreamFailed,
        SendError::Timeout => Finished::Timeout,
    };
    tracing::debug!(subsystem = %admitted.subsystem.id, request = %call.id.text(), %error, "no answer");
    admitted.account.settle(finished);
    fail(call, finished, error.for_callers())
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

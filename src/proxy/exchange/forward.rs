//! Forwards an admitted command to its subsystem, and the response back to the caller.
//!
//! Guarantees:
//!
//! - [`Admitted`] is taken by value: nothing unauthorised or unmetered can be forwarded.
//! - Request and response bodies are streamed.
//! - The path that was authorised is the path that is sent.
//! - When the caller disconnects, hyper drops this future, and with it the upstream request and the command's account.
//!
//! Leaves to others: load balancing, connection pool and retries (`proxy::upstream`).

use std::cell::Cell;
use std::future::poll_fn;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, SEC_WEBSOCKET_ACCEPT, SET_COOKIE, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;

use crate::model::Finished;
use crate::policy::{CommandTimeouts, Durability};
use crate::proxy::message::body_rate::MinBodyRate;
use crate::proxy::message::grammar::HeadLimits;
use crate::proxy::message::grpc;
use crate::proxy::message::interim_response::InterimResponse;
use crate::proxy::message::request_body::{BodyTap, RequestBody};
use crate::proxy::message::upload_progress::RequestBodyError;
use crate::proxy::upstream::{
    LeasedResponse, PendingSend, RequestFraming, ResponseDeadline, SendError, ServerLease, UpstreamRequest,
    UpstreamResponse,
};

use super::admit::Admitted;
use super::bandwidth_limiter::BandwidthLimiter;
use super::context::RequestContext;
use super::destination::ChosenBackend;
use super::gzip::{self, GzipBody};
use super::mirror::ShadowRequest;
use super::refuse::{busy_response, failure_response, too_large_response};
use super::response_body::{BodyTimeLimits, ExchangeResult, MeteredBody, OutcomeSource, ResponseBody};
use super::response_head::ResponseFields;
use super::tunnel::UpgradeTunnel;
use super::upstream_head::UpstreamHead;

/// The wait for the `100 Continue` of a subsystem, if the caller sent `Expect: 100-continue` (RFC 9110 section 10.1.1).
/// After that time the body is sent without it. curl waits as long.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Forwards an admitted command to the backend that was chosen for it, and returns the response of the subsystem, or a
/// failure response.
pub(crate) fn forward(
    call: RequestContext,
    mut admitted: Admitted,
    chosen: ChosenBackend,
    mut request: Request<Incoming>,
) -> impl Future<Output = ExchangeResult> {
    let rule = || call.config.snapshot.grant_origin(&admitted.grant);
    tracing::trace!(request = %call.request_id.to_text(), rule = ?rule(), "admitted");
    let upstreams = call.config.servers_of(chosen.index);
    let affinity = upstreams.session_affinity(request.headers(), &admitted.department.department.id);
    let method = request.method().clone();
    let stream = call.upgrade.as_ref().and_then(|upgrade| upgrade.take_stream(&mut request));
    let outgoing = upstream_request(&call, &admitted, chosen, request);
    let retryable = upstreams.retryable_copy(&outgoing, &method).filter(|_| admitted.upgrade.is_none());
    let pending_send = upstreams.try_send(outgoing, affinity.key);
    admitted.in_flight.progress().is_sent.set(matches!(pending_send, PendingSend::InFlight(..)));
    let before = call.worker.components.clock.monotonic().since(call.arrival);
    // Boxed, because hyper and tokio move this future often.
    Box::pin(async move {
        let upstreams = call.config.servers_of(chosen.index);
        let progress = admitted.in_flight.progress();
        let response = upstreams.policy.timeouts.response;
        let not_after = admitted.deadline.map(|deadline| call.arrived_at + deadline);
        let line = call.interim_target.as_ref();
        let pass_on = line
            .map(|line| |interim: InterimResponse| line.push(&interim, |name| admitted.removes_response_header(name)));
        let interim = pass_on.as_ref().map(|pass_on| pass_on as &dyn Fn(InterimResponse));
        let deadline = ResponseDeadline {
            timers: &call.worker.tick_timers,
            response_timeout: response,
            attempt_timeout: admitted.command.timeouts.attempt,
            attempt_end: Cell::new(None),
            not_after,
            progress,
            on_interim: interim,
        };
        let sent = upstreams.wait_response(pending_send, (affinity.key, retryable), deadline).await;
        if let Some(line) = line {
            poll_fn(|context| line.poll_drained(context)).await;
        }
        if admitted.command.durability == Durability::Machine {
            admitted.in_flight.wait_until_durable().await;
        }
        let responded = call.worker.components.clock.monotonic();
        let session = upstreams.session_field(&affinity, &sent, call.peer.scheme() == "https");
        let session = session.filter(|_| admitted.in_flight.body_error().is_none());
        let mut answer = match sent {
            Ok(sent) if sent.response.status == StatusCode::SWITCHING_PROTOCOLS => {
                switch_protocols((&call, chosen), admitted, sent, stream)
            }
            Ok(sent) if stream.is_some() && sent.response.status.is_success() => {
                upgrade_missing(&call, admitted, &sent.lease)
            }
            Ok(sent) => metered_response((&call, chosen), admitted, sent),
            Err(error) => {
                let cors_request = admitted.cors_request.take();
                let mut answer = send_failure(&call, admitted, &error);
                let fields = ResponseFields { cors_request: cors_request.as_ref(), ..ResponseFields::default() };
                call.finish_head(answer.headers_mut(), fields);
                answer
            }
        };
        if let Some(cookie) = session {
            answer.headers_mut().append(SET_COOKIE, cookie);
        }
        call.worker.recorder.record_gateway(before + call.worker.components.clock.monotonic().since(responded));
        Ok(answer)
    })
}

/// Builds the upstream request.
fn upstream_request(
    call: &RequestContext,
    admitted: &Admitted,
    chosen: ChosenBackend,
    request: Request<Incoming>,
) -> UpstreamRequest {
    let framing = body_framing(request.body());
    let edits = admitted.request_edits();
    let backend = call.backend(chosen);
    let passing = UpstreamHead { context: call, admitted, request: &request, framing, backend, edits, is_copy: false };
    let shadow = ShadowRequest::for_request(passing);
    let head = passing.encode();
    let has_body = framing != RequestFraming::None;
    let waits = has_body && request.headers().contains_key(EXPECT);
    let minimum =
        if has_body { MinBodyRate::for_request(call.is_grpc, &call.worker.capacity) } else { MinBodyRate::default() };
    let caller = (call.peer.close_notice(), admitted.in_flight.progress());
    let limits = (admitted.command.body_max, minimum, HeadLimits::from_capacity(&call.worker.capacity));
    let tap = shadow.map(|shadow| Box::new(shadow) as Box<dyn BodyTap>);
    let body = RequestBody::new(request, caller, limits, tap);
    match head.with_body(body, framing) {
        UpstreamRequest::Http1(request) if waits => UpstreamRequest::Http1(request.hold_for_continue(CONTINUE_TIMEOUT)),
        outgoing => outgoing,
    }
}

/// The framing of the forwarded body. It is chosen here, independently of the caller's framing.
fn body_framing(body: &Incoming) -> RequestFraming {
    match body.size_hint().exact() {
        Some(0) => RequestFraming::None, // over HTTP/2 the END_STREAM may be a frame of its own
        _ if body.is_end_stream() => RequestFraming::None, // asked second, because h2 takes a lock for the answer
        Some(length) => RequestFraming::Length(length),
        None => RequestFraming::Chunked,
    }
}

/// The subsystem's response, metered on its way to the caller.
fn metered_response(
    (call, chosen): (&RequestContext, ChosenBackend),
    admitted: Admitted,
    sent: LeasedResponse,
) -> Response<ResponseBody> {
    let only_busy = sent.response.is_retry_later();
    let LeasedResponse { response, lease, attempt_end } = sent;
    let UpstreamResponse { status, mut headers, body, upgrade, .. } = response;
    let finished = outcome_of_status(status);
    if !admitted.in_flight.progress().is_caller_at_fault() {
        note_response(&lease, status, only_busy);
    }
    let verdict = outcome_source(&headers, finished);
    call.finish_head(&mut headers, admitted.response_fields());
    if let Some(protocol) = upgrade.filter(|_| status == StatusCode::UPGRADE_REQUIRED) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade")); // RFC 9110 section 15.5.22; HTTP/2 has neither
        headers.insert(UPGRADE, protocol);
    }
    let command_end = admitted.deadline.map(|deadline| call.arrived_at + deadline);
    let limits = BodyTimeLimits {
        idle_timeout: call.backend(chosen).timeouts.idle,
        deadline: command_end.into_iter().chain(attempt_end).min(),
        is_configured: admitted.command.timeouts != CommandTimeouts::default(),
        is_grpc: call.is_grpc,
    };
    let encoder = gzip::start_encoding(&call.worker, admitted.accepts_gzip, (status, &mut headers), &body.size_hint());
    let bandwidth = admitted.command.shape.as_ref().and_then(|shape| shape.bandwidth);
    let limiter = bandwidth.map(|limit| BandwidthLimiter::new(limit, call.arrived_at));
    let body = MeteredBody::new(body, (admitted.in_flight, lease), verdict, limits);
    let mut response = Response::new(match encoder {
        Some(encoder) => ResponseBody::Gzip(Box::new(GzipBody::new(body, encoder, limiter))),
        None => ResponseBody::Metered(Box::new(body.limited_by(limiter))),
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The source of the command's outcome: the status, or for gRPC the `grpc-status` in the head or in the trailers.
fn outcome_source(headers: &HeaderMap, finished: Finished) -> OutcomeSource {
    match grpc::is_grpc(headers) && finished == Finished::Ok {
        true => grpc::grpc_outcome(headers).map_or(OutcomeSource::Trailers, OutcomeSource::Head),
        false => OutcomeSource::Head(finished),
    }
}

/// Handles a 101 Switching Protocols of the subsystem (RFC 9110 section 15.2.2).
///
/// The switch is accepted only to the requested protocol, and only on a connection that the command has to itself. The
/// caller's connection, or its HTTP/2 stream, switches once this response has been sent.
fn switch_protocols(
    (call, chosen): (&RequestContext, ChosenBackend),
    admitted: Admitted,
    LeasedResponse { response: answer, lease, .. }: LeasedResponse,
    stream: Option<OnUpgrade>,
) -> Response<ResponseBody> {
    let UpstreamResponse { mut headers, upgrade, body, .. } = answer;
    let agreed = admitted.upgrade.as_ref().zip(upgrade.as_ref());
    let agreed = agreed.filter(|(requested, offered)| requested.as_bytes().eq_ignore_ascii_case(offered.as_bytes()));
    let Some((_, (subsystem, buffered))) = agreed.zip(body.into_stream()) else {
        lease.note_failure(Finished::UpstreamFailed);
        return invalid_upgrade(call, admitted, "the subsystem switched protocols without a matching upgrade request");
    };
    lease.note_success();
    headers.remove(CONTENT_LENGTH); // not allowed here (RFC 9110 section 8.6), and would truncate a stream
    call.finish_head(&mut headers, ResponseFields::default());
    let status = if stream.is_some() {
        headers.remove(SEC_WEBSOCKET_ACCEPT); // the gateway made the key (RFC 8441 section 5)
        StatusCode::OK
    } else {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.extend(upgrade.map(|protocol| (UPGRADE, protocol)));
        StatusCode::SWITCHING_PROTOCOLS
    };
    let idle = call.backend(chosen).timeouts.idle;
    let tunnel = UpgradeTunnel {
        server_stream: subsystem,
        buffered,
        command: admitted.in_flight,
        lease,
        idle_timeout: idle,
        client_stream: stream,
    };
    let mut response = Response::new(ResponseBody::Upgrade(Some(Box::new(tunnel))));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Handles a 2xx response without a switch, which the caller would mistake for the start of a tunnel.
fn upgrade_missing(call: &RequestContext, admitted: Admitted, lease: &ServerLease) -> Response<ResponseBody> {
    lease.note_success(); // the server is healthy; it only lacks the protocol
    invalid_upgrade(call, admitted, "the subsystem did not switch to the requested protocol")
}

fn invalid_upgrade(call: &RequestContext, admitted: Admitted, detail: &str) -> Response<ResponseBody> {
    admitted.in_flight.settle(Finished::UpstreamFailed);
    let mut response = failure_response(call, Finished::UpstreamFailed, detail);
    call.finish_head(response.headers_mut(), ResponseFields::default());
    response
}

/// Records a response in the server's health (outlier ejection).
pub(crate) fn note_response(lease: &ServerLease, status: StatusCode, only_busy: bool) {
    match outcome_of_status(status) {
        Finished::ServerError if only_busy => {}
        Finished::ServerError => lease.note_server_error(),
        _ => lease.note_success(),
    }
}

fn outcome_of_status(status: StatusCode) -> Finished {
    match status.as_u16() {
        500.. => Finished::ServerError,
        400..=499 => Finished::ClientError,
        _ => Finished::Ok,
    }
}

/// The response for a command without a response from upstream: finds the side at fault and settles the outcome.
fn send_failure(call: &RequestContext, admitted: Admitted, error: &SendError) -> Response<ResponseBody> {
    if let Some(fault) = admitted.in_flight.body_error().or_else(|| error.request_body_error()) {
        admitted.in_flight.settle(Finished::Aborted);
        return match fault {
            RequestBodyError::TooLarge => too_large_response(call),
            RequestBodyError::TooSlow => {
                failure_response(call, Finished::Aborted, "the request body timed out or was too slow")
            }
            RequestBodyError::Aborted => failure_response(call, Finished::Aborted, "the request body ended early"),
            RequestBodyError::Trailers(detail) => failure_response(call, Finished::Aborted, detail),
        };
    }
    let finished = match error {
        SendError::Unreachable(_) | SendError::Refused(_) | SendError::Busy => Finished::Unreachable, // not processed
        SendError::Failed(_) => Finished::UpstreamFailed,
        SendError::Timeout | SendError::AttemptTimeout => Finished::Timeout,
    };
    tracing::debug!(
        subsystem = %admitted.subsystem.id,
        request = %call.request_id.to_text(),
        %error,
        "no response from the subsystem"
    );
    admitted.in_flight.settle(finished);
    match error {
        SendError::Busy => busy_response(call, finished, error.public_detail()),
        _ => failure_response(call, finished, error.public_detail()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_outcomes() {
        for (status, outcome) in [
            (200, Finished::Ok),
            (304, Finished::Ok),
            (404, Finished::ClientError),
            (429, Finished::ClientError),
            (503, Finished::ServerError),
        ] {
            assert_eq!(outcome_of_status(StatusCode::from_u16(status).expect("a status")), outcome);
        }
    }
}

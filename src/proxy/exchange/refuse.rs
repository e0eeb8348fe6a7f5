//! Refusals and failure responses: one exhaustive table from outcome to status.
//!
//! Guarantees:
//!
//! - Every refusal is counted before its response is built.
//! - Every local error response is `application/problem+json` (RFC 9457), or the gRPC form of it.
//! - The table is exhaustive: a new outcome does not compile without a line here.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::model::{CommandKey, Department, Finished, Refused};
use crate::proxy::message::grpc;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::{AccessRecord, RecordText};

use super::admit::CommandRefusal;
use super::command_record::{log_refused, log_unread_head, note_rate_limit};
use super::context::RequestContext;
use super::response_body::ResponseBody;
use super::response_head::ResponseFields;

/// Counts a refusal and builds its response.
pub(crate) fn refuse(context: &RequestContext, refusal: &CommandRefusal) -> Response<ResponseBody> {
    context.worker.meter.refuse(&refusal.department, &refusal.command, refusal.refused, context.window);
    let status = refusal.status.unwrap_or(status_of_refusal(refusal.refused));
    let mut response = problem_response(context, status, refusal.refused.name(), &refusal.detail);
    let retry_after = refusal.retry_after.or(default_retry_after(refusal.refused)).map(whole_seconds);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(page) = refusal.location.clone().filter(|_| !context.is_grpc) {
        response.headers_mut().insert(LOCATION, page);
    }
    if let Some(methods) = refusal.allow.clone().filter(|_| !context.is_grpc) {
        response.headers_mut().insert(ALLOW, methods); // RFC 9110 section 15.5.6
    }
    let (cors_request, rate_limit) = (refusal.cors_request.as_ref(), refusal.rate_limit);
    context.finish_head(response.headers_mut(), ResponseFields { edits: None, cors_request, rate_limit });
    if let Some(record) = context.record.take() {
        log_refusal((context, record), refusal, (response.status(), retry_after));
    }
    response
}

/// Hands over the record of a refused command for the access log.
fn log_refusal(
    (context, mut record): (&RequestContext, Box<AccessRecord>),
    refusal: &CommandRefusal,
    (status, retry_after_s): (StatusCode, Option<u64>),
) {
    record.status = Some(status.as_u16());
    record.retry_after_s = retry_after_s;
    note_rate_limit(&mut record, refusal.rate_limit);
    record.duration = context.worker.components.clock.monotonic().since(context.arrival);
    record.set_text(RecordText::Reason, refusal.detail.as_bytes());
    log_refused(&context.worker, record, (&refusal.department, &refusal.command), refusal.refused);
}

/// Counts a request that hyper refused and answered on its own.
///
/// No request is known that [`crate::proxy::message::grammar`] accepts and hyper refuses, so this case is logged.
pub(crate) fn count_hyper_refusal(worker: &TrafficWorker, peer: &DownstreamPeer) {
    tracing::warn!("hyper rejected a request head that the scanner had accepted; counted as malformed");
    count_malformed(worker, peer);
}

/// Counts a head that was refused before hyper made a request of it, as received and refused.
pub(crate) fn count_malformed(worker: &TrafficWorker, peer: &DownstreamPeer) {
    let department = peer.department(&worker.config().snapshot);
    let department = department.map_or_else(Department::unknown, |policy| policy.department.clone());
    worker.meter.received();
    worker.meter.refuse(&department, &CommandKey::unknown(), Refused::Malformed, worker.components.clock.window());
    log_unread_head(worker, peer, &department);
}

/// The response for an admitted command without a response from its subsystem. The owner of the account settles it and
/// finishes the head.
pub(crate) fn failure_response(context: &RequestContext, failed: Finished, detail: &str) -> Response<ResponseBody> {
    problem_response(context, status_of_failure(failed), failed.name(), detail)
}

/// The response for an admitted command that no server had capacity for. Nothing was sent, so the caller may retry.
pub(crate) fn busy_response(context: &RequestContext, failed: Finished, detail: &str) -> Response<ResponseBody> {
    let mut response = problem_response(context, StatusCode::SERVICE_UNAVAILABLE, failed.name(), detail);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    response
}

/// The response for an admitted command without a backend. 503 says that the backend has no servers at the moment.
pub(crate) fn no_backend_response(context: &RequestContext, status: StatusCode) -> Response<ResponseBody> {
    let failed = Finished::Unreachable;
    match status {
        StatusCode::SERVICE_UNAVAILABLE => busy_response(context, failed, "the subsystem has no servers at the moment"),
        _ => problem_response(context, status, failed.name(), "the subsystem has no servers for this command"),
    }
}

/// The response for an admitted command whose request body exceeded its limit while it was forwarded.
pub(crate) fn too_large_response(context: &RequestContext) -> Response<ResponseBody> {
    problem_response(context, StatusCode::PAYLOAD_TOO_LARGE, Refused::TooLarge.name(), TOO_LARGE_DETAIL)
}

/// The detail of a request body above its limit.
pub(crate) const TOO_LARGE_DETAIL: &str = "the request body is larger than this command allows";

fn problem_response(context: &RequestContext, status: StatusCode, name: &str, detail: &str) -> Response<ResponseBody> {
    if context.is_grpc {
        return grpc_problem_response(name, detail);
    }
    let problem = serde_json::json!({
        "type": format!("urn:tallygate:problem:{name}"),
        "title": problem_title(name),
        "status": status.as_u16(),
        "detail": detail,
        "instance": context.request_id.to_text(),
    });
    let mut response = local_body_response(context, problem.to_string());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

/// The gRPC form of a refusal: a head without a body ("Trailers-Only"), with the status of the call.
fn grpc_problem_response(name: &str, detail: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Local(Full::default()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    grpc::put_status(response.headers_mut(), grpc_status(name), &format!("{name}: {detail}"));
    response
}

/// The gRPC status by the name of the outcome. Refusals and failures share these names.
fn grpc_status(name: &str) -> u16 {
    match name {
        "malformed" => grpc::INVALID_ARGUMENT,
        "unauthenticated" => grpc::UNAUTHENTICATED,
        "forbidden" => grpc::PERMISSION_DENIED,
        "unknown_command" => grpc::UNIMPLEMENTED,
        "rate_limited" | "too_many_concurrent" | "quota_exceeded" | "too_large" => grpc::RESOURCE_EXHAUSTED,
        "timeout" => grpc::DEADLINE_EXCEEDED,
        "aborted" => grpc::CANCELLED,
        _ => grpc::UNAVAILABLE,
    }
}

/// A local body. A HEAD gets only the length (RFC 9110 section 9.3.2): a body would break its HTTP/2 stream.
fn local_body_response(context: &RequestContext, words: String) -> Response<ResponseBody> {
    if !context.is_head_request {
        return Response::new(ResponseBody::Local(Full::new(Bytes::from(words))));
    }
    let mut response = Response::new(ResponseBody::Local(Full::default()));
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(words.len()));
    response
}

fn problem_title(name: &str) -> String {
    let mut title = name.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    title
}

fn status_of_refusal(refused: Refused) -> StatusCode {
    match refused {
        Refused::Malformed => StatusCode::BAD_REQUEST,
        Refused::Unauthenticated => StatusCode::UNAUTHORIZED,
        Refused::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Refused::UnknownCommand => StatusCode::NOT_FOUND,
        Refused::Forbidden => StatusCode::FORBIDDEN,
        Refused::RateLimited | Refused::TooManyConcurrent | Refused::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        Refused::Overloaded | Refused::LedgerUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        Refused::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

fn status_of_failure(failed: Finished) -> StatusCode {
    match failed {
        Finished::Unreachable | Finished::UpstreamFailed | Finished::ServerError | Finished::Ok => {
            StatusCode::BAD_GATEWAY
        }
        Finished::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Finished::Aborted | Finished::ClientError => StatusCode::BAD_REQUEST,
        Finished::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The `Retry-After` of refusals whose limit gives none.
fn default_retry_after(refused: Refused) -> Option<Duration> {
    match refused {
        Refused::Overloaded | Refused::LedgerUnavailable => Some(Duration::from_secs(1)),
        Refused::RateLimited | Refused::TooManyConcurrent | Refused::QuotaExceeded => Some(Duration::from_secs(1)),
        Refused::Malformed
        | Refused::Unauthenticated
        | Refused::Misdirected
        | Refused::UnknownCommand
        | Refused::Forbidden
        | Refused::TooLarge => None,
    }
}

/// The value of `Retry-After` in whole seconds (RFC 9110 section 10.2.3). Rounding down would cause a second refusal.
fn whole_seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        for (after, seconds) in
            [(Duration::from_millis(1), 1), (Duration::from_secs(2), 2), (Duration::from_millis(2001), 3)]
        {
            assert_eq!(whole_seconds(after), seconds);
        }
    }

    #[test]
    fn every_refusal_has_its_documented_status() {
        let statuses: Vec<_> = Refused::ALL.into_iter().map(|refused| status_of_refusal(refused).as_u16()).collect();
        assert_eq!(statuses, [400, 401, 421, 404, 403, 429, 429, 429, 503, 503, 413]);
    }
}

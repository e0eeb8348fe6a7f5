//! The shapes of an answer.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;

/// An answer with its whole body.
pub(crate) type AdminResponse = Response<Full<Bytes>>;

pub(crate) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) const TEXT_TYPE: &str = "text/plain; charset=utf-8";
pub(crate) const JSON_TYPE: &str = "application/json";
const PROBLEM_TYPE: &str = "application/problem+json";

/// An answer of a kind.
pub(crate) fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let fields: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A problem (RFC 9457); its title is that of the status.
pub(crate) fn problem_response(status: StatusCode, detail: &str) -> AdminResponse {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Problem"),
        "status": status.as_u16(),
        "detail": detail,
    });
    respond(status, PROBLEM_TYPE, body.to_string() + "\n")
}

/// 405, with what is allowed (RFC 9110 section 15.5.6).
pub(crate) fn method_not_allowed() -> AdminResponse {
    let mut response = problem_response(StatusCode::METHOD_NOT_ALLOWED, "this can only be read: use GET or HEAD");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// 503, and the log knows why: an operator's door may say it too.
pub(crate) fn unavailable(error: &anyhow::Error) -> AdminResponse {
    tracing::error!(%error, "the admin listener could not answer");
    problem_response(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

//! The responses of the admin server: content types, headers, and problem details (RFC 9457).
//!
//! Guarantees: every response has `Cache-Control: no-store` and `X-Content-Type-Options: nosniff`.
//!
//! Leaves to others: the contents (`endpoints`, `usage_api`, `hours_api`), and the body (`response_body`).

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};

use super::response_body::AdminBody;

/// A response of the admin server.
pub(crate) type AdminResponse = Response<AdminBody>;

pub(crate) const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(crate) const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(crate) const TEXT_TYPE: &str = "text/plain; charset=utf-8";
pub(crate) const JSON_TYPE: &str = "application/json";
const PROBLEM_TYPE: &str = "application/problem+json";

/// A response with this status and content type, and a complete body.
pub(crate) fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> AdminResponse {
    respond_with(status, kind, AdminBody::whole(body.into()))
}

/// A response with this status and content type.
pub(crate) fn respond_with(status: StatusCode, kind: &'static str, body: AdminBody) -> AdminResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    for (name, value) in fields {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A problem response (RFC 9457). The title is the reason phrase of the status.
pub(crate) fn problem_response(status: StatusCode, detail: &str) -> AdminResponse {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Problem"),
        "status": status.as_u16(),
        "detail": detail,
    });
    respond(status, PROBLEM_TYPE, body.to_string() + "\n")
}

/// A 405 response with the allowed methods (RFC 9110 section 15.5.6).
pub(crate) fn method_not_allowed() -> AdminResponse {
    let mut response = problem_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed: use GET or HEAD");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// A 503 response with the error, which is also logged. Operators may see the cause.
pub(crate) fn unavailable(error: &anyhow::Error) -> AdminResponse {
    tracing::error!(%error, "admin request failed");
    problem_response(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

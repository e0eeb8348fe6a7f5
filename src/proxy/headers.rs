//! The head of a request as its subsystem gets it: the path below its prefix, the caller's fields, the identity that the
//! handshake proved.
//!
//! Guarantees: everything a subsystem reads under one of our names was written here. What a caller says under them, or
//! nominates in `Connection`, is left out before ours are written (CVE-2024-45410).

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Request};
use hyper::body::Incoming;

use crate::policy::Subsystem;

use super::admit::Admitted;
use super::call::Call;
use super::fields;
use super::upstream::{Framing, put_field};

/// The command's id, in requests to subsystems and in every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const DEPARTMENT: HeaderName = HeaderName::from_static("x-tallygate-department");
const CALLER: HeaderName = HeaderName::from_static("x-tallygate-caller");
const COMMAND: HeaderName = HeaderName::from_static("x-tallygate-command");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Room for a usual head with what is added to it; a larger one grows.
const HEAD_ROOM: usize = 1024;

/// The head of a request as its subsystem gets it, written out.
pub(super) fn towards_subsystem(
    call: &Call,
    admitted: &Admitted,
    request: &Request<Incoming>,
    framing: Framing,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_ROOM);
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    put_request_line(&mut head, request.method(), below(&admitted.subsystem, target));
    put_field(&mut head, "host", admitted.host.as_bytes());
    fields::towards_subsystem(request.headers(), |name, value| put_field(&mut head, name.as_str(), value));
    put_identity(&mut head, call, admitted, request.headers());
    framing.put(&mut head, !rarely_has_body(request.method()));
    head.extend_from_slice(b"\r\n");
    head
}

fn put_request_line(head: &mut Vec<u8>, method: &Method, target: &str) {
    head.extend_from_slice(method.as_str().as_bytes());
    head.extend_from_slice(if target.starts_with('/') { b" " } else { b" /" });
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
}

/// The target below the subsystem's prefix; its first '/' may be missing.
fn below<'a>(subsystem: &Subsystem, target: &'a str) -> &'a str {
    match subsystem.keep_path {
        true => target,
        false => target.strip_prefix(subsystem.prefix.as_str()).unwrap_or(target),
    }
}

/// Who calls, what, and as which request: what only the gateway may say.
fn put_identity(head: &mut Vec<u8>, call: &Call, admitted: &Admitted, given: &HeaderMap) {
    let mut put = |name: &HeaderName, value: &[u8]| put_field(head, name.as_str(), value);
    put(&DEPARTMENT, admitted.department.header.as_bytes());
    put(&COMMAND, admitted.command.header.as_bytes());
    if let Some(caller) = call.peer.caller() {
        put(&CALLER, caller.header().as_bytes());
    }
    put(&REQUEST_ID, &call.id.digits());
    put(&TRACEPARENT, &call.id.traceparent(given.get(TRACEPARENT)));
    put(&FORWARDED_FOR, &call.peer.forwarded_for(given));
    put(&FORWARDED_PROTO, b"https");
    put(&FORWARDED_HOST, admitted.host.as_bytes());
}

/// Requests that have no body unless they say so (RFC 9110 section 9.3).
fn rarely_has_body(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS)
}

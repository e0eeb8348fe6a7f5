//! The identity that the handshake proved, as subsystems read it.
//!
//! Guarantees: everything a subsystem reads under one of our names was written here. Fields are removed before ours are
//! added, so that no `Connection:` nomination can take ours away (CVE-2024-45410).

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::admit::Admitted;
use super::call::Call;
use super::fields;

/// The command's id, in requests to subsystems and in every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const DEPARTMENT: HeaderName = HeaderName::from_static("x-tallygate-department");
const CALLER: HeaderName = HeaderName::from_static("x-tallygate-caller");
const COMMAND: HeaderName = HeaderName::from_static("x-tallygate-command");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How many fields are added towards a subsystem.
const ADDED: usize = 9;

/// Makes the head of a caller's request fit to be sent to a subsystem.
pub(super) fn towards_subsystem(headers: &mut HeaderMap, call: &Call, admitted: &Admitted) {
    let traceparent = call.id.traceparent(headers.get(TRACEPARENT));
    let forwarded_for = call.peer.forwarded_for(headers);
    fields::towards_subsystem(headers);
    headers.reserve(ADDED);
    headers.insert(DEPARTMENT, admitted.department.header.clone());
    headers.insert(COMMAND, admitted.command.header.clone());
    if let Some(caller) = call.peer.caller() {
        headers.insert(CALLER, caller.header().clone());
    }
    headers.insert(REQUEST_ID, call.id.header());
    headers.insert(TRACEPARENT, traceparent);
    headers.insert(FORWARDED_FOR, forwarded_for);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(FORWARDED_HOST, admitted.host.clone());
    headers.insert(HOST, admitted.host.clone());
}

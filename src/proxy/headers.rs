//! The head of a request as its subsystem gets it: the path below its prefix, the caller's fields, the identity that the
//! handshake proved.
//!
//! Guarantees: everything a subsystem reads under one of our names was written here. What a caller says under them, or
//! nominates in `Connection`, is left out before ours are written (CVE-2024-45410).

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use hyper::body::Incoming;

use super::admit::Admitted;
use super::call::Call;
use super::fields;
use super::grpc;
use super::tunnel::is_extended;
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
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Room for a usual head with what is added to it; a larger one grows.
const HEAD_ROOM: usize = 1024;

/// A caller's request on its way to a subsystem.
#[derive(Clone, Copy)]
pub(super) struct Passing<'a> {
    pub(super) call: &'a Call,
    pub(super) admitted: &'a Admitted,
    pub(super) request: &'a Request<Incoming>,
    /// How its body goes on.
    pub(super) framing: Framing,
}

impl Passing<'_> {
    /// The head as HTTP/1.1, written out.
    pub(super) fn to_http1(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_ROOM);
        let method = self.request.method();
        for piece in [method.as_str(), if self.target().starts_with('/') { " " } else { " /" }, self.target()] {
            head.extend_from_slice(piece.as_bytes());
        }
        head.extend_from_slice(b" HTTP/1.1\r\n");
        put_field(&mut head, "host", self.admitted.host.as_bytes());
        self.each_field(|name, value| put_field(&mut head, name.as_str(), value));
        if let Some(protocol) = &self.admitted.upgrade {
            put_field(&mut head, "connection", b"upgrade");
            put_field(&mut head, "upgrade", protocol.as_bytes());
            if is_extended(self.request) && protocol.as_bytes().eq_ignore_ascii_case(b"websocket") {
                put_field(&mut head, "sec-websocket-key", &self.call.id.websocket_key());
            }
        }
        self.framing.put(&mut head, !rarely_has_body(method));
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The head as hyper's HTTP/2 client takes it; nothing, if the target is none.
    pub(super) fn to_http2(self) -> Option<Request<()>> {
        let secure = self.admitted.subsystem.upstreams.iter().any(|server| server.secure);
        let slash = if self.target().starts_with('/') { "" } else { "/" };
        let uri = Uri::builder()
            .scheme(if secure { "https" } else { "http" })
            .authority(self.admitted.host.as_bytes())
            .path_and_query(format!("{slash}{}", self.target()));
        let mut head = Request::new(());
        *head.method_mut() = self.request.method().clone();
        *head.uri_mut() = uri.build().ok()?;
        *head.version_mut() = Version::HTTP_2;
        self.each_field(|name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                head.headers_mut().append(name.clone(), value);
            }
        });
        if let Framing::Length(length) = self.framing {
            head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Some(head)
    }

    /// The target below the subsystem's prefix; its first '/' may be missing.
    fn target(&self) -> &str {
        let target = self.request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        let subsystem = &self.admitted.subsystem;
        match subsystem.keep_path {
            true => target,
            false => target.strip_prefix(subsystem.prefix.as_str()).unwrap_or(target),
        }
    }

    /// The caller's own fields, then who calls, what, and as which request: what only the gateway may say.
    fn each_field(&self, mut put: impl FnMut(&HeaderName, &[u8])) {
        let Self { call, admitted, request, .. } = self;
        fields::towards_subsystem(request.headers(), |name, value| {
            if *name != GRPC_TIMEOUT {
                put(name, value);
            }
        });
        put(&DEPARTMENT, admitted.department.header.as_bytes());
        put(&COMMAND, admitted.command.header.as_bytes());
        if let Some(caller) = call.peer.caller() {
            put(&CALLER, caller.header().as_bytes());
        }
        put(&REQUEST_ID, &call.id.digits());
        put(&TRACEPARENT, &call.id.traceparent(request.headers().get(TRACEPARENT)));
        put(&FORWARDED_FOR, &call.peer.forwarded_for(request.headers()));
        put(&FORWARDED_PROTO, b"https");
        put(&FORWARDED_HOST, admitted.host.as_bytes());
        if let Some(deadline) = admitted.deadline {
            put(&GRPC_TIMEOUT, grpc::timeout_of(deadline).as_bytes());
        }
    }
}

/// Requests that have no body unless they say so (RFC 9110 section 9.3).
fn rarely_has_body(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS)
}

//! The head of a request as its subsystem gets it: the path below its prefix, the caller's fields, the identity that the
//! handshake proved.
//!
//! Guarantees: everything a subsystem reads under one of our names was written here. What a caller says under them, or
//! nominates in `Connection`, is left out before ours are written (CVE-2024-45410).

use std::borrow::Cow;

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use hyper::body::Incoming;

use crate::policy::{Protocol, Subsystem};

use super::admit::Admitted;
use super::call::Call;
use super::extended::{is_extended, is_replaced};
use super::fields;
use super::grpc;
pub(super) use super::request_id::REQUEST_ID;
use super::request_id::of_caller;
use super::upstream::{Framing, Written, put_field};

/// The id that the caller itself has given its request.
const CALLERS_REQUEST: HeaderName = HeaderName::from_static("x-tallygate-caller-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const DEPARTMENT: HeaderName = HeaderName::from_static("x-tallygate-department");
const CALLER: HeaderName = HeaderName::from_static("x-tallygate-caller");
const COMMAND: HeaderName = HeaderName::from_static("x-tallygate-command");
const MIRROR: HeaderName = HeaderName::from_static("x-tallygate-mirror");
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
    /// The subsystem that gets a copy of it, if this is one.
    pub(super) copy_for: Option<&'a Subsystem>,
}

impl Passing<'_> {
    /// The head as its subsystem's protocol has it.
    pub(super) fn written(self) -> Written {
        let http2 = (self.subsystem().protocol == Protocol::Http2).then(|| self.to_http2()).flatten();
        http2.map_or_else(|| Written::Http1(self.to_http1().into()), |head| Written::Http2(Box::new(head)))
    }

    /// Whom it goes to.
    fn subsystem(&self) -> &Subsystem {
        self.copy_for.unwrap_or(&self.admitted.subsystem)
    }

    /// The head as HTTP/1.1, written out.
    fn to_http1(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_ROOM);
        let (method, target) = (self.request.method(), self.target());
        for piece in [method.as_str(), if target.starts_with('/') { " " } else { " /" }, &target] {
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

    /// The head as h2 takes it; nothing, if the target is none.
    fn to_http2(self) -> Option<Request<()>> {
        let subsystem = self.subsystem();
        let secure = subsystem.upstreams.iter().any(|server| server.secure);
        let target = self.target();
        let slash = if target.starts_with('/') { "" } else { "/" };
        let uri = Uri::builder()
            .scheme(if secure { "https" } else { "http" })
            .authority(self.admitted.host.as_bytes())
            .path_and_query(format!("{slash}{target}"));
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

    /// The target that the subsystem gets; its first '/' may be missing.
    fn target(&self) -> Cow<'_, str> {
        let target = self.request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        self.admitted.subsystem.target(&self.admitted.command, target)
    }

    /// The caller's own fields, as its command shapes them, then who calls, what, and as which request: what only the gateway may say.
    fn each_field(&self, mut put: impl FnMut(&HeaderName, &[u8])) {
        let Self { call, admitted, request, .. } = self;
        let edits = admitted.command.shape.as_ref().map(|shape| &shape.request);
        fields::towards_subsystem(request.headers(), |name, value| {
            let is_ours = *name == GRPC_TIMEOUT || is_replaced(request, name);
            if !is_ours && !edits.is_some_and(|edits| edits.takes(name)) {
                put(name, value);
            }
        });
        for (name, value) in edits.map_or(&[][..], |edits| edits.added()) {
            put(name, value.as_bytes());
        }
        if self.copy_for.is_some() {
            put(&MIRROR, b"1");
        }
        put(&DEPARTMENT, admitted.department.header.as_bytes());
        put(&COMMAND, admitted.command.header.as_bytes());
        if let Some(caller) = call.peer.caller() {
            put(&CALLER, caller.header().as_bytes());
        }
        put(&REQUEST_ID, &call.id.digits());
        if let Some(id) = of_caller(request.headers()) {
            tracing::debug!(request = %call.id.text(), callers = ?id, "its caller knows it by an id of its own");
            put(&CALLERS_REQUEST, id.as_bytes());
        }
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

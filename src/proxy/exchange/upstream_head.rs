//! The head of an upstream request: the path below the prefix, the caller's fields, and the proven identity.
//!
//! Guarantees:
//!
//! - The gateway alone writes the fields with the gateway's names.
//! - The host is the one that the caller named, or the one of `rewrite.host`. `X-Forwarded-Host` is always the former.
//! - A field that the caller sends under such a name, or nominates in `Connection`, is removed before the gateway
//!   writes its own fields (CVE-2024-45410).
//! - So is a field about a client certificate, on every listener, if any listener forwards certificates.
//!
//! Leaves to others: the removal of hop-by-hop fields (`message::header_rules`), the framing (`upstream`).

use std::borrow::Cow;

use http::header::CONTENT_LENGTH;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use hyper::body::Incoming;

use crate::identity::ForwardedCertificate;
use crate::policy::{Backend, FieldEdits, UpstreamProtocol};
use crate::proxy::message::field_line::{FORWARDED_FOR, put_header};
use crate::proxy::message::header_rules::{
    CLIENT_CERTIFICATE, CLIENT_ISSUER, CLIENT_SUBJECT, CLIENT_VERIFY, is_client_certificate_field,
};
use crate::proxy::message::request_id::{REQUEST_ID, TRACEPARENT, caller_request_id, continues_trace};
use crate::proxy::message::{grpc, header_rules};
use crate::proxy::upstream::{EncodedHead, RequestFraming};

use super::admit::Admitted;
use super::context::RequestContext;

/// The request id that the caller chose itself.
const CALLER_REQUEST_ID: HeaderName = HeaderName::from_static("x-tallygate-caller-request-id");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const DEPARTMENT_HEADER: HeaderName = HeaderName::from_static("x-tallygate-department");
const CALLER_HEADER: HeaderName = HeaderName::from_static("x-tallygate-caller");
const COMMAND_HEADER: HeaderName = HeaderName::from_static("x-tallygate-command");
const MIRROR_HEADER: HeaderName = HeaderName::from_static("x-tallygate-mirror");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Initial capacity for a usual head with the added fields; a larger head grows the buffer.
const HEAD_CAPACITY: usize = 1024;

/// A caller's request, to be encoded for a subsystem.
#[derive(Clone, Copy)]
pub(crate) struct UpstreamHead<'a> {
    pub(crate) context: &'a RequestContext,
    pub(crate) admitted: &'a Admitted,
    pub(crate) request: &'a Request<Incoming>,
    /// The framing of the forwarded body.
    pub(crate) framing: RequestFraming,
    /// The backend that the request is sent to.
    pub(crate) backend: &'a Backend,
    /// The edits of the caller's fields.
    pub(crate) edits: Option<&'a FieldEdits>,
    /// Whether this request is a shadow copy.
    pub(crate) is_copy: bool,
}

impl UpstreamHead<'_> {
    /// The head in the protocol of the backend.
    pub(crate) fn encode(self) -> EncodedHead {
        let http2 = (self.backend.protocol == UpstreamProtocol::Http2).then(|| self.to_http2()).flatten();
        http2.map_or_else(|| EncodedHead::Http1(self.to_http1().into()), |head| EncodedHead::Http2(Box::new(head)))
    }

    /// The head as HTTP/1.1 text.
    fn to_http1(self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_CAPACITY);
        let (method, target) = (self.request.method(), self.target());
        for piece in [method.as_str(), if target.starts_with('/') { " " } else { " /" }, &target] {
            head.extend_from_slice(piece.as_bytes());
        }
        head.extend_from_slice(b" HTTP/1.1\r\n");
        put_header(&mut head, "host", self.host().as_bytes());
        self.for_each_header(|name, value| put_header(&mut head, name.as_str(), value));
        if let Some(protocol) = &self.admitted.upgrade {
            put_header(&mut head, "connection", b"upgrade");
            put_header(&mut head, "upgrade", protocol.as_bytes());
            let asked = self.context.upgrade.as_ref();
            if asked.is_some_and(|asked| asked.is_extended_connect() && asked.is_websocket()) {
                put_header(&mut head, "sec-websocket-key", &self.context.request_id.websocket_key());
            }
        }
        self.framing.put_framing_header(&mut head, !rarely_has_body(method));
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The head for h2, or `None` if the target is not a valid URI.
    fn to_http2(self) -> Option<Request<()>> {
        let target = self.target();
        let slash = if target.starts_with('/') { "" } else { "/" };
        let uri = Uri::builder()
            .scheme(if self.backend.is_secure() { "https" } else { "http" })
            .authority(self.host().as_bytes())
            .path_and_query(format!("{slash}{target}"));
        let mut head = Request::new(());
        *head.method_mut() = self.request.method().clone();
        *head.uri_mut() = uri.build().ok()?;
        *head.version_mut() = Version::HTTP_2;
        self.for_each_header(|name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                head.headers_mut().append(name.clone(), value);
            }
        });
        if let RequestFraming::Length(length) = self.framing {
            head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Some(head)
    }

    /// The host for the subsystem: the requested one, unless the command rewrites it.
    fn host(&self) -> &HeaderValue {
        self.admitted.command.forwarded_host().unwrap_or(&self.admitted.host)
    }

    /// The request target for the subsystem. The leading '/' may be missing.
    fn target(&self) -> Cow<'_, str> {
        let target = self.request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        self.admitted.subsystem.forwarded_target(&self.admitted.command, target)
    }

    /// Visits the caller's fields as the command shapes them, then the fields that only the gateway may write: the
    /// identity of the caller, the command, and the request id.
    fn for_each_header(&self, mut put: impl FnMut(&HeaderName, &[u8])) {
        let Self { context, admitted, request, edits, .. } = *self;
        let upgrade = context.upgrade.as_ref();
        let forwards = context.config.snapshot.forwards_certificates;
        let has_reserved = header_rules::sanitize_request(request.headers(), |name, value| {
            let is_ours = *name == GRPC_TIMEOUT
                || (*name == TRACESTATE && !continues_trace(request.headers()))
                || upgrade.is_some_and(|upgrade| upgrade.replaces_header(name))
                || (forwards && is_client_certificate_field(name));
            if !is_ours && !edits.is_some_and(|edits| edits.overrides(name)) {
                put(name, value);
            }
        });
        let new_fields = edits.into_iter().flat_map(FieldEdits::new_fields);
        for (name, value) in new_fields.filter(|(name, _)| !(forwards && is_client_certificate_field(name))) {
            put(name, value.as_bytes());
        }
        if forwards && let Some(told) = context.peer.forwarded_certificate() {
            put_certificate(&told, &mut put);
        }
        if self.is_copy {
            put(&MIRROR_HEADER, b"1");
        }
        put(&DEPARTMENT_HEADER, admitted.department.header.as_bytes());
        put(&COMMAND_HEADER, admitted.command.header.as_bytes());
        if let Some(caller) = context.peer.caller() {
            put(&CALLER_HEADER, caller.header().as_bytes());
        }
        put(&REQUEST_ID, &context.request_id.to_hex());
        if has_reserved && let Some(id) = caller_request_id(request.headers()) {
            tracing::debug!(request = %context.request_id.to_text(), callers = ?id,
            "the client's own request id is forwarded");
            put(&CALLER_REQUEST_ID, id.as_bytes());
        }
        let traceparent = if has_reserved { request.headers().get(TRACEPARENT) } else { None };
        put(&TRACEPARENT, &context.request_id.traceparent(traceparent, context.is_trace_sampled));
        put(&FORWARDED_FOR, &context.peer.forwarded_for(request.headers()));
        put(&FORWARDED_PROTO, context.peer.scheme().as_bytes());
        put(&FORWARDED_HOST, admitted.host.as_bytes());
        if let Some(deadline) = admitted.deadline.filter(|_| context.grpc_timeout.is_some()) {
            put(&GRPC_TIMEOUT, grpc::format_timeout(deadline).as_bytes());
        }
    }
}

fn put_certificate(told: &ForwardedCertificate, put: &mut impl FnMut(&HeaderName, &[u8])) {
    let ForwardedCertificate { verdict, subject, issuer, certificate } = told;
    put(&CLIENT_VERIFY, verdict.as_bytes());
    for (name, value) in [(CLIENT_SUBJECT, subject), (CLIENT_ISSUER, issuer), (CLIENT_CERTIFICATE, certificate)] {
        if let Some(value) = value {
            put(&name, value.as_bytes());
        }
    }
}

/// Methods whose requests have no body unless a framing field announces one (RFC 9110 section 9.3).
fn rarely_has_body(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS)
}

//! The request of a caller to switch to another protocol, such as WebSocket, and so to get a tunnel.
//!
//! Over HTTP/1.1 it is a GET with `Upgrade` (RFC 9110 section 7.8), over HTTP/2 an extended CONNECT on one stream (RFC
//! 8441).
//!
//! Guarantees:
//!
//! - A request is examined once: [`UpgradeRequest::take`] finds everything that a later step needs to know.
//! - An extended CONNECT is matched, granted and forwarded as the equivalent GET of HTTP/1.1, and as nothing more.
//!
//! Leaves to others: a malformed one (`:protocol` beside another method, no `:path`) to h2; a plain CONNECT to
//! [`super::request_head`], which refuses it.

use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::header_list::list_items;

/// What a request says about the protocol that its caller asks to switch to.
#[derive(Debug)]
pub(crate) struct UpgradeRequest {
    protocol: Box<[u8]>,
    is_extended_connect: bool,
    /// See [`UpgradeRequest::requires_tunnel`].
    requires_tunnel: bool,
}

const WEBSOCKET: &[u8] = b"websocket";

impl UpgradeRequest {
    /// What a request asks for; `None` for nearly all requests. An extended CONNECT is rewritten to the equivalent GET
    /// of HTTP/1.1. Boxed, because the facts about every request are moved often.
    pub(crate) fn take<B>(request: &mut Request<B>) -> Option<Box<Self>> {
        match request.version() {
            Version::HTTP_2 => {
                let protocol = request.extensions().get::<Protocol>()?.as_ref().into();
                *request.method_mut() = Method::GET;
                Some(Box::new(Self { protocol, is_extended_connect: true, requires_tunnel: true }))
            }
            Version::HTTP_11 => Self::from_headers(request.method(), request.headers()).map(Box::new),
            _ => None,
        }
    }

    fn from_headers(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let asked = headers.get(UPGRADE)?;
        let mut named = headers.get_all(CONNECTION).iter().flat_map(list_items);
        if *method != Method::GET || !named.any(|word| word.eq_ignore_ascii_case(b"upgrade")) {
            return None;
        }
        let mut upgrade =
            Self { protocol: asked.as_bytes().into(), is_extended_connect: false, requires_tunnel: false };
        upgrade.requires_tunnel = upgrade.is_websocket()
            && headers.contains_key(SEC_WEBSOCKET_KEY)
            && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
        Some(upgrade)
    }

    /// Whether the caller asks for this protocol.
    pub(crate) fn is_to(&self, protocol: &HeaderValue) -> bool {
        self.protocol.eq_ignore_ascii_case(protocol.as_bytes())
    }

    /// Whether the caller asks for WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        self.protocol.eq_ignore_ascii_case(WEBSOCKET)
    }

    /// Whether the request is an extended CONNECT.
    pub(crate) fn is_extended_connect(&self) -> bool {
        self.is_extended_connect
    }

    /// Whether only a tunnel serves the caller: an extended CONNECT, or a WebSocket handshake (RFC 6455 section 4.1).
    ///
    /// A plain response to a handshake would hide that the gateway's configuration forbids the switch.
    pub(crate) fn requires_tunnel(&self) -> bool {
        self.requires_tunnel
    }

    /// Whether the gateway replaces a field of the request. An HTTP/2 caller needs no WebSocket key (RFC 8441 section
    /// 5); the upstream HTTP/1.1 handshake uses a key of the gateway.
    pub(crate) fn replaces_header(&self, name: &HeaderName) -> bool {
        self.is_extended_connect && *name == SEC_WEBSOCKET_KEY
    }

    /// The caller's stream, usable as a tunnel once the response has been sent. `None` over HTTP/1.1, where the whole
    /// connection becomes the tunnel.
    pub(crate) fn take_stream<B>(&self, request: &mut Request<B>) -> Option<OnUpgrade> {
        self.is_extended_connect.then(|| hyper::upgrade::on(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, version: Version, protocol: Option<&'static str>) -> Request<()> {
        let mut request = Request::builder().method(method).version(version).uri("https://h/live");
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from_static(protocol));
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn an_extended_connect_is_a_get_that_asks_for_its_protocol() {
        let mut asked = request(Method::CONNECT, Version::HTTP_2, Some("WebSocket"));
        let upgrade = UpgradeRequest::take(&mut asked).expect("an upgrade");
        assert_eq!((asked.method(), upgrade.is_extended_connect()), (&Method::GET, true));
        assert!(upgrade.is_to(&HeaderValue::from_static("websocket")) && upgrade.is_websocket());
        assert!(!upgrade.is_to(&HeaderValue::from_static("connect-udp")));
        assert!(upgrade.requires_tunnel());
        assert!(upgrade.take_stream(&mut asked).is_some());
    }

    #[test]
    fn a_plain_connect_stays_what_it_is() {
        let mut plain = request(Method::CONNECT, Version::HTTP_2, None);
        assert!(UpgradeRequest::take(&mut plain).is_none());
        assert_eq!(plain.method(), &Method::CONNECT);
    }

    #[test]
    fn over_http1_it_is_asked_for_by_a_get_with_connection_and_upgrade() {
        let upgrade = |method, version, connection, upgrade| {
            let mut asked = request(method, version, None);
            asked.headers_mut().insert(CONNECTION, HeaderValue::from_static(connection));
            asked.headers_mut().insert(UPGRADE, HeaderValue::from_static(upgrade));
            UpgradeRequest::take(&mut asked)
        };
        let asked = |method, version, connection, protocol| {
            upgrade(method, version, connection, protocol).is_some_and(|upgrade| upgrade.is_websocket())
        };
        assert!(asked(Method::GET, Version::HTTP_11, "keep-alive, Upgrade", "WebSocket"));
        assert!(!asked(Method::POST, Version::HTTP_11, "upgrade", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_10, "upgrade", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_2, "upgrade", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_11, "close", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_11, "upgrade", "h2c"));
        let plain = upgrade(Method::GET, Version::HTTP_11, "upgrade", "websocket").expect("an upgrade");
        assert!(!plain.is_extended_connect() && !plain.requires_tunnel(), "it is no handshake");
        assert!(plain.take_stream(&mut request(Method::GET, Version::HTTP_11, None)).is_none());
    }

    #[test]
    fn only_a_whole_websocket_handshake_requires_a_tunnel_over_http1() {
        for (protocol, key, version, requires) in [
            ("websocket", Some("a2V5"), Some("13"), true),
            ("websocket", None, Some("13"), false),
            ("websocket", Some("a2V5"), Some("8"), false),
            ("websocket", Some("a2V5"), None, false),
            ("h2c", Some("a2V5"), Some("13"), false),
        ] {
            let mut asked = request(Method::GET, Version::HTTP_11, None);
            let fields = [(UPGRADE, Some(protocol)), (SEC_WEBSOCKET_KEY, key), (SEC_WEBSOCKET_VERSION, version)];
            for (name, value) in fields.into_iter().chain([(CONNECTION, Some("upgrade"))]) {
                asked.headers_mut().extend(value.map(|value| (name, HeaderValue::from_static(value))));
            }
            let upgrade = UpgradeRequest::take(&mut asked).expect("an upgrade");
            assert_eq!(upgrade.requires_tunnel(), requires, "{protocol} {key:?} {version:?}");
        }
    }

    #[test]
    fn only_the_key_of_an_extended_connect_is_replaced() {
        let mut extended = request(Method::CONNECT, Version::HTTP_2, Some("websocket"));
        let extended = UpgradeRequest::take(&mut extended).expect("an upgrade");
        assert!(extended.replaces_header(&SEC_WEBSOCKET_KEY) && !extended.replaces_header(&UPGRADE));
        let fields = [(UPGRADE, "websocket"), (CONNECTION, "upgrade")];
        let fields = fields.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
        let handshake = UpgradeRequest::from_headers(&Method::GET, &fields).expect("an upgrade");
        assert!(!handshake.replaces_header(&SEC_WEBSOCKET_KEY));
    }
}

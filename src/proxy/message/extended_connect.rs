//! Extended CONNECT (RFC 8441): the request for a tunnel, such as a WebSocket, over one HTTP/2 stream.
//!
//! Guarantees: an extended CONNECT is matched, granted and forwarded as the equivalent GET of HTTP/1.1, and as nothing
//! more.
//!
//! Leaves to others: a malformed one (`:protocol` beside another method, no `:path`) to h2; a plain CONNECT to
//! [`super::request_head`], which refuses it.

use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Method, Request, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::header_list::list_items;

/// Rewrites an extended CONNECT to the equivalent GET of HTTP/1.1.
pub(crate) fn rewrite_to_get<B>(request: &mut Request<B>) {
    if is_extended_connect(request) {
        *request.method_mut() = Method::GET;
    }
}

/// Whether a request is an extended CONNECT.
pub(crate) fn is_extended_connect<B>(request: &Request<B>) -> bool {
    connect_protocol(request).is_some()
}

fn connect_protocol<B>(request: &Request<B>) -> Option<&Protocol> {
    request.extensions().get().filter(|_| request.version() == Version::HTTP_2)
}

/// Whether a request asks to switch to a protocol, over either version of HTTP.
pub(crate) fn is_upgrade_to<B>(request: &Request<B>, protocol: &HeaderValue) -> bool {
    let is_it = |asked: &[u8]| asked.eq_ignore_ascii_case(protocol.as_bytes());
    if let Some(asked) = connect_protocol(request) {
        return is_it(asked.as_ref());
    }
    let headers = request.headers();
    let is_nominated = || {
        let mut named = headers.get_all(CONNECTION).iter().flat_map(list_items);
        named.any(|word| word.eq_ignore_ascii_case(b"upgrade"))
    };
    headers.get(UPGRADE).is_some_and(|asked| is_it(asked.as_bytes()))
        && *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && is_nominated()
}

/// The caller's stream, usable as a tunnel once the response has been sent. `None` if the caller did not ask for a
/// tunnel.
pub(crate) fn take_upgraded_stream<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
    is_extended_connect(request).then(|| hyper::upgrade::on(request))
}

/// Whether the gateway replaces a field of the request. An HTTP/2 caller needs no WebSocket key (section 5); the
/// upstream HTTP/1.1 handshake uses a key of the gateway.
pub(crate) fn is_replaced_header<B>(request: &Request<B>, name: &HeaderName) -> bool {
    *name == SEC_WEBSOCKET_KEY && is_extended_connect(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

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
        rewrite_to_get(&mut asked);
        assert_eq!((asked.method(), is_extended_connect(&asked)), (&Method::GET, true));
        assert!(is_upgrade_to(&asked, &WEBSOCKET));
        assert!(!is_upgrade_to(&asked, &HeaderValue::from_static("connect-udp")));
        assert!(take_upgraded_stream(&mut asked).is_some());
    }

    #[test]
    fn a_plain_connect_stays_what_it_is() {
        let mut plain = request(Method::CONNECT, Version::HTTP_2, None);
        rewrite_to_get(&mut plain);
        assert_eq!((plain.method(), is_extended_connect(&plain)), (&Method::CONNECT, false));
        assert!(take_upgraded_stream(&mut plain).is_none());
    }

    #[test]
    fn over_http1_it_is_asked_for_by_a_get_with_connection_and_upgrade() {
        let asked = |method, version, connection, upgrade| {
            let mut asked = request(method, version, None);
            asked.headers_mut().insert(CONNECTION, HeaderValue::from_static(connection));
            asked.headers_mut().insert(UPGRADE, HeaderValue::from_static(upgrade));
            is_upgrade_to(&asked, &WEBSOCKET)
        };
        assert!(asked(Method::GET, Version::HTTP_11, "keep-alive, Upgrade", "WebSocket"));
        assert!(!asked(Method::POST, Version::HTTP_11, "upgrade", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_10, "upgrade", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_2, "upgrade", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_11, "close", "websocket"));
        assert!(!asked(Method::GET, Version::HTTP_11, "upgrade", "h2c"));
    }

    #[test]
    fn only_the_key_of_an_extended_connect_is_replaced() {
        let extended = request(Method::CONNECT, Version::HTTP_2, Some("websocket"));
        assert!(is_replaced_header(&extended, &SEC_WEBSOCKET_KEY) && !is_replaced_header(&extended, &UPGRADE));
        assert!(!is_replaced_header(&request(Method::GET, Version::HTTP_11, None), &SEC_WEBSOCKET_KEY));
    }
}

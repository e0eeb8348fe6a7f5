//! A client of the admin listener of one gateway: plain HTTP/1.1, one connection for each request.
//!
//! Guarantees: a request takes at most [`REQUEST_TIME`], its answer at most [`ANSWER_BYTES_MAX`]. An error says what
//! was asked, why there is no answer, and what to do.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::prometheus::excerpt;

/// The longest time of a request, from the connection to the end of its answer.
pub(super) const REQUEST_TIME: Duration = Duration::from_secs(5);
/// The most bytes of an answer: the metrics of a province have 40 MiB.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// A gateway gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
#[error("GET {url}: {what}")]
pub(super) struct AdminError {
    url: String,
    what: AdminFault,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminFault {
    #[error("no connection: {0}; is the gateway running, and is --admin the address of its admin listener?")]
    Unreachable(String),
    #[error("no answer within {} seconds; the gateway hangs, is overloaded, or something else listens there", .0.as_secs())]
    Slow(Duration),
    #[error("the answer is not HTTP, or it ended early: {0}; is --admin the address of its admin listener?")]
    Broken(String),
    #[error("the answer is larger than {0} MiB; lower capacity.series")]
    TooLarge(usize),
    #[error("status {0}: {1}")]
    Refused(u16, String),
    #[error("the answer is not that of a gateway ({0}); is --admin the address of its admin listener?")]
    Foreign(String),
}

/// The text is not the URL of an admin listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--admin is not the URL of an admin listener: {0}; write http://127.0.0.1:9090")]
pub(super) struct BadAdminUrl(&'static str);

/// The answer to a request: 200, or another status that the caller asked for.
#[derive(Debug)]
pub(super) struct AdminAnswer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl AdminAnswer {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client of an admin listener.
#[derive(Clone, Debug)]
pub(super) struct AdminClient {
    /// Host and port, as in the field `Host`.
    authority: String,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// A path prefix, for a proxy in front of the listener; without the slash at its end.
    prefix: String,
    request_time: Duration,
    bytes_max: usize,
}

impl AdminClient {
    /// Parses the URL of an admin listener; `http://` may be left out.
    pub(super) fn parse(text: &str) -> Result<Self, BadAdminUrl> {
        if text.starts_with("https://") {
            return Err(BadAdminUrl("the admin listener has no TLS"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        if rest.contains("://") {
            return Err(BadAdminUrl("it does not begin with http://"));
        }
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| BadAdminUrl("it cannot be read"))?;
        let authority = uri.authority().ok_or(BadAdminUrl("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(BadAdminUrl("it has a user, which the admin listener does not ask for"));
        }
        if uri.query().is_some() {
            return Err(BadAdminUrl("it has a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(BadAdminUrl("it has no host"));
        }
        Ok(Self {
            authority: authority.to_string(),
            host,
            port: authority.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            request_time: REQUEST_TIME,
            bytes_max: ANSWER_BYTES_MAX,
        })
    }

    /// Host and port, for people.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// An error about the answer of a path.
    pub(super) fn error(&self, path: &str, what: AdminFault) -> AdminError {
        AdminError { url: format!("http://{}{}{path}", self.authority, self.prefix), what }
    }

    /// The answer of a path with status 200, or `other`.
    pub(super) async fn get(&self, path: &str, other: Option<StatusCode>) -> Result<AdminAnswer, AdminError> {
        let answered = match tokio::time::timeout(self.request_time, self.answer(path)).await {
            Ok(answered) => answered,
            Err(_) => Err(AdminFault::Slow(self.request_time)),
        };
        let answer = answered.map_err(|what| self.error(path, what))?;
        if answer.status == StatusCode::OK || Some(answer.status) == other {
            return Ok(answer);
        }
        Err(self.error(path, AdminFault::Refused(answer.status.as_u16(), refusal(&answer.body))))
    }

    async fn answer(&self, path: &str) -> Result<AdminAnswer, AdminFault> {
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = TokioIo::new(connected.map_err(|error| AdminFault::Unreachable(error.to_string()))?);
        let broken = |error: hyper::Error| AdminFault::Broken(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("{}{path}", self.prefix))
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("tallygate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|error| AdminFault::Unreachable(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, self.bytes_max).collect().await;
        connection.abort();
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => AdminFault::TooLarge(self.bytes_max >> 20),
            false => AdminFault::Broken(error.to_string()),
        })?;
        Ok(AdminAnswer { status: head.status, body: body.to_bytes() })
    }
}

/// What a refusal says: the detail of a problem document (RFC 9457), or its beginning.
fn refusal(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match document.as_ref().and_then(|document| document["detail"].as_str()) {
        Some(detail) => excerpt(detail),
        None => format!("{}; is --admin the address of the admin listener?", excerpt(&String::from_utf8_lossy(body))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives one client this answer, or none for as long as the client stays.
    async fn served(answer: Option<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut part = [0; 4096];
            let _ = stream.read(&mut part).await;
            match answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => while stream.read(&mut part).await.is_ok_and(|read| read > 0) {},
            }
        });
        address
    }

    #[test]
    fn url_is_an_address_of_plain_http() {
        for (text, authority, host, port, prefix) in [
            ("127.0.0.1:9090", "127.0.0.1:9090", "127.0.0.1", 9090, ""),
            ("http://gate.example/", "gate.example", "gate.example", 80, ""),
            ("http://[::1]:9090/gate/", "[::1]:9090", "::1", 9090, "/gate"),
        ] {
            let client = AdminClient::parse(text).expect(text);
            let found = (client.authority.as_str(), client.host.as_str(), client.port, client.prefix.as_str());
            assert_eq!(found, (authority, host, port, prefix));
        }
        for (text, reason) in [
            ("https://gate:9090", "no TLS"),
            ("http://me:secret@gate:9090", "it has a user"),
            ("http://gate:9090/?a=b", "it has a query"),
            ("", "it cannot be read"),
            ("ftp://gate", "it does not begin with http://"),
        ] {
            let error = AdminClient::parse(text).expect_err(text).to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn listener_that_gives_no_answer_is_described() {
        let problem = "HTTP/1.1 421 Misdirected Request\r\n\r\n{\"detail\":\"host evil is not served\"}";
        for (given, expected) in [
            (None, "no answer within 1 seconds; the gateway hangs"),
            (Some("hello\r\n\r\n".to_owned()), "the answer is not HTTP, or it ended early"),
            (Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()), "it ended early"),
            (Some(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 << 20))), "the answer is larger than 1 MiB"),
            (Some(problem.to_owned()), "status 421: host evil is not served"),
            (Some("HTTP/1.1 302 Found\r\n\r\n<html>".to_owned()), "status 302: <html>; is --admin the address"),
        ] {
            let client = AdminClient::parse(&served(given).await.to_string()).expect("an address");
            let client = AdminClient { request_time: Duration::from_secs(1), bytes_max: 1 << 20, ..client };
            let error = client.get("/metrics", None).await.expect_err(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(error.starts_with(&format!("GET http://{}/metrics: ", client.authority)), "{error}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let client = AdminClient::parse(&closed.to_string()).expect("an address");
        let error = client.get("/metrics", None).await.expect_err("no server").to_string();
        assert!(error.contains("no connection: Connection refused"), "{error}");
    }
}

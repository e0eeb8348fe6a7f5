//! Callers: real TLS connections with real client certificates, over HTTP/1.1 and HTTP/2, and a log of requests and
//! responses. The log is one of the four books that `World::close` compares.

use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fragmenting_stream::FragmentingStream;
use super::pki::{GATEWAY, Identity};
use super::processes::within;

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The end of one request, as its caller saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A whole response, with the outcome that its ledger row must have.
    Outcome(&'static str),
    /// No response, half a response, or a response without a certain outcome: the ledger must hold it once, under any
    /// outcome.
    Open,
}

/// One line of the callers' log.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The department to be billed.
    pub department: String,
    #[expect(dead_code, reason = "read in the Debug form, when the books differ")]
    pub line: String,
    pub seen: Seen,
    /// The bytes of the request body, if they were known from the start.
    pub request_bytes: Option<u64>,
    /// The bytes of a response that came from the subsystem.
    pub response_bytes: u64,
}

/// The append-only log of all callers of a world.
#[derive(Clone, Debug, Default)]
pub struct CallerLog(Arc<Mutex<Vec<Sent>>>);

impl CallerLog {
    /// Returns all entries.
    pub fn all(&self) -> Vec<Sent> {
        self.0.lock().unwrap().clone()
    }

    /// Records the result of a foreign caller (curl, openssl).
    pub fn note(&self, department: &str, seen: Seen) {
        self.0.lock().unwrap().push(Sent {
            department: department.into(),
            line: "noted".into(),
            seen,
            request_bytes: None,
            response_bytes: 0,
        });
    }

    fn open(&self, department: &str, request: &Request<Body>) -> Entry {
        let mut log = self.0.lock().unwrap();
        log.push(Sent {
            department: department.into(),
            line: format!("{} {}", request.method(), request.uri()),
            seen: Seen::Open,
            // A body behind `Expect: 100-continue` may never be sent.
            request_bytes: request.body().size_hint().exact().filter(|_| !request.headers().contains_key("expect")),
            response_bytes: 0,
        });
        Entry { log: self.clone(), position: log.len() - 1 }
    }
}

/// A log entry that is still open. If it is dropped unchanged, it stays [`Seen::Open`].
#[derive(Debug)]
struct Entry {
    log: CallerLog,
    position: usize,
}

impl Entry {
    fn close(self, reply: &Reply, whole_request: bool) {
        let sent = &mut self.log.0.lock().unwrap()[self.position];
        let outcome = reply.outcome();
        if reply.problem().is_none() {
            sent.response_bytes = reply.unpacked().len() as u64; // the bytes that the subsystem sent
        }
        if outcome == "unauthenticated" {
            sent.department = "unknown".into();
        }
        if reply.header("x-request-id").is_empty() {
            return; // counted nowhere: the head could not be parsed
        }
        if outcome == "too_large" && !whole_request {
            return; // found while the command was forwarded: settled as aborted
        }
        sent.seen = Seen::Outcome(outcome);
    }
}

/// A caller: one certificate, one protocol, and one connection (further connections while that one is busy).
#[derive(Debug)]
pub struct Client {
    department: String,
    config: Arc<ClientConfig>,
    gateway: SocketAddr,
    server_name: ServerName<'static>,
    crumbs: bool,
    http2: bool,
    log: CallerLog,
    idle: Mutex<Option<Sender>>,
}

/// The parts of a client.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub root: rustls::pki_types::CertificateDer<'static>,
    pub identity: Option<Identity>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// A response whose body is incomplete. Dropping it closes the request, as a caller that leaves.
#[derive(Debug)]
pub struct Stream {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    entry: Option<Entry>,
    whole_request: bool,
    keep: Option<Sender>,
    seen: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// The reason for a missing response.
#[derive(Debug)]
pub enum Failure {
    /// No connection: the handshake or the dial failed. Nothing was sent.
    NoConnection(io::Error),
    /// The connection broke before the head of a response.
    Broken(hyper::Error),
}

impl Client {
    /// Returns a caller of `gateway` whose commands are billed to `department`.
    pub fn new(department: &str, credentials: &Credentials, gateway: SocketAddr, log: &CallerLog) -> Self {
        Self {
            department: department.into(),
            config: client_config(credentials),
            gateway,
            server_name: ServerName::try_from(GATEWAY).unwrap(),
            crumbs: false,
            http2: false,
            log: log.clone(),
            idle: Mutex::new(None),
        }
    }

    /// Returns a caller with a TLS configuration made by the test.
    pub fn with_config(department: &str, config: ClientConfig, gateway: SocketAddr, log: &CallerLog) -> Self {
        Self {
            department: department.into(),
            config: Arc::new(config),
            gateway,
            server_name: ServerName::try_from(GATEWAY).unwrap(),
            crumbs: false,
            http2: false,
            log: log.clone(),
            idle: Mutex::new(None),
        }
    }

    /// Uses HTTP/2.
    pub fn h2(mut self) -> Self {
        self.http2 = true;
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        self
    }

    /// Sends the first flight byte by byte.
    pub fn in_crumbs(mut self) -> Self {
        self.crumbs = true;
        self
    }

    /// Sends another server name (SNI) in the handshake, or none. Accepts any certificate.
    pub fn naming(mut self, server_name: Option<&str>) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.enable_sni = server_name.is_some();
        config.dangerous().set_certificate_verifier(Arc::new(super::accept_any_cert::AcceptAnyCert));
        if let Some(name) = server_name {
            self.server_name = ServerName::try_from(name.to_owned()).unwrap();
        }
        self
    }

    /// Sends a GET, and returns the whole response.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(request("GET", path, empty())).await
    }

    /// Sends a POST, and returns the whole response.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(request("POST", path, whole(body))).await
    }

    /// Sends a request. Fails the test if there is no whole response.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let line = format!("{} {}", request.method(), request.uri());
        self.try_send(request).await.unwrap_or_else(|failure| panic!("{line} got no answer: {failure}"))
    }

    /// Sends a request, and returns the whole response or the failure.
    pub async fn try_send(&self, request: Request<Body>) -> Result<Reply, Failure> {
        let mut stream = self.open(request).await?;
        let whole = super::processes::within("the whole answer", stream.read_to_end()).await;
        whole.map_err(Failure::Broken)?;
        let (reply, keep) = stream.finish();
        *self.idle.lock().unwrap() = keep;
        Ok(reply)
    }

    /// Sends a request and waits for the head of its response.
    pub async fn open(&self, request: Request<Body>) -> Result<Stream, Failure> {
        let mut sender = self.sender().await.map_err(Failure::NoConnection)?;
        let whole_request = request.body().size_hint().exact().is_some();
        let entry = self.log.open(&self.department, &request);
        let answer = super::processes::within("the head of the answer", sender.send(request)).await;
        let (head, body) = answer.map_err(Failure::Broken)?.into_parts();
        Ok(Stream {
            status: head.status,
            headers: head.headers,
            body,
            entry: Some(entry),
            whole_request,
            keep: Some(sender),
            seen: Vec::new(),
            trailers: None,
        })
    }

    /// Sends an extended CONNECT (RFC 8441) over a connection that has received the gateway's settings. Returns the
    /// stream of the tunnel.
    pub async fn tunnel(&self, path: &str) -> (http::response::Parts, TokioIo<Upgraded>) {
        let mut sender = self.sender().await.unwrap();
        let mut request = request("CONNECT", path, empty());
        request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        let entry = self.log.open(&self.department, &request);
        let mut answer = within("the head of the answer", sender.send(request)).await.unwrap();
        let stream = hyper::upgrade::on(&mut answer).await.unwrap();
        drop(entry); // the owner of the stream sees the end
        (answer.into_parts().0, TokioIo::new(stream))
    }

    async fn sender(&self) -> io::Result<Sender> {
        let idle = self.idle.lock().unwrap().take();
        if let Some(mut sender) = idle {
            if let Sender::Http2(shared) = &sender {
                *self.idle.lock().unwrap() = Some(Sender::Http2(shared.clone()));
            }
            if sender.ready().await {
                return Ok(sender);
            }
        }
        let sender = self.dial().await?;
        if let Sender::Http2(shared) = &sender {
            *self.idle.lock().unwrap() = Some(Sender::Http2(shared.clone()));
        }
        Ok(sender)
    }

    async fn dial(&self) -> io::Result<Sender> {
        let stream = TokioIo::new(self.connect().await?);
        if self.http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }

    /// Opens a bare TLS connection, for malformed requests.
    pub async fn connect(&self) -> io::Result<TlsStream<FragmentingStream>> {
        let stream = TcpStream::connect(self.gateway).await?;
        stream.set_nodelay(true)?;
        self.connect_over(if self.crumbs {
            FragmentingStream::fragmented(stream)
        } else {
            FragmentingStream::unfragmented(stream)
        })
        .await
    }

    /// Opens a bare TLS connection over a transport made by the test.
    pub async fn connect_over<S: AsyncRead + AsyncWrite + Unpin>(&self, way: S) -> io::Result<TlsStream<S>> {
        TlsConnector::from(Arc::clone(&self.config)).connect(self.server_name.clone(), way).await
    }
}

/// Sends a GET as raw bytes, as the last request of the connection. Returns the whole response.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

impl Sender {
    async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(in_origin_form(request)).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }

    async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

/// Rewrites a request for HTTP/1.1: the path in the first line, the authority in `Host` (RFC 9112 section 3.2.1).
fn in_origin_form(mut request: Request<Body>) -> Request<Body> {
    if let Some(authority) = request.uri().authority().map(ToString::to_string)
        && !request.headers().contains_key("host")
    {
        request.headers_mut().insert("host", authority.parse().unwrap());
    }
    if let Some(target) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = target.into();
    }
    request
}

impl Stream {
    /// Returns the next piece of the body, or `None` at the end.
    pub async fn next(&mut self) -> Option<hyper::Result<Bytes>> {
        let frame = super::processes::within("a piece of the answer", self.body.frame()).await?;
        Some(frame.map(|frame| match frame.into_data() {
            Ok(data) => {
                self.seen.extend_from_slice(&data);
                data
            }
            Err(frame) => {
                self.trailers = frame.into_trailers().ok();
                Bytes::new()
            }
        }))
    }

    /// Reads the rest of the body.
    pub async fn read_to_end(&mut self) -> hyper::Result<()> {
        while let Some(piece) = self.next().await {
            piece?;
        }
        Ok(())
    }

    /// Reads the whole response.
    pub async fn whole(mut self) -> Reply {
        self.read_to_end().await.expect("the response is complete");
        self.finish().0
    }

    /// Reads a subsystem's whole response, discards it, and returns its length.
    pub async fn drained(mut self) -> u64 {
        let mut length = 0;
        while let Some(piece) = self.next().await {
            length += piece.expect("the response is complete").len() as u64;
            self.seen.clear();
        }
        if let Some(entry) = self.entry.take() {
            let mut log = entry.log.0.lock().unwrap();
            let sent = &mut log[entry.position];
            (sent.seen, sent.response_bytes) = (Seen::Outcome("ok"), length);
        }
        length
    }

    fn finish(mut self) -> (Reply, Option<Sender>) {
        let reply = Reply {
            status: self.status,
            headers: std::mem::take(&mut self.headers),
            body: std::mem::take(&mut self.seen).into(),
            trailers: self.trailers.take(),
        };
        if let Some(entry) = self.entry.take() {
            entry.close(&reply, self.whole_request);
        }
        (reply, self.keep.take())
    }
}

impl Reply {
    /// Returns the name of the problem, if the gateway itself responded.
    pub fn problem(&self) -> Option<String> {
        if self.header("content-type") == "application/grpc" && self.body.is_empty() {
            return self.header("grpc-message").split_once(':').map(|(name, _)| name.to_owned());
        }
        if self.header("content-type") != "application/problem+json" {
            return None;
        }
        let kind = self.json()["type"].as_str()?.strip_prefix("urn:tallygate:problem:")?.to_owned();
        Some(kind)
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body without its compression.
    pub fn unpacked(&self) -> Bytes {
        if self.header("content-encoding") != "gzip" {
            return self.body.clone();
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain).expect("a whole gzip stream");
        plain.into()
    }

    /// Returns a header as text; empty if the header is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Returns the outcome of this response.
    fn outcome(&self) -> &'static str {
        if let Some(problem) = self.problem() {
            let known = tallygate::model::Outcome::all().map(tallygate::model::Outcome::name);
            return known.into_iter().find(|name| *name == problem).expect("a problem has the name of an outcome");
        }
        match self.status.as_u16() {
            500.. => "server_error",
            400.. => "client_error",
            _ => "ok",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoConnection(error) => write!(f, "no connection: {error}"),
            Self::Broken(error) => write!(f, "broken: {error:?}"),
        }
    }
}

fn client_config(credentials: &Credentials) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(credentials.root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&credentials.versions).unwrap().with_root_certificates(roots);
    let mut config = match &credentials.identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Returns a request with the gateway's own host name.
pub fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    request_to(GATEWAY, method, path, body)
}

/// Returns a request with another authority.
pub fn request_to(authority: &str, method: &str, path: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri(format!("https://{authority}{path}")).body(body).unwrap()
}

/// Returns an empty body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body of known length.
pub fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body that the test sends piece by piece. It ends when the sender is dropped, and breaks off at an error.
pub fn fed() -> (mpsc::UnboundedSender<io::Result<Bytes>>, Body) {
    let (feed, mut fed) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let frames = futures_util::stream::poll_fn(move |context| fed.poll_recv(context).map_ok(Frame::data));
    (feed, StreamBody::new(frames).boxed_unsync())
}

//! Subsystems: real HTTP servers (HTTP/1.1, and HTTP/2 by prior knowledge) that follow the script in the path and log
//! the requests they receive.
//!
//! A path that ends in `do/SCRIPT` is a script:
//! - `status-503`; `enough-429` (with Retry-After)
//! - `bytes-4096`; `chunks-8`; `crumbs-8` (of 16 bytes)
//! - `unread`: responds without reading the body
//! - `break-512`: breaks off after 512 bytes
//! - `cut`: closes instead of responding
//! - `never`: sends no response
//! - `wait-NAME`: responds after `release(NAME)`
//! - `hold-NAME`: sends half of the response, and the rest after `release(NAME)`
//! - `echo`; `trailers`; `events-3`; `reply-headers`
//! - `last`: closes the connection after the response
//!
//! Health checks, which are recognized by their User-Agent, have a log of their own. They get 503 while the server is
//! unhealthy. Every other path gets 200 and a short text.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};

use super::processes::reserve_address;

/// The body of a response.
type ServerResponse = UnsyncBoxBody<Bytes, io::Error>;

/// The log entry of one request.
#[derive(Clone, Debug)]
pub struct Received {
    pub connection: u64,
    pub method: String,
    pub path: String,
    /// `:authority`, or over HTTP/1.1 `Host`.
    pub host: String,
    pub headers: HeaderMap,
    pub body: Arc<BodyLog>,
    /// Whether the request was dropped before its response was ready or its body was read.
    pub cancelled: Arc<AtomicBool>,
}

/// The received part of a request body.
#[derive(Debug, Default)]
pub struct BodyLog {
    pub bytes: AtomicU64,
    pub complete: AtomicBool,
    pub trailers: Mutex<Option<HeaderMap>>,
}

impl Received {
    /// Returns a header as text; empty if the header is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Returns the department that the gateway named.
    pub fn department(&self) -> &str {
        self.header("x-tallygate-department")
    }

    /// Returns the subsystem and command that the gateway named.
    pub fn command(&self) -> &str {
        self.header("x-tallygate-command")
    }

    /// Returns whether the request is a mirrored copy of a command.
    pub fn is_copy(&self) -> bool {
        !self.header("x-tallygate-mirror").is_empty()
    }

    /// Returns the number of body bytes that have arrived.
    pub fn bytes(&self) -> u64 {
        self.body.bytes.load(Ordering::Acquire)
    }
}

/// The append-only log of one server.
#[derive(Clone, Debug, Default)]
pub struct SubsystemLog(Arc<Mutex<Vec<Received>>>);

impl SubsystemLog {
    /// Returns all entries.
    pub fn all(&self) -> Vec<Received> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the only entry.
    pub fn only(&self) -> Received {
        let all = self.all();
        assert_eq!(all.len(), 1, "exactly one request was expected: {all:#?}");
        all.into_iter().next().unwrap()
    }

    /// Returns the number of connections that have carried a request.
    pub fn connections(&self) -> usize {
        self.all().iter().map(|received| received.connection).collect::<HashSet<_>>().len()
    }

    fn append(&self, received: Received) {
        self.0.lock().unwrap().push(received);
    }
}

/// One server of a subsystem. Dropping it ends the server.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub log: SubsystemLog,
    /// The log of health checks.
    pub checks: SubsystemLog,
    unhealthy: Arc<AtomicBool>,
    releases: watch::Sender<HashSet<String>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a thread of its own, at a reserved address: after the end of the server nothing listens there,
    /// until the test starts another one.
    pub fn start() -> Self {
        Self::start_at(reserve_address())
    }

    /// Starts a server at a given address.
    pub fn start_at(address: SocketAddr) -> Self {
        let (log, checks, unhealthy) = (SubsystemLog::default(), SubsystemLog::default(), Arc::<AtomicBool>::default());
        let (releases, released) = watch::channel(HashSet::new());
        let (stop, stopped) = oneshot::channel();
        let (bound, ready) = std::sync::mpsc::channel();
        let town = Town { log: log.clone(), checks: checks.clone(), unhealthy: Arc::clone(&unhealthy), released };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = listen(address);
                bound.send(()).unwrap();
                tokio::select! { () = town.serve(listener) => {}, _ = stopped => {} }
            });
        });
        ready.recv().unwrap();
        Self { address, log, checks, unhealthy, releases, stop: Some(stop), thread: Some(thread) }
    }

    /// Sets whether the server fails its health checks.
    pub fn set_unhealthy(&self, unhealthy: bool) {
        self.unhealthy.store(unhealthy, Ordering::Release);
    }

    /// Releases the scripts that wait for `name`.
    pub fn release(&self, name: &str) {
        self.releases.send_modify(|names| {
            names.insert(name.to_owned());
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its panic has been printed; the audit finds the missing log entries
        }
    }
}

/// The size of the kernel's send buffer of a connection, in bytes. With larger buffers, a thousand responses that are
/// not read would use up the kernel's memory for TCP (`tcp_mem`), and the kernel would then end other connections of
/// the machine.
const SEND_BUFFER: u32 = 64 * 1024;

/// Returns a subsystem's listener.
pub fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SEND_BUFFER).unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(256).unwrap()
}

/// The state that the connections of a server share.
#[derive(Clone)]
struct Town {
    log: SubsystemLog,
    checks: SubsystemLog,
    unhealthy: Arc<AtomicBool>,
    released: watch::Receiver<HashSet<String>>,
}

impl Town {
    async fn serve(self, listener: TcpListener) {
        let mut connections = 0;
        while let Ok((stream, _)) = listener.accept().await {
            connections += 1;
            tokio::spawn(self.clone().connection(stream, connections));
        }
    }

    async fn connection(self, stream: TcpStream, connection: u64) {
        let _ = stream.set_nodelay(true);
        let mut opening = [0; 3];
        let service = service_fn(move |request| self.clone().command(connection, request));
        let is_http2 = stream.peek(&mut opening).await.is_ok_and(|_| opening.starts_with(b"PRI"));
        let stream = TokioIo::new(stream);
        let _ = match is_http2 {
            true => http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await,
            false => http1::Builder::new().serve_connection(stream, service).await,
        };
    }

    async fn command(self, connection: u64, request: Request<Incoming>) -> Result<Response<ServerResponse>, io::Error> {
        let (head, body) = request.into_parts();
        let field = head.headers.get("host").and_then(|host| host.to_str().ok());
        let received = Received {
            connection,
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned(),
            host: head.uri.authority().map(Authority::as_str).or(field).unwrap_or_default().to_owned(),
            headers: head.headers,
            body: Arc::default(),
            cancelled: Arc::default(),
        };
        if received.header("user-agent").starts_with("tallygate-health/") {
            self.checks.append(received);
            let status = if self.unhealthy.load(Ordering::Acquire) { 503 } else { 200 };
            let mut answer = whole("checked");
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            return Ok(answer);
        }
        self.log.append(received.clone());
        let guard = Cancelled(Some(Arc::clone(&received.cancelled)));
        let path = received.path.split('?').next().unwrap_or_default().to_owned();
        let script = path.rsplit_once("/do/").map_or("", |(_, script)| script);
        let (verb, argument) = script.split_once('-').unwrap_or((script, ""));
        let answer = self.perform(verb, argument, (body, &received)).await;
        guard.done();
        answer
    }

    async fn perform(
        mut self,
        verb: &str,
        argument: &str,
        (body, received): (Incoming, &Received),
    ) -> Result<Response<ServerResponse>, io::Error> {
        let log = Arc::clone(&received.body);
        match verb {
            "echo" => return Ok(Response::new(watched(body, log).boxed_unsync())),
            "never" => std::future::pending().await,
            "unread" => return Ok(whole("unread")),
            "cut" => return Err(io::Error::other("cut, as told")),
            _ => read_all(body, log).await,
        }
        let number = || argument.parse::<usize>().unwrap();
        Ok(match verb {
            "status" => {
                let mut answer = whole("as told");
                *answer.status_mut() = StatusCode::from_u16(argument.parse().unwrap()).unwrap();
                answer
            }
            "enough" => {
                let mut answer = with_header(whole("enough"), "retry-after", "7");
                *answer.status_mut() = StatusCode::from_u16(argument.parse().unwrap()).unwrap();
                answer
            }
            "bytes" => Response::new(Full::new(vec![b'x'; number()].into()).map_err(never).boxed_unsync()),
            "chunks" => stream(futures_util::stream::iter(0..number()).map(|_| data(vec![b'y'; 1024]))),
            "crumbs" => stream(futures_util::stream::iter(0..number()).map(|_| data(vec![b'z'; 16]))),
            "events" => events(number()),
            "break" => broken(number()),
            "trailers" => trailers(),
            "wait" => {
                self.wait_for(argument).await;
                whole("waited")
            }
            "hold" => self.hold(argument.to_owned()),
            "last" => with_header(whole("last"), "connection", "close"),
            "reply" => reply_headers(),
            _ => whole(&format!("{} {}", received.method, received.path)),
        })
    }

    /// Sends half of the response now, and the other half after the release.
    fn hold(mut self, name: String) -> Response<ServerResponse> {
        let rest = futures_util::stream::once(async move {
            self.wait_for(&name).await;
            data("last".into())
        });
        stream(futures_util::stream::iter([data("first ".into())]).chain(rest))
    }

    async fn wait_for(&mut self, name: &str) {
        let _ = self.released.wait_for(|names| names.contains(name)).await;
    }
}

/// Records in the log that a request was dropped before it was done.
struct Cancelled(Option<Arc<AtomicBool>>);

impl Cancelled {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(cancelled) = &self.0 {
            cancelled.store(true, Ordering::Release);
        }
    }
}

/// Counts the bytes of a body as they pass.
fn watched(body: Incoming, log: Arc<BodyLog>) -> impl hyper::body::Body<Data = Bytes, Error = io::Error> {
    let ended = Arc::clone(&log);
    let frames = futures_util::stream::try_unfold(body, move |mut body| {
        let ended = Arc::clone(&ended);
        async move {
            match body.frame().await {
                Some(frame) => Ok(Some((frame.map_err(io::Error::other)?, body))),
                None => {
                    ended.complete.store(true, Ordering::Release);
                    Ok(None)
                }
            }
        }
    });
    StreamBody::new(frames).map_frame(move |frame: Frame<Bytes>| {
        if let Some(data) = frame.data_ref() {
            log.bytes.fetch_add(data.len() as u64, Ordering::AcqRel);
        }
        if let Some(trailers) = frame.trailers_ref() {
            *log.trailers.lock().unwrap() = Some(trailers.clone());
        }
        frame
    })
}

async fn read_all(body: Incoming, log: Arc<BodyLog>) {
    let mut body = std::pin::pin!(watched(body, log));
    while let Some(Ok(_)) = body.frame().await {}
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

fn data(bytes: Vec<u8>) -> io::Result<Frame<Bytes>> {
    Ok(Frame::data(bytes.into()))
}

fn stream(
    frames: impl futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
) -> Response<ServerResponse> {
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn whole(text: &str) -> Response<ServerResponse> {
    Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(never).boxed_unsync())
}

fn with_header(
    mut answer: Response<ServerResponse>,
    name: &'static str,
    value: &'static str,
) -> Response<ServerResponse> {
    answer.headers_mut().append(name, HeaderValue::from_static(value));
    answer
}

/// A body that announces twice as many bytes as it sends.
fn broken(bytes: usize) -> Response<ServerResponse> {
    let frames = [data(vec![b'z'; bytes]), Err(io::Error::other("broken, as told"))];
    let mut answer = stream(futures_util::stream::iter(frames).then(|frame| async {
        tokio::task::yield_now().await; // hyper flushes its buffer before it polls the error
        frame
    }));
    answer.headers_mut().insert("content-length", HeaderValue::from(bytes * 2));
    answer
}

fn events(count: usize) -> Response<ServerResponse> {
    let events = futures_util::stream::iter(0..count).map(|n| data(format!("data: {n}\n\n").into()));
    with_header(stream(events), "content-type", "text/event-stream")
}

fn trailers() -> Response<ServerResponse> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("42"));
    let frames = [data("body".into()), Ok(Frame::trailers(trailers))];
    with_header(stream(futures_util::stream::iter(frames)), "trailer", "x-checksum")
}

/// Sends a hop-by-hop header beside an end-to-end header.
fn reply_headers() -> Response<ServerResponse> {
    let mut answer = whole("headers");
    for (name, value) in [("keep-alive", "timeout=5"), ("proxy-authenticate", "Basic"), ("x-kept", "yes")] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

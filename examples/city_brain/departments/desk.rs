//! A department's client: one mTLS connection to the gateway, and a count of the responses on it.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::city::{Command, Counts, Line};
use crate::pki::{GATEWAY_NAME, Pki};

/// The HTTP version of a department's software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Counts of the responses to the departments, by department and command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    /// Responses from a subsystem, or from the gateway in its place after admission.
    pub(crate) answered: Counts,
    /// Refusals by the gateway.
    pub(crate) refused: Counts,
    /// Calls without a response.
    pub(crate) unanswered: Counts,
}

/// The gateway's address, the credentials and the counts of responses.
#[derive(Clone, Debug)]
pub(crate) struct Office {
    pub(crate) gateway: SocketAddr,
    pub(crate) pki: Pki,
    pub(crate) answers: Answers,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    command: Command,
    method: Method,
    path: String,
    header: Option<(HeaderName, String)>,
    body: Bytes,
}

impl Call {
    pub(crate) fn get(command: Command, path: impl Into<String>) -> Self {
        Self { command, method: Method::GET, path: path.into(), header: None, body: Bytes::new() }
    }

    pub(crate) fn post(command: Command, path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { command, method: Method::POST, path: path.into(), header: None, body: body.into() }
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: String) -> Self {
        self.header = Some((name, value));
        self
    }

    fn request(self, speaks: Speaks) -> anyhow::Result<Request<Full<Bytes>>> {
        let path = format!("/{}{}", self.command.subsystem, self.path);
        let builder = match speaks {
            Speaks::Http1 => Request::builder().uri(path).header(HOST, GATEWAY_NAME),
            Speaks::Http2 => Request::builder().uri(format!("https://{GATEWAY_NAME}{path}")),
        };
        let builder =
            self.header.into_iter().fold(builder.method(self.method), |b, (name, value)| b.header(name, value));
        Ok(builder.body(Full::new(self.body))?)
    }
}

/// The sending half of a connection.
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub(crate) struct Desk {
    department: &'static str,
    speaks: Speaks,
    office: Office,
    connector: TlsConnector,
    sender: Option<Sender>,
}

impl Desk {
    pub(crate) fn new(office: &Office, department: &'static str, speaks: Speaks) -> anyhow::Result<Self> {
        let protocol: &[u8] = if speaks == Speaks::Http1 { b"http/1.1" } else { b"h2" };
        let connector = office.pki.connector(department, protocol)?;
        Ok(Self { department, speaks, office: office.clone(), connector, sender: None })
    }

    /// Sends a call, reads the whole response and counts it. Returns `None` if there was no response; the next call
    /// then reconnects.
    pub(crate) async fn ask(&mut self, call: Call) -> Option<(StatusCode, Bytes)> {
        let response = self.open(call).await?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?;
        Some((status, body.to_bytes()))
    }

    /// Sends a call and counts the response, whose body is not yet read.
    pub(crate) async fn open(&mut self, call: Call) -> Option<Response<Incoming>> {
        let line = Line::new(self.department, call.command.subsystem, call.command.id);
        let answers = self.office.answers.clone();
        match self.send(call).await {
            Ok(response) if is_refusal(&response) => {
                answers.refused.add(line);
                Some(response)
            }
            Ok(response) => {
                answers.answered.add(line);
                Some(response)
            }
            Err(problem) => {
                tracing::warn!(department = self.department, "no answer: {problem:#}");
                answers.unanswered.add(line);
                self.sender = None;
                None
            }
        }
    }

    async fn send(&mut self, call: Call) -> anyhow::Result<Response<Incoming>> {
        let request = call.request(self.speaks)?;
        if !self.sender.as_ref().is_some_and(Sender::is_open) {
            self.sender = Some(self.connect().await?);
        }
        match self.sender.as_mut().context("no connection")? {
            Sender::Http1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(self.office.gateway).await.context("cannot reach the gateway")?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(ServerName::try_from(GATEWAY_NAME)?, stream).await.context("TLS")?;
        match self.speaks {
            Speaks::Http1 => http1_sender(stream).await,
            Speaks::Http2 => http2_sender(stream).await,
        }
    }
}

impl Sender {
    fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }
}

async fn http1_sender(stream: TlsStream<TcpStream>) -> anyhow::Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection); // the sender detects its end
    Ok(Sender::Http1(sender))
}

async fn http2_sender(stream: TlsStream<TcpStream>) -> anyhow::Result<Sender> {
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection); // the sender detects its end
    Ok(Sender::Http2(sender))
}

/// Whether the gateway refused the call. Its 502 and 504 are responses to admitted commands.
fn is_refusal(response: &Response<Incoming>) -> bool {
    let problem = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    problem && !matches!(response.status(), StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
}

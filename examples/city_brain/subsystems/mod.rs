//! The city's subsystems: real HTTP/1.1 servers that count the requests they receive.
//!
//! They take the caller (`X-Tallygate-Department`) and the command (`X-Tallygate-Command`) from the gateway, as
//! subsystems behind a gateway do. They do not depend on the gateway in any other way.

mod cameras;
mod control_centre;
mod logistics;
mod parking;
mod signals;

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::city::{Counts, Line};

pub(crate) use cameras::{Sighting, Taken};
pub(crate) use control_centre::{Incident, Notice};
pub(crate) use logistics::Movement;

/// The body of a subsystem's response.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A subsystem: an id and a request handler.
trait Subsystem: Send + Sync + 'static {
    /// The id in `city.yaml`.
    const ID: &'static str;

    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// The subsystems' addresses, their counts of received requests, and the control centre.
#[derive(Debug)]
pub(crate) struct Subsystems {
    pub(crate) cameras: SocketAddr,
    pub(crate) control_centre: SocketAddr,
    pub(crate) logistics: SocketAddr,
    pub(crate) signals: SocketAddr,
    pub(crate) parking: SocketAddr,
    pub(crate) received: Counts,
    centre: Arc<control_centre::ControlCentre>,
}

impl Subsystems {
    /// Starts all subsystems on free ports. The cameras send the metadata of their snapshots to `taken`.
    pub(crate) async fn open(taken: mpsc::Sender<Taken>) -> anyhow::Result<Self> {
        let received = Counts::default();
        let centre = Arc::new(control_centre::ControlCentre::default());
        Ok(Self {
            cameras: open(Arc::new(cameras::Cameras::new(taken)), &received).await?,
            control_centre: open(Arc::clone(&centre), &received).await?,
            logistics: open(Arc::new(logistics::Logistics::default()), &received).await?,
            signals: open(Arc::new(signals::Signals::default()), &received).await?,
            parking: open(Arc::new(parking::Parking), &received).await?,
            received,
            centre,
        })
    }

    /// Ends the streams to the officers on duty, so that the officers stop.
    pub(crate) fn end_duty(&self) {
        self.centre.end_duty();
    }
}

async fn open<S: Subsystem>(subsystem: Arc<S>, received: &Counts) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .with_context(|| format!("the subsystem {} found no free port on 127.0.0.1", S::ID))?;
    let address = listener.local_addr()?;
    let received = received.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&subsystem), received.clone()));
        }
    });
    Ok(address)
}

async fn serve<S: Subsystem>(stream: TcpStream, subsystem: Arc<S>, received: Counts) {
    let _ = stream.set_nodelay(true); // only slower if it fails
    let service = service_fn(move |request: Request<Incoming>| {
        received.add(line(S::ID, request.headers()));
        let subsystem = Arc::clone(&subsystem);
        async move { Ok::<_, Infallible>(subsystem.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await; // the gateway may close the connection at any time; received requests are counted
}

fn line(subsystem: &str, headers: &HeaderMap) -> Line {
    let said = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("(not said)");
    let command = said("x-tallygate-command"); // `subsystem/command`
    let command = command.strip_prefix(subsystem).and_then(|rest| rest.strip_prefix('/')).unwrap_or(command);
    Line::new(said("x-tallygate-department"), subsystem, command)
}

fn empty(status: StatusCode) -> Response<Body> {
    answer(status, "text/plain", Bytes::new())
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => answer(status, "application/json", text.into()),
        Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn answer(status: StatusCode, kind: &'static str, content: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(content).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Reads a whole body; returns `None` if the sender aborted.
async fn whole(body: Incoming) -> Option<Bytes> {
    body.collect().await.ok().map(http_body_util::Collected::to_bytes)
}

/// The number in `before{number}after`.
fn number_in(path: &str, before: &str, after: &str) -> Option<u64> {
    path.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

//! The subsystems of a siege: they read bodies, send large responses, respond slowly, and count requests by department.
//!
//! Guarantees:
//! - A request is counted, under the department that the gateway named, before any other work on it.
//! - Each subsystem is a thread of this process and ends with it.
//! - The well-behaved department has its own subsystem, so its latency does not include the queue of a subsystem under
//!   attack.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;

use crate::torture::audit::Received;

/// The response that a slow reader does not read, in bytes.
const LARGE: usize = 4 * 1024 * 1024;

/// Response time of `/slow`.
pub const SLOW: Duration = Duration::from_millis(250);

/// Size of the socket's send buffer. The rest of a response stays in this process, stored once.
const SEND_BUFFER: u32 = 64 * 1024;

/// Listen backlog: connections that wait to be accepted.
const BACKLOG: u32 = 4096;

type Body = BoxBody<Bytes, Infallible>;

/// The running subsystems.
#[derive(Clone, Debug)]
pub struct Subsystems {
    /// Address of the attackers' subsystem.
    pub besieged: SocketAddr,
    /// Address of the well-behaved department's subsystem.
    pub quiet: SocketAddr,
    counts: Counts,
}

/// Requests by department.
type Counts = Arc<Mutex<BTreeMap<String, u64>>>;

impl Subsystems {
    /// Starts both subsystems.
    pub fn start() -> Result<Self> {
        let counts = Counts::default();
        Ok(Self { besieged: start(&counts)?, quiet: start(&counts)?, counts })
    }

    /// The received requests in the form that the audit takes.
    pub fn received(&self) -> Received {
        let mut received = Received::default();
        for (department, count) in &*self.counts.lock().unwrap_or_else(PoisonError::into_inner) {
            (0..*count).for_each(|n| received.take(department.clone(), format!("{department} {n}")));
        }
        received
    }
}

/// Starts one subsystem; returns its address.
fn start(counts: &Counts) -> Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        socket.listen(BACKLOG)
    });
    let listener = listener.context("binding the subsystem")?;
    let (address, counts) = (listener.local_addr()?, Arc::clone(counts));
    std::thread::spawn(move || runtime.block_on(serve(listener, counts)));
    Ok(address)
}

async fn serve(listener: tokio::net::TcpListener, counts: Counts) {
    let large = Bytes::from(vec![b'x'; LARGE]);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (counts, large) = (Arc::clone(&counts), large.clone());
        let service = service_fn(move |request| answer(request, Arc::clone(&counts), large.clone()));
        let connection = http1::Builder::new().max_buf_size(16 * 1024).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection); // a connection that the gateway closes is not an error here
    }
}

async fn answer(request: Request<Incoming>, counts: Counts, large: Bytes) -> Result<Response<Body>, hyper::Error> {
    let department = request.headers().get("x-tallygate-department").and_then(|value| value.to_str().ok());
    let department = department.unwrap_or("nobody").to_owned();
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(department).or_default() += 1;
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(Response::new(match path.as_str() {
        "/large" => Full::new(large).boxed(),
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            Full::new(Bytes::from_static(b"at last")).boxed()
        }
        "/nothing" => Empty::new().boxed(),
        _ => Full::new(Bytes::from_static(&[b'x'; 128])).boxed(),
    }))
}

//! A foreign gRPC subsystem (tonic), over HTTP/2 by prior knowledge. The name of the called method selects whether it
//! echoes, streams, fails or waits. It logs every call and the end of the call.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tower::service_fn;

use crate::world::ANY_PORT;

/// A codec that passes messages unchanged: a gateway does not parse their content.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The log entry of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: String,
    pub department: String,
    /// The received value of `grpc-timeout`.
    pub timeout: Option<String>,
    /// The call was dropped before its last message was sent.
    pub cancelled: bool,
    pub open: bool,
}

/// The log of all calls.
#[derive(Clone, Debug, Default)]
pub struct CameraLog(Arc<Mutex<Vec<Call>>>);

impl CameraLog {
    pub fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the calls of a method.
    pub fn of(&self, method: &str) -> Vec<Call> {
        self.all().into_iter().filter(|call| call.method == method).collect()
    }

    fn open(&self, request: &http::Request<Body>) -> Open {
        let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let mut calls = self.0.lock().unwrap();
        calls.push(Call {
            method: request.uri().path().rsplit('/').next().unwrap_or_default().to_owned(),
            department: text("x-tallygate-department").unwrap_or_default(),
            timeout: text("grpc-timeout"),
            cancelled: false,
            open: true,
        });
        Open { log: self.clone(), position: calls.len() - 1, ended: false }
    }
}

/// A call in progress. A drop before [`Open::done`] records the call as cancelled.
struct Open {
    log: CameraLog,
    position: usize,
    ended: bool,
}

impl Open {
    fn done(mut self) {
        self.ended = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let call = &mut self.log.0.lock().unwrap()[self.position];
        (call.open, call.cancelled) = (false, !self.ended);
    }
}

/// Starts the subsystem on the runtime of the test.
pub async fn start() -> (SocketAddr, CameraLog) {
    let (listener, log) = (tokio::net::TcpListener::bind(ANY_PORT).await.unwrap(), CameraLog::default());
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = tonic::transport::Server::builder().serve_with_incoming(Cameras(log.clone()), incoming);
    tokio::spawn(async { serving.await.unwrap() });
    (address, log)
}

#[derive(Clone)]
struct Cameras(CameraLog);

impl tower::Service<http::Request<Body>> for Cameras {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let open = self.0.open(&request);
        Box::pin(async { Ok(perform(open, request).await) })
    }
}

type Answers = BoxStream<'static, Result<Bytes, Status>>;

async fn perform(open: Open, request: http::Request<Body>) -> http::Response<Body> {
    let mut grpc = tonic::server::Grpc::new(Raw);
    let method = request.uri().path().trim_start_matches("/city.Cameras/").to_owned();
    let mut open = Some(open); // tonic calls a service once per request; the type does not express that
    let mut open = move || open.take().unwrap();
    match method.as_str() {
        "Submit" => grpc.unary(service_fn(move |asked| submit(open(), asked)), request).await,
        "Fail" => grpc.unary(service_fn(move |asked| fail(open(), asked)), request).await,
        "Wait" => grpc.unary(service_fn(move |_| wait(open())), request).await,
        "Gather" => grpc.client_streaming(service_fn(move |asked| gather(open(), asked)), request).await,
        "Watch" => grpc.server_streaming(service_fn(move |asked| watch(open(), asked, CallEnd::Well)), request).await,
        "Break" => grpc.server_streaming(service_fn(move |asked| watch(open(), asked, CallEnd::Badly)), request).await,
        "Linger" => grpc.server_streaming(service_fn(move |asked| watch(open(), asked, CallEnd::Never)), request).await,
        "Talk" => grpc.streaming(service_fn(move |asked| talk(open(), asked)), request).await,
        _ => Status::unimplemented(method).into_http(),
    }
}

async fn submit(open: Open, asked: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let seal = asked.metadata().get_bin("x-seal-bin").cloned();
    let mut answer = Response::new([b"got ", asked.into_inner().as_ref()].concat().into());
    answer.metadata_mut().insert("x-told-by", MetadataValue::from_static("cameras"));
    if let Some(seal) = seal {
        answer.metadata_mut().insert_bin("x-seal-bin", seal);
    }
    open.done();
    Ok(answer)
}

/// Fails with the requested code.
async fn fail(open: Open, asked: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let code = Code::from_bytes(&asked.into_inner());
    open.done();
    Err(scripted_status(code))
}

/// Returns a status with all parts that a status can have.
fn scripted_status(code: Code) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-told-by", MetadataValue::from_static("cameras"));
    Status::with_details_and_metadata(code, "as told: 100 %", Bytes::from_static(&[0, 1, 255]), metadata)
}

async fn wait(open: Open) -> Result<Response<Bytes>, Status> {
    std::future::pending::<()>().await;
    open.done();
    Err(Status::internal("nothing pends so long"))
}

async fn gather(open: Open, asked: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let (mut pieces, mut sum) = (asked.into_inner(), 0);
    while let Some(piece) = pieces.message().await? {
        sum += piece.len();
    }
    open.done();
    Ok(Response::new(sum.to_string().into()))
}

/// The end of a stream of events.
#[derive(Clone, Copy)]
enum CallEnd {
    Well,
    Badly,
    Never,
}

/// Sends the requested number of events, then ends the stream.
async fn watch(open: Open, asked: Request<Bytes>, end: CallEnd) -> Result<Response<Answers>, Status> {
    let count: usize = std::str::from_utf8(asked.get_ref()).unwrap().parse().unwrap();
    let events = stream::iter(0..count).map(|n| Ok(Bytes::from(format!("event {n}"))));
    let last = stream::once(async move {
        if let CallEnd::Never = end {
            std::future::pending::<()>().await;
        }
        open.done();
        match end {
            CallEnd::Badly => Some(Err(scripted_status(Code::DataLoss))),
            CallEnd::Well | CallEnd::Never => None,
        }
    });
    Ok(Response::new(events.chain(last.filter_map(std::future::ready)).boxed()))
}

/// Responds to each message before it reads the next.
async fn talk(open: Open, asked: Request<Streaming<Bytes>>) -> Result<Response<Answers>, Status> {
    let talk = (Some(open), asked.into_inner());
    let answers = stream::try_unfold(talk, async |(mut open, mut asked)| {
        let Some(received) = asked.message().await? else {
            open.take().unwrap().done();
            return Ok(None);
        };
        Ok(Some(([b"heard ", received.as_ref()].concat().into(), (open, asked))))
    });
    Ok(Response::new(answers.boxed()))
}

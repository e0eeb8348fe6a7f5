//! A Kubernetes API server for tests: a function from requests to answers, below a real client.
//!
//! Guarantees:
//! - Requests are recorded in their order.
//!
//! Leaves to others:
//! - what the server says: each test.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct SeenRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) body: Value,
}

impl SeenRequest {
    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    /// Whether it asks for the initial events in the stream.
    pub(crate) fn is_streaming_list(&self) -> bool {
        self.query.contains_key("sendInitialEvents")
    }

    pub(crate) fn version(&self) -> &str {
        self.query.get("resourceVersion").map(String::as_str).unwrap_or_default()
    }
}

/// What the server says.
pub(crate) enum FakeAnswer {
    Json(u16, Value),
    /// Lines, after which the answer ends.
    Lines(Vec<Value>),
    /// Lines as the test sends them. The answer ends with the sender.
    Live(mpsc::UnboundedReceiver<Value>),
    /// Lines, after which nothing comes.
    LinesThenSilence(Vec<Value>),
    /// No answer.
    Silence,
    /// A broken connection.
    Broken,
}

impl FakeAnswer {
    pub(crate) fn ok(body: Value) -> Self {
        Self::Json(200, body)
    }

    /// A refusal as the API server writes it.
    pub(crate) fn status(code: u16, reason: &str) -> Self {
        Self::Json(code, status(code, reason))
    }
}

pub(crate) fn status(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{reason} in the test"), "reason": reason, "code": code })
}

pub(crate) type SeenRequests = Arc<Mutex<Vec<SeenRequest>>>;

/// Makes a client of a server that answers with `answer`.
pub(crate) fn fake_api(answer: impl Fn(&SeenRequest) -> FakeAnswer + Send + Sync + 'static) -> (Client, SeenRequests) {
    let seen = SeenRequests::default();
    let (answer, recorded) = (Arc::new(answer), Arc::clone(&seen));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, recorded) = (Arc::clone(&answer), Arc::clone(&recorded));
        async move {
            let request = read(request).await;
            let reply = answer(&request);
            recorded.lock().unwrap().push(request);
            respond(reply).await
        }
    });
    (Client::new(service, "default"), seen)
}

async fn read(request: Request<Body>) -> SeenRequest {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let content_type = head.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    SeenRequest {
        content_type: content_type.to_owned(),
        method: head.method,
        path: head.uri.path().to_owned(),
        query: query.map(|(key, value)| (key.into_owned(), value.into_owned())).collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

type FakeBody = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

async fn respond(answer: FakeAnswer) -> Result<Response<FakeBody>, std::io::Error> {
    let (code, lines) = match answer {
        FakeAnswer::Json(code, body) => (code, stream::iter([body]).boxed()),
        FakeAnswer::Lines(lines) => (200, stream::iter(lines).boxed()),
        FakeAnswer::LinesThenSilence(lines) => (200, stream::iter(lines).chain(stream::pending()).boxed()),
        FakeAnswer::Live(receiver) => {
            let next =
                |mut receiver: mpsc::UnboundedReceiver<Value>| async { Some((receiver.recv().await?, receiver)) };
            (200, stream::unfold(receiver, next).boxed())
        }
        FakeAnswer::Silence => std::future::pending().await,
        FakeAnswer::Broken => return Err(std::io::ErrorKind::ConnectionReset.into()),
    };
    let frames = lines.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n"))))).boxed();
    let response = Response::builder().status(code).header("content-type", "application/json");
    Ok(response.body(StreamBody::new(frames)).unwrap())
}

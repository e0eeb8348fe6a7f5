//! The control centre: receives reports and notifies the officers on duty at once, as server-sent events.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Body, Subsystem, empty, json, number_in, whole};

/// The largest lag of an officer's stream, in notices, before notices are lost.
const BACKLOG: usize = 256;

/// A report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Incident {
    pub(crate) offence: String,
    pub(crate) plate: String,
    pub(crate) camera: u16,
    pub(crate) snapshot: u64,
}

/// The notification to an officer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Notice {
    pub(crate) number: u64,
    pub(crate) incident: Incident,
}

pub(super) struct ControlCentre {
    reported: AtomicU64,
    acknowledged: AtomicU64,
    /// `None` after the end of duty.
    duty: Mutex<Option<broadcast::Sender<Notice>>>,
}

impl Default for ControlCentre {
    fn default() -> Self {
        let (duty, _) = broadcast::channel(BACKLOG);
        Self { reported: AtomicU64::new(0), acknowledged: AtomicU64::new(0), duty: Mutex::new(Some(duty)) }
    }
}

impl std::fmt::Debug for ControlCentre {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlCentre").field("reported", &self.reported).finish_non_exhaustive()
    }
}

impl Subsystem for ControlCentre {
    const ID: &'static str = "control-centre";

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::POST, "/v1/incidents") => self.report(request.into_body()).await,
            (&Method::GET, "/v1/duty/stream") => self.stream(),
            (&Method::POST, _) if number_in(path, "/v1/incidents/", "/acknowledgement").is_some() => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                empty(StatusCode::NO_CONTENT)
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

impl ControlCentre {
    async fn report(&self, body: Incoming) -> Response<Body> {
        let incident = whole(body).await.and_then(|text| serde_json::from_slice(&text).ok());
        let Some(incident) = incident else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let number = 1 + self.reported.fetch_add(1, Ordering::Relaxed);
        if let Some(duty) = self.lock().as_ref() {
            let _ = duty.send(Notice { number, incident }); // the incident is stored even if no officer is on duty
        }
        json(StatusCode::CREATED, &serde_json::json!({ "incident": number }))
    }

    fn stream(&self) -> Response<Body> {
        let Some(notices) = self.lock().as_ref().map(broadcast::Sender::subscribe) else {
            return empty(StatusCode::NO_CONTENT); // for an event source, 204 means: do not reconnect
        };
        let mut response = Response::new(StreamBody::new(events(notices)).boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    pub(super) fn end_duty(&self) {
        self.lock().take(); // streams end when the last sender is dropped
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<broadcast::Sender<Notice>>> {
        self.duty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn events(notices: broadcast::Receiver<Notice>) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(notices, |mut notices| async move {
        let event = match notices.recv().await {
            Ok(notice) => format!("event: incident\ndata: {}\n\n", serde_json::to_string(&notice).ok()?),
            Err(RecvError::Lagged(missed)) => format!(": {missed} notices missed\n\n"),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(Frame::data(Bytes::from(event))), notices))
    })
}

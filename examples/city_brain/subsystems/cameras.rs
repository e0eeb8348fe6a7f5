//! Cameras: stores the newest snapshots and passes their metadata to the recogniser.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Body, Subsystem, answer, empty, json, number_in, whole};

/// Number of stored snapshots, of at most 2 MiB each.
const KEPT: usize = 32;
const JPEG_START: [u8; 2] = [0xff, 0xd8];

/// A camera's metadata of a picture, sent as JSON in the header `X-Sighting`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sighting {
    pub(crate) camera: u16,
    pub(crate) plate: String,
    /// The signal showed red.
    pub(crate) red: bool,
    /// The vehicle was beyond the stop line, moving.
    pub(crate) over_line: bool,
    /// Stopping is forbidden at this place.
    pub(crate) no_stopping: bool,
    /// The time since the vehicle stopped.
    pub(crate) standing_seconds: u32,
}

/// A snapshot as sent to the recogniser.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) snapshot: u64,
    pub(crate) sighting: Sighting,
}

pub(super) struct Cameras {
    numbers: AtomicU64,
    kept: Mutex<VecDeque<(u64, Bytes)>>,
    taken: mpsc::Sender<Taken>,
}

impl Subsystem for Cameras {
    const ID: &'static str = "cameras";

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), number_in(path, "/v1/snapshots/", "")) {
            (&Method::POST, None) if path == "/v1/snapshots" => self.submit(request).await,
            (&Method::GET, Some(number)) => self.read(number),
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

impl Cameras {
    pub(super) fn new(taken: mpsc::Sender<Taken>) -> Self {
        Self { numbers: AtomicU64::new(1), kept: Mutex::default(), taken }
    }

    async fn submit(&self, request: Request<Incoming>) -> Response<Body> {
        let sighting = sighting(request.headers());
        let (Some(picture), Some(sighting)) = (whole(request.into_body()).await, sighting) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        if !picture.starts_with(&JPEG_START) {
            return empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        let number = self.keep(picture);
        let _ = self.taken.try_send(Taken { snapshot: number, sighting }); // a busy recogniser skips pictures
        json(StatusCode::CREATED, &serde_json::json!({ "snapshot": number }))
    }

    fn keep(&self, picture: Bytes) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((number, picture));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        number
    }

    fn read(&self, wanted: u64) -> Response<Body> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.iter().find(|(number, _)| *number == wanted) {
            Some((_, picture)) => answer(StatusCode::OK, "image/jpeg", picture.clone()),
            None => empty(StatusCode::NOT_FOUND),
        }
    }
}

fn sighting(headers: &HeaderMap) -> Option<Sighting> {
    serde_json::from_slice(headers.get("x-sighting")?.as_bytes()).ok()
}

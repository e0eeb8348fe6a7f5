//! Signals: the state of a junction's lights, and priority for emergency vehicles.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{Body, Subsystem, empty, json, number_in, whole};

/// Junctions in the city, numbered from 1.
const JUNCTIONS: u64 = 64;
const PHASES: [&str; 3] = ["green", "yellow", "red"];

/// Every request advances the lights, which is a sufficient clock for a demo.
#[derive(Default)]
pub(super) struct Signals {
    asked: AtomicU64,
}

impl Subsystem for Signals {
    const ID: &'static str = "signals";

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let junction = number_in(path, "/v1/junctions/", "").filter(|number| (1..=JUNCTIONS).contains(number));
        match (request.method(), junction) {
            (&Method::GET, Some(junction)) => self.read(junction),
            (&Method::POST, None) if number_in(path, "/v1/junctions/", "/priority").is_some() => {
                let _ = whole(request.into_body()).await;
                empty(StatusCode::ACCEPTED)
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

impl Signals {
    fn read(&self, junction: u64) -> Response<Body> {
        let step = self.asked.fetch_add(1, Ordering::Relaxed) + junction;
        let phase = PHASES.iter().cycle().nth(usize::try_from(step % 3).unwrap_or(0));
        json(StatusCode::OK, &serde_json::json!({ "junction": junction, "phase": phase }))
    }
}

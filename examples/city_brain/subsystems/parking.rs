//! Parking: the number of free places.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;

use super::{Body, Subsystem, empty, json, number_in};

/// Lots in the city, numbered from 1.
const LOTS: u64 = 12;

#[derive(Serialize)]
struct Lot {
    lot: u64,
    places: u64,
    free: u64,
}

impl Lot {
    fn new(lot: u64) -> Self {
        Self { lot, places: 40 * lot, free: 7 * lot % 40 }
    }
}

pub(super) struct Parking;

impl Subsystem for Parking {
    const ID: &'static str = "parking";

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), number_in(path, "/v1/lots/", "")) {
            (&Method::GET, None) if path == "/v1/lots" => {
                json(StatusCode::OK, &(1..=LOTS).map(Lot::new).collect::<Vec<_>>())
            }
            (&Method::GET, Some(lot)) if (1..=LOTS).contains(&lot) => json(StatusCode::OK, &Lot::new(lot)),
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

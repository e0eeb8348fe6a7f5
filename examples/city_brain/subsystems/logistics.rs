//! Logistics: a warehouse's box movements and the resulting stock.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::{Body, Subsystem, empty, json, whole};

/// The movement of a box from one place to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Movement {
    pub(crate) parcel: u64,
    pub(crate) from: String,
    pub(crate) to: String,
}

#[derive(Default)]
pub(super) struct Logistics {
    /// Boxes gained or lost per place.
    stock: Mutex<BTreeMap<String, i64>>,
}

impl Subsystem for Logistics {
    const ID: &'static str = "logistics";

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/v1/movements") => self.record(request.into_body()).await,
            (&Method::GET, "/v1/stock") => json(StatusCode::OK, &*self.lock()),
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

impl Logistics {
    async fn record(&self, body: Incoming) -> Response<Body> {
        let movement = whole(body).await.and_then(|text| serde_json::from_slice::<Movement>(&text).ok());
        let Some(movement) = movement else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let mut stock = self.lock();
        *stock.entry(movement.from).or_default() -= 1;
        *stock.entry(movement.to).or_default() += 1;
        empty(StatusCode::NO_CONTENT)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, i64>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

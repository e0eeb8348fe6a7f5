//! Local responses to admitted commands: a redirect, or the response to a CORS preflight.
//!
//! Guarantees:
//!
//! - The command is authorised, limited and counted like any other before it comes here.
//! - The command settles as `ok`: the response is the one that the configuration defines.
//! - Nothing is forwarded. A request body is drained and not counted.

use std::sync::Arc;

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::model::Finished;
use crate::policy::{CorsPolicy, Durability};
use crate::proxy::message::request_body::discard_request_body;
use crate::proxy::message::request_id::REQUEST_ID;

use super::admit::Admitted;
use super::context::RequestContext;
use super::response_body::{ExchangeResult, ResponseBody};

/// The kind of a local response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalResponse {
    /// A browser asks whether a page may send a request (Fetch standard, "CORS-preflight request").
    Preflight,
    /// The caller is redirected to another location.
    Redirect,
}

/// A request of a page in a browser, with the CORS policy that decides whether the page may read the response.
pub(crate) struct CorsRequest {
    pub(crate) cors: Arc<CorsPolicy>,
    pub(crate) origin: Option<HeaderValue>,
}

impl Admitted {
    /// Whether the command's shape removes this field from responses.
    pub(crate) fn removes_response_header(&self, name: &HeaderName) -> bool {
        self.command.shape.as_ref().is_some_and(|shape| shape.response.overrides(name))
    }

    /// Applies the configured response fields: those of the command's shape, and those of its CORS policy.
    pub(crate) fn shape_response(&self, headers: &mut HeaderMap) {
        if let Some(shape) = &self.command.shape {
            shape.response.apply(headers);
        }
        if let Some(cors_request) = &self.cors_request {
            cors_request.add_cors_headers(headers);
        }
    }
}

impl CorsRequest {
    /// Adds the CORS fields to the head of a response.
    pub(crate) fn add_cors_headers(&self, headers: &mut HeaderMap) {
        self.cors.apply(headers, self.origin.as_ref());
    }
}

/// Responds to an admitted command that is not forwarded.
pub(crate) fn respond_locally(
    context: RequestContext,
    admitted: Admitted,
    local_response: LocalResponse,
    request: Request<Incoming>,
) -> impl Future<Output = ExchangeResult> + use<> {
    let mut response = match local_response {
        LocalResponse::Preflight => preflight_response(&admitted, request.headers()),
        LocalResponse::Redirect => redirect_response(&admitted, &request),
    };
    response.headers_mut().insert(REQUEST_ID, context.request_id.to_header());
    context.worker.rate_limit_headers.add(response.headers_mut(), admitted.rate_limit);
    discard_request_body(request);
    Box::pin(async move {
        if admitted.command.durability == Durability::Machine {
            admitted.in_flight.wait_until_durable().await;
        }
        admitted.in_flight.settle(Finished::Ok);
        Ok(response)
    })
}

fn preflight_response(admitted: &Admitted, asked: &HeaderMap) -> Response<ResponseBody> {
    let mut response = empty_response(StatusCode::NO_CONTENT);
    if let Some(cors_request) = &admitted.cors_request {
        *response.headers_mut() = cors_request.cors.preflight_headers(asked);
    }
    response
}

fn redirect_response(admitted: &Admitted, request: &Request<Incoming>) -> Response<ResponseBody> {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let redirect = admitted.command.redirect();
    let mut response = empty_response(redirect.map_or(StatusCode::FOUND, |redirect| redirect.status));
    let below = admitted.subsystem.path_below(target);
    // A query may hold bytes that a field value cannot: the location is then built without the query.
    let without_query = below.split('?').next().unwrap_or_default();
    let location = redirect.and_then(|to| to.location(below).or_else(|| to.location(without_query)));
    let headers = response.headers_mut();
    headers.extend(location.map(|location| (LOCATION, location)));
    admitted.shape_response(headers);
    response
}

fn empty_response(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Local(Full::default()));
    *response.status_mut() = status;
    response
}

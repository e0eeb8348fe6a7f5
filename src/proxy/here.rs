//! What the gateway answers itself for an admitted command: a redirect, or a browser's preflight.
//!
//! Guarantees: it is authorised, limited and counted as any command before it comes here, and settles as `ok`: it was answered
//! with what the configuration says. Nothing is forwarded, so a request body is heard out and not counted.

use std::sync::Arc;

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::model::Finished;
use crate::policy::{Cors, Durability};

use super::admit::Admitted;
use super::body::Body;
use super::call::{Answer, Call};
use super::headers::REQUEST_ID;
use super::refuse::tell_budget;
use super::request_body::hear_out;

/// What the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// A browser asks whether a page may send what it wants to send (Fetch standard, "CORS-preflight request").
    Preflight,
    /// The caller is sent elsewhere.
    Redirect,
}

/// The page that asks, in a browser that wants to know whether it may read the answer.
pub(super) struct Reader {
    pub(super) cors: Arc<Cors>,
    pub(super) origin: Option<HeaderValue>,
}

impl Admitted {
    /// Whether the command's shape takes a field from answers.
    pub(super) fn takes_from_answers(&self, name: &HeaderName) -> bool {
        self.command.shape.as_ref().is_some_and(|shape| shape.response.takes(name))
    }

    /// What the configuration wants of an answer's fields, towards the caller and towards the caller's browser.
    pub(super) fn shape_answer(&self, headers: &mut HeaderMap) {
        if let Some(shape) = &self.command.shape {
            shape.response.apply(headers);
        }
        if let Some(reader) = &self.reader {
            reader.tell(headers);
        }
    }
}

impl Reader {
    /// Tells the browser, in the head of an answer.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        self.cors.tell(headers, self.origin.as_ref());
    }
}

/// Answers an admitted command that is not forwarded.
pub(super) fn answer_here(
    call: Call,
    admitted: Admitted,
    here: Here,
    request: Request<Incoming>,
) -> impl Future<Output = Answer> + use<> {
    let mut answer = match here {
        Here::Preflight => preflight(&admitted, request.headers()),
        Here::Redirect => redirect(&admitted, &request),
    };
    answer.headers_mut().insert(REQUEST_ID, call.id.header());
    tell_budget(answer.headers_mut(), admitted.budget);
    hear_out(request);
    Box::pin(async move {
        if admitted.command.durability == Durability::Machine {
            admitted.account.durable().await;
        }
        admitted.account.settle(Finished::Ok);
        Ok(answer)
    })
}

fn preflight(admitted: &Admitted, asked: &HeaderMap) -> Response<Body> {
    let mut answer = empty(StatusCode::NO_CONTENT);
    if let Some(reader) = &admitted.reader {
        *answer.headers_mut() = reader.cors.preflight(asked);
    }
    answer
}

fn redirect(admitted: &Admitted, request: &Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let redirect = admitted.command.redirect();
    let mut answer = empty(redirect.map_or(StatusCode::FOUND, |redirect| redirect.status));
    let below = admitted.subsystem.below(target);
    // A query may hold bytes that no field can: then it stays behind.
    let without_query = below.split('?').next().unwrap_or_default();
    let location = redirect.and_then(|to| to.location(below).or_else(|| to.location(without_query)));
    let headers = answer.headers_mut();
    headers.extend(location.map(|location| (LOCATION, location)));
    admitted.shape_answer(headers);
    answer
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::Whole(Full::default()));
    *answer.status_mut() = status;
    answer
}

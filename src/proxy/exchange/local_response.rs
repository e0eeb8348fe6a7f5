//! Local responses to admitted commands: a redirect, the response to a CORS preflight, or that of a missing backend.
//!
//! Guarantees:
//!
//! - The command is authorised, limited and counted like any other before it comes here.
//! - The command settles as `ok`: the response is the one that the configuration defines. Without a backend it settles
//!   as `unreachable`: nothing was sent, and it costs no units.
//! - Nothing is forwarded. A request body is drained and not counted.

use http::header::LOCATION;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::model::Finished;
use crate::policy::{Durability, RequestUrl};
use crate::proxy::message::request_body::discard_request_body;

use super::admit::Admitted;
use super::context::RequestContext;
use super::destination::LocalResponse;
use super::refuse::no_backend_response;
use super::response_body::{ExchangeResult, ResponseBody};
use super::response_head::ResponseFields;

/// Responds to an admitted command that is not forwarded.
pub(crate) fn respond_locally(
    context: RequestContext,
    mut admitted: Admitted,
    local_response: LocalResponse,
    request: Request<Incoming>,
) -> impl Future<Output = ExchangeResult> + use<> {
    let (mut response, fields) = match local_response {
        LocalResponse::Preflight => {
            let fields = ResponseFields { rate_limit: admitted.rate_limit, ..ResponseFields::default() };
            (preflight_response(&admitted, request.headers()), fields) // it is a CORS response already
        }
        LocalResponse::Redirect => (redirect_response(&admitted, request.uri(), &context), admitted.response_fields()),
        LocalResponse::NoBackend(status) => {
            let fields = ResponseFields { cors_request: admitted.cors_request.as_ref(), ..ResponseFields::default() };
            (no_backend_response(&context, status), fields)
        }
    };
    context.finish_head(response.headers_mut(), fields);
    admitted.in_flight.note_status(response.status());
    discard_request_body(request);
    Box::pin(async move {
        if admitted.command.durability == Durability::Machine {
            admitted.in_flight.wait_until_durable().await;
        }
        admitted.in_flight.settle(match local_response {
            LocalResponse::Preflight | LocalResponse::Redirect => Finished::Ok,
            LocalResponse::NoBackend(_) => Finished::Unreachable,
        });
        Ok(response)
    })
}

fn preflight_response(admitted: &Admitted, request_headers: &HeaderMap) -> Response<ResponseBody> {
    let mut response = empty_response(StatusCode::NO_CONTENT);
    if let Some(cors_request) = &admitted.cors_request {
        *response.headers_mut() = cors_request.cors.preflight_headers(request_headers);
    }
    response
}

fn redirect_response(admitted: &Admitted, uri: &Uri, context: &RequestContext) -> Response<ResponseBody> {
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let authority = admitted.host.to_str().unwrap_or_default(); // checked as text when the head was parsed
    let (scheme, below) = (context.peer.scheme(), admitted.subsystem.path_below(target));
    let public_port = context.config.snapshot.public_port(context.peer.listener());
    let requested = RequestUrl { scheme, authority, public_port, target, below };
    let redirect = admitted.command.redirect();
    let mut response = empty_response(redirect.map_or(StatusCode::FOUND, |redirect| redirect.status));
    let location = redirect.and_then(|redirect| redirect.location(requested));
    response.headers_mut().extend(location.map(|location| (LOCATION, location)));
    response
}

fn empty_response(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Local(Full::default()));
    *response.status_mut() = status;
    response
}

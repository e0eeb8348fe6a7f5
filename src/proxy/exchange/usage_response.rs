//! The response to an admitted read of the department's own usage (`/.well-known/tallygate/usage`).
//!
//! Guarantees:
//!
//! - The department is that of the certificate: the request names none.
//! - No cache keeps the response, no script runs in it, and no other page can embed it.
//! - The command settles as `ok`. If the page cannot be made it settles as `unreachable`, with 503.
//!
//! Leaves to others: the page (`proxy::usage_page`, `report::own_usage`).

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::model::Finished;
use crate::proxy::message::request_body::discard_request_body;
use crate::proxy::usage_page::{UsagePageText, UsageQuestion, preferred_format};
use crate::report::USAGE_PAGE_POLICY;

use super::admit::Admitted;
use super::context::RequestContext;
use super::refuse::busy_response;
use super::response_body::{ExchangeResult, ResponseBody};
use super::response_head::ResponseFields;

/// Responds with the usage of the caller's department. The page is made on a thread of its own.
pub(crate) fn respond_with_usage(
    context: RequestContext,
    mut admitted: Admitted,
    request: Request<Incoming>,
) -> impl Future<Output = ExchangeResult> + use<> {
    let question = UsageQuestion {
        department: admitted.department.department.clone(),
        certificate_ends: context.peer.caller().map(|caller| caller.expires_at()),
        format: preferred_format(request.headers()),
    };
    discard_request_body(request);
    Box::pin(async move {
        let page = context.worker.components.usage_pages.page_for(question).await;
        let (mut response, finished) = match page {
            Ok(page) => {
                let body_bytes = if context.is_head_request { 0 } else { page.body.len() as u64 };
                admitted.in_flight.add_response_bytes(body_bytes);
                (page_response(page), Finished::Ok)
            }
            Err(unavailable) => {
                (busy_response(&context, Finished::Unreachable, &unavailable.to_string()), Finished::Unreachable)
            }
        };
        let fields = ResponseFields { rate_limit: admitted.rate_limit, ..ResponseFields::default() };
        context.finish_head(response.headers_mut(), fields);
        admitted.in_flight.note_status(response.status());
        admitted.in_flight.settle(finished);
        Ok(response)
    })
}

fn page_response(page: UsagePageText) -> Response<ResponseBody> {
    let kind = page.format.content_type();
    let mut response = Response::new(ResponseBody::Local(Full::from(page.body)));
    let headers: &mut HeaderMap = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (VARY, "Accept"),
        (CONTENT_SECURITY_POLICY, USAGE_PAGE_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

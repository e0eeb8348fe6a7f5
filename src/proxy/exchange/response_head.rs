//! The fields that the gateway puts on the head of a response, whoever made the response.
//!
//! Guarantees:
//!
//! - Every response passes [`RequestContext::finish_head`] once, and so carries the request id.
//! - The gateway's own fields come after the configured ones, which cannot replace them.
//!
//! Leaves to others: which of the fields a response gets (`forward`, `local_response`, `refuse`).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limit::RateLimitInfo;
use crate::policy::{CorsPolicy, FieldEdits, ShareEdits};
use crate::proxy::message::request_id::REQUEST_ID;

use super::admit::Admitted;
use super::context::RequestContext;
use super::destination::Destination;

/// The fields that a response gets beside the request id.
#[derive(Clone, Copy, Default)]
pub(crate) struct ResponseFields<'a> {
    /// The configured edits of the response's fields.
    pub(crate) edits: Option<&'a FieldEdits>,
    /// The cross-origin request that the response answers.
    pub(crate) cors_request: Option<&'a CorsRequest>,
    /// The state of the department's rate limit.
    pub(crate) rate_limit: Option<RateLimitInfo>,
}

/// A request of a page in a browser, with the CORS policy that decides whether the page may read the response.
pub(crate) struct CorsRequest {
    pub(crate) cors: Arc<CorsPolicy>,
    pub(crate) origin: Option<HeaderValue>,
}

impl RequestContext {
    /// Completes the head of a response to this request.
    pub(crate) fn finish_head(&self, headers: &mut HeaderMap, fields: ResponseFields<'_>) {
        if let Some(edits) = fields.edits {
            edits.apply(headers);
        }
        if let Some(cors_request) = fields.cors_request {
            cors_request.cors.apply(headers, cors_request.origin.as_ref());
        }
        headers.insert(REQUEST_ID, self.request_id.to_header());
        self.worker.rate_limit_headers.add(headers, fields.rate_limit);
    }
}

impl Admitted {
    /// Whether the command's shape removes this field from responses.
    pub(crate) fn removes_response_header(&self, name: &HeaderName) -> bool {
        self.response_edits().is_some_and(|edits| edits.overrides(name))
    }

    /// All fields that a response to this command may get.
    pub(crate) fn response_fields(&self) -> ResponseFields<'_> {
        ResponseFields {
            edits: self.response_edits(),
            cors_request: self.cors_request.as_ref(),
            rate_limit: self.rate_limit,
        }
    }

    /// The edits of the request that goes to the chosen backend.
    pub(crate) fn request_edits(&self) -> Option<&FieldEdits> {
        self.share_edits().map(|edits| &edits.request).or_else(|| self.command.request_edits())
    }

    fn response_edits(&self) -> Option<&FieldEdits> {
        self.share_edits().map(|edits| &edits.response).or_else(|| self.command.response_edits())
    }

    fn share_edits(&self) -> Option<&ShareEdits> {
        match self.destination {
            Destination::Backend(chosen) => chosen.share_edits(&self.command),
            Destination::Local(_) | Destination::UsagePage => None,
        }
    }
}

//! The endpoints of the admin server: routing, and the responses of `/metrics` and `/livez`.
//!
//! Guarantees: only GET and HEAD are allowed.
//!
//! Leaves to others: connections and limits (`server`), shared scrapes (`shared_scrape`), usage (`usage_api`), hours
//! (`hours_api`), readiness (`readiness_page`), the configuration (`config_page`).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::telemetry::ScrapeInput;

use super::response::{
    AdminResponse, METRICS_TYPE, TEXT_TYPE, method_not_allowed, problem_response, respond, unavailable,
};
use super::state::AdminState;
use super::{config_page, hours_api, readiness_page, usage_api};

/// An endpoint of the admin server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminEndpoint {
    Metrics,
    Hours,
    Live,
    Ready,
    Config,
    Usage,
}

impl AdminEndpoint {
    /// The endpoint of a request, or the error response if there is none.
    pub(crate) fn route(method: &Method, path: &str) -> Result<Self, Box<AdminResponse>> {
        let endpoint = match path {
            "/metrics" => Self::Metrics,
            "/metrics/hours" => Self::Hours,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/config" => Self::Config,
            "/api/v1/usage" => Self::Usage,
            _ => {
                let there = "available: /metrics, /metrics/hours, /livez, /readyz, /config and /api/v1/usage";
                return Err(Box::new(problem_response(StatusCode::NOT_FOUND, there)));
            }
        };
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if reads { Ok(endpoint) } else { Err(Box::new(method_not_allowed())) }
    }
}

/// Handles one request. hyper omits the body of a response to HEAD.
pub(crate) async fn handle_request(state: &AdminState, request: &http::request::Parts) -> AdminResponse {
    let query = request.uri.query().unwrap_or_default();
    match AdminEndpoint::route(&request.method, request.uri.path()) {
        Ok(AdminEndpoint::Metrics) => metrics_response(state).await,
        Ok(AdminEndpoint::Hours) => hours_api::hours_response(state, request).await,
        Ok(AdminEndpoint::Live) => respond(StatusCode::OK, TEXT_TYPE, "alive\n"),
        Ok(AdminEndpoint::Ready) => readiness_page::readiness_response(state, query).await,
        Ok(AdminEndpoint::Config) => config_page::config_response(&(state.view)().config, query),
        Ok(AdminEndpoint::Usage) => usage_api::usage_response(state, query).await,
        Err(response) => *response,
    }
}

async fn metrics_response(state: &AdminState) -> AdminResponse {
    match state.scrapes.shared_page(|| render_scrape(state)).await {
        Ok(text) => respond(StatusCode::OK, METRICS_TYPE, text),
        Err(error) => unavailable(&error),
    }
}

/// Renders on a blocking thread, because the thread of the admin server also accepts connections.
async fn render_scrape(state: &AdminState) -> anyhow::Result<Bytes> {
    let view = (state.view)();
    let ranges = view.shown_months().map(|month| view.calendar.windows_of(month));
    let ledger = state.ledger.view(ranges.to_vec()).await?;
    let telemetry = Arc::clone(&state.telemetry);
    let drawing = tokio::task::spawn_blocking(move || telemetry.render(ScrapeInput { ledger, view }));
    Ok(drawing.await??.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::ALLOW;

    #[test]
    fn unknown_path_is_404_and_write_method_is_405() {
        for (method, path, expected) in [
            (Method::GET, "/metrics", Ok(AdminEndpoint::Metrics)),
            (Method::GET, "/metrics/hours", Ok(AdminEndpoint::Hours)),
            (Method::HEAD, "/readyz", Ok(AdminEndpoint::Ready)),
            (Method::GET, "/api/v1/usage", Ok(AdminEndpoint::Usage)),
            (Method::POST, "/config", Err(405)),
            (Method::GET, "/", Err(404)),
            (Method::POST, "/metrics/", Err(404)),
        ] {
            let found = AdminEndpoint::route(&method, path).map_err(|response| response.status().as_u16());
            assert_eq!(found, expected, "{method} {path}");
        }
        let refused = AdminEndpoint::route(&Method::PUT, "/livez").expect_err("not allowed");
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }
}

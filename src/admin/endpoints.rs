//! The endpoints of the admin server: routing, and the responses of `/metrics`, `/livez`, `/readyz` and `/config`.
//!
//! Guarantees: only GET and HEAD are allowed.
//!
//! Leaves to others: connections and limits (`server`), shared scrapes (`shared_scrape`), usage (`usage_api`), hours
//! (`hours_api`).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::lifecycle::Readiness;
use crate::model::Name;
use crate::telemetry::{ConfigStatus, ScrapeInput};

use super::response::{
    AdminResponse, JSON_TYPE, METRICS_TYPE, TEXT_TYPE, method_not_allowed, problem_response, respond, unavailable,
};
use super::state::AdminState;
use super::{hours_api, usage_api};

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
    match AdminEndpoint::route(&request.method, request.uri.path()) {
        Ok(AdminEndpoint::Metrics) => metrics_response(state).await,
        Ok(AdminEndpoint::Hours) => hours_api::hours_response(state, request).await,
        Ok(AdminEndpoint::Live) => respond(StatusCode::OK, TEXT_TYPE, "alive\n"),
        Ok(AdminEndpoint::Ready) => readiness_response(&state.ready, &(state.unserved)()),
        Ok(AdminEndpoint::Config) => config_response(&(state.view)().config),
        Ok(AdminEndpoint::Usage) => usage_api::usage_response(state, request.uri.query().unwrap_or_default()).await,
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

/// A gateway is ready even if no server of a subsystem is healthy. Otherwise all gateways would turn unready at once,
/// and a load balancer would send callers to none of them. Callers would get a broken connection instead of a 502 that
/// is counted.
fn readiness_response(ready: &Readiness, unserved: &[Name]) -> AdminResponse {
    let awaited = ready.awaited_reasons();
    if awaited.is_empty() {
        let but = unserved.iter().map(|subsystem| format!("but every server of {subsystem} is out of rotation\n"));
        return respond(StatusCode::OK, TEXT_TYPE, format!("ready\n{}", but.collect::<String>()));
    }
    let lines: String = awaited.iter().map(|what| format!("awaiting {what}\n")).collect();
    respond(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, lines)
}

fn config_response(status: &ConfigStatus) -> AdminResponse {
    match serde_json::to_string_pretty(status) {
        Ok(text) => respond(StatusCode::OK, JSON_TYPE, text + "\n"),
        Err(error) => unavailable(&error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigProblem, PendingSetting};
    use crate::telemetry::{LiveConfig, RejectedConfig};
    use http::header::ALLOW;
    use http_body_util::BodyExt;

    async fn text(response: AdminResponse) -> String {
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

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

    #[tokio::test]
    async fn readyz_names_the_pending_guards() {
        let state = Readiness::default();
        let guards = [state.block("ledger"), state.block("listener departments")];
        let waiting = readiness_response(&state, &[]);
        assert_eq!(waiting.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(waiting).await, "awaiting ledger\nawaiting listener departments\n");
        drop(guards);
        assert_eq!(text(readiness_response(&state, &[])).await, "ready\n");
    }

    #[tokio::test]
    async fn readyz_is_200_without_servers_and_names_their_subsystems() {
        let subsystems = ["cameras", "parking"].map(|id| Name::parse(id).expect("a name"));
        let response = readiness_response(&Readiness::default(), &subsystems);
        assert_eq!(response.status(), StatusCode::OK);
        let lines = [
            "ready\n",
            "but every server of cameras is out of rotation\n",
            "but every server of parking is out of rotation\n",
        ];
        assert_eq!(text(response).await, lines.concat());
    }

    #[tokio::test]
    async fn config_endpoint_shows_the_rejected_configuration() {
        let at = "2026-11-24T04:00:00Z".parse().expect("a time");
        let problem = ConfigProblem::new("departments[0].id", "missing");
        let status = ConfigStatus {
            live: LiveConfig { version: "0123456789ab".to_owned(), since: at },
            weakened: vec!["listener a: so".to_owned()],
            restart_needed: vec![PendingSetting {
                path: "capacity.connections".to_owned(),
                live: Some("9".to_owned()),
                file: None,
            }],
            excluded: Vec::new(),
            changes: None,
            rejected: Some(RejectedConfig { version: "ba9876543210".to_owned(), at, problems: vec![problem] }),
            last_good: None,
        };
        let shown: serde_json::Value = serde_json::from_str(&text(config_response(&status)).await).expect("JSON");
        assert_eq!(
            shown,
            serde_json::json!({
                "live": { "version": "0123456789ab", "since": "2026-11-24T04:00:00Z" },
                "weakened": ["listener a: so"],
                "restart_needed": [{ "path": "capacity.connections", "live": "9", "file": null }],
                "changes": null,
                "rejected": {
                    "version": "ba9876543210",
                    "at": "2026-11-24T04:00:00Z",
                    "problems": [{ "path": "departments[0].id", "message": "missing" }],
                },
            })
        );
    }
}

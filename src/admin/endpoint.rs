//! What there is to ask, and the answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::lifecycle::Ready;
use crate::model::Name;
use crate::telemetry::{ConfigStatus, Scrape};

use super::answer::{Answer, JSON, METRICS, TEXT, answer, only_reading, problem};
use super::{AdminState, usage};

/// A path that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Metrics,
    Live,
    Ready,
    Config,
    Usage,
}

impl Endpoint {
    /// What a request asks for, or the answer to one that asks for nothing there is.
    pub(super) fn of(method: &Method, path: &str) -> Result<Self, Box<Answer>> {
        let endpoint = match path {
            "/metrics" => Self::Metrics,
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/config" => Self::Config,
            "/api/v1/usage" => Self::Usage,
            _ => {
                let there = "there are /metrics, /livez, /readyz, /config and /api/v1/usage";
                return Err(Box::new(problem(StatusCode::NOT_FOUND, there)));
            }
        };
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if reads { Ok(endpoint) } else { Err(Box::new(only_reading())) }
    }
}

/// Answers one request. hyper leaves the body of an answer to HEAD away.
pub(super) async fn handle(state: &AdminState, request: &http::request::Parts) -> Answer {
    match Endpoint::of(&request.method, request.uri.path()) {
        Ok(Endpoint::Metrics) => metrics(state).await,
        Ok(Endpoint::Live) => answer(StatusCode::OK, TEXT, "alive\n"),
        Ok(Endpoint::Ready) => ready(&state.ready, &(state.unserved)()),
        Ok(Endpoint::Config) => config(&(state.view)().config),
        Ok(Endpoint::Usage) => usage::usage(state, request.uri.query().unwrap_or_default()).await,
        Err(answer) => *answer,
    }
}

async fn metrics(state: &AdminState) -> Answer {
    match state.scrapes.page(|| scrape(state)).await {
        Ok(text) => answer(StatusCode::OK, METRICS, text),
        Err(error) => unavailable(&error),
    }
}

/// Drawn on a thread of its own: this one also accepts connections.
async fn scrape(state: &AdminState) -> anyhow::Result<Bytes> {
    let view = (state.view)();
    let ranges = view.shown_months().map(|month| view.calendar.windows_of(month));
    let ledger = state.ledger.view(ranges.to_vec()).await?;
    let telemetry = Arc::clone(&state.telemetry);
    let drawing = tokio::task::spawn_blocking(move || telemetry.render(Scrape { ledger, view }));
    Ok(drawing.await??.into())
}

/// 503, and the log knows why: an operator's door may say it too.
pub(super) fn unavailable(error: &anyhow::Error) -> Answer {
    tracing::error!(%error, "the admin listener could not answer");
    problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
}

/// Ready although no server of a subsystem is: every gateway would say so at once, a balancer would then send its callers to
/// none, and they would get a broken connection instead of a 502 that is counted.
fn ready(ready: &Ready, unserved: &[Name]) -> Answer {
    let awaited = ready.awaited();
    if awaited.is_empty() {
        let but = unserved.iter().map(|subsystem| format!("but every server of {subsystem} is out of rotation\n"));
        return answer(StatusCode::OK, TEXT, format!("ready\n{}", but.collect::<String>()));
    }
    let lines: String = awaited.iter().map(|what| format!("awaiting {what}\n")).collect();
    answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines)
}

fn config(status: &ConfigStatus) -> Answer {
    match serde_json::to_string_pretty(status) {
        Ok(text) => answer(StatusCode::OK, JSON, text + "\n"),
        Err(error) => unavailable(&error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PendingSetting, Problem};
    use crate::telemetry::{LiveConfig, RejectedConfig};
    use http::header::ALLOW;
    use http_body_util::BodyExt;

    async fn text(answer: Answer) -> String {
        let bytes = answer.into_body().collect().await.expect("a whole body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[test]
    fn what_is_not_there_is_404_and_what_cannot_be_written_405() {
        for (method, path, expected) in [
            (Method::GET, "/metrics", Ok(Endpoint::Metrics)),
            (Method::HEAD, "/readyz", Ok(Endpoint::Ready)),
            (Method::GET, "/api/v1/usage", Ok(Endpoint::Usage)),
            (Method::POST, "/config", Err(405)),
            (Method::GET, "/", Err(404)),
            (Method::POST, "/metrics/", Err(404)),
        ] {
            let found = Endpoint::of(&method, path).map_err(|answer| answer.status().as_u16());
            assert_eq!(found, expected, "{method} {path}");
        }
        let refused = Endpoint::of(&Method::PUT, "/livez").expect_err("not allowed");
        assert_eq!(refused.headers()[ALLOW], "GET, HEAD");
    }

    #[tokio::test]
    async fn readiness_says_what_is_awaited() {
        let state = Ready::default();
        let guards = [state.block("ledger"), state.block("listener departments")];
        let waiting = ready(&state, &[]);
        assert_eq!(waiting.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(waiting).await, "awaiting ledger\nawaiting listener departments\n");
        drop(guards);
        assert_eq!(text(ready(&state, &[])).await, "ready\n");
    }

    #[tokio::test]
    async fn a_gateway_is_ready_without_servers_and_says_whose_are_missing() {
        let subsystems = ["cameras", "parking"].map(|id| Name::parse(id).expect("a name"));
        let answer = ready(&Ready::default(), &subsystems);
        assert_eq!(answer.status(), StatusCode::OK);
        let lines = [
            "ready\n",
            "but every server of cameras is out of rotation\n",
            "but every server of parking is out of rotation\n",
        ];
        assert_eq!(text(answer).await, lines.concat());
    }

    #[tokio::test]
    async fn the_state_of_the_configuration_shows_what_was_rejected() {
        let at = "2026-11-24T04:00:00Z".parse().expect("a time");
        let problem = Problem::new("departments[0].id", "missing");
        let status = ConfigStatus {
            live: LiveConfig { version: "0123456789ab".to_owned(), since: at },
            weakened: vec!["listener a: so".to_owned()],
            restart_needed: vec![PendingSetting {
                path: "listeners[a].address".to_owned(),
                live: Some("127.0.0.1:1".to_owned()),
                file: None,
            }],
            changes: None,
            rejected: Some(RejectedConfig { version: "ba9876543210".to_owned(), at, problems: vec![problem] }),
        };
        let shown: serde_json::Value = serde_json::from_str(&text(config(&status)).await).expect("JSON");
        assert_eq!(
            shown,
            serde_json::json!({
                "live": { "version": "0123456789ab", "since": "2026-11-24T04:00:00Z" },
                "weakened": ["listener a: so"],
                "restart_needed": [{ "path": "listeners[a].address", "live": "127.0.0.1:1", "file": null }],
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

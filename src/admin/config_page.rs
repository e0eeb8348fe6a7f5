//! `/config`: the live configuration, what waits, what was left out or rejected; JSON, or text with `?format=text`.
//!
//! Guarantees: both formats say the same. No secret is in them: keys and certificates are paths of files.

use std::fmt::Write as _;

use http::StatusCode;

use crate::telemetry::{ConfigStatus, LiveConfig};

use super::query_text::{read_parameters, store_once};
use super::response::{AdminResponse, JSON_TYPE, TEXT_TYPE, problem_response, respond, unavailable};

/// The response to `/config`.
pub(crate) fn config_response(status: &ConfigStatus, query: &str) -> AdminResponse {
    let mut format = None;
    if let Err(reason) = read_parameters(query, &["format"], |name, value| store_once(&mut format, name, value)) {
        return problem_response(StatusCode::BAD_REQUEST, &reason);
    }
    match format.as_deref() {
        None | Some("json") => match serde_json::to_string_pretty(status) {
            Ok(text) => respond(StatusCode::OK, JSON_TYPE, text + "\n"),
            Err(error) => unavailable(&error.into()),
        },
        Some("text") => respond(StatusCode::OK, TEXT_TYPE, config_text(status)),
        Some(other) => {
            let reason = format!("format={other} is not known; write format=text or format=json");
            problem_response(StatusCode::BAD_REQUEST, &reason)
        }
    }
}

/// The status in words.
fn config_text(status: &ConfigStatus) -> String {
    let mut text = live_text(&status.live);
    let mut line = |words: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{words}"); // a String takes every text
    };
    for weakened in &status.weakened {
        line(format_args!("weaker than its default: {weakened}"));
    }
    for setting in &status.restart_needed {
        let [live, file] = [&setting.live, &setting.file].map(|value| value.as_deref().unwrap_or("not set"));
        line(format_args!("waits for a restart: {} is {live}, and {file} in the file", setting.path));
    }
    if let Some(served) = &status.last_good {
        line(format_args!("served from the disk, because the cluster is not known: written at {}", served.written_at));
    }
    for excluded in &status.excluded {
        line(format_args!("left out: {}", excluded.source));
        excluded.problems.iter().for_each(|problem| line(format_args!("  {problem}")));
    }
    if let Some(rejected) = &status.rejected {
        line(format_args!(
            "rejected: {} at {}, with {} problems; the configuration above stays live",
            rejected.version,
            rejected.at,
            rejected.problems.len()
        ));
        rejected.problems.iter().for_each(|problem| line(format_args!("  {problem}")));
    }
    line(format_args!("settings in effect, defaults included:"));
    let width = status.live.settings.keys().map(String::len).max().unwrap_or_default();
    for (key, value) in status.live.settings.iter() {
        line(format_args!("  {key:<width$}  {value}"));
    }
    text
}

fn live_text(live: &LiveConfig) -> String {
    let counts = live.contains;
    format!(
        "configuration {} of {}, live since {}\n\
         contains {} departments, {} subsystems, {} commands, {} backends; {} pairs of department and command are granted\n",
        live.version,
        live.source.display(),
        live.since,
        counts.departments,
        counts.subsystems,
        counts.commands,
        counts.backends,
        counts.granted,
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::config::{ConfigProblem, PendingSetting};
    use crate::telemetry::RejectedConfig;

    async fn text(response: AdminResponse) -> String {
        let bytes = response.into_body().collect().await.expect("a whole body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    fn status() -> ConfigStatus {
        let at = "2026-11-24T04:00:00Z".parse().expect("a time");
        let settings = [("calendar.offset", "+08:00"), ("capacity.idle", "180s")];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        ConfigStatus {
            live: LiveConfig {
                version: "0123456789ab".to_owned(),
                since: at,
                source: "/etc/tallygate.yaml".into(),
                settings: std::sync::Arc::new(settings.into()),
                ..LiveConfig::default()
            },
            weakened: vec!["listener a: so".to_owned()],
            restart_needed: vec![PendingSetting {
                path: "capacity.connections".to_owned(),
                live: Some("9".to_owned()),
                file: None,
            }],
            excluded: Vec::new(),
            changes: None,
            rejected: Some(RejectedConfig {
                version: "ba9876543210".to_owned(),
                at,
                problems: vec![ConfigProblem::new("departments[0].id", "missing")],
            }),
            last_good: None,
        }
    }

    #[tokio::test]
    async fn json_shows_the_live_and_the_rejected_configuration() {
        let shown: serde_json::Value = serde_json::from_str(&text(config_response(&status(), "")).await).expect("JSON");
        let none = serde_json::json!({ "departments": 0, "subsystems": 0, "commands": 0, "backends": 0, "granted": 0 });
        assert_eq!(
            shown,
            serde_json::json!({
                "live": {
                    "version": "0123456789ab",
                    "since": "2026-11-24T04:00:00Z",
                    "source": "/etc/tallygate.yaml",
                    "contains": none,
                    "settings": { "calendar.offset": "+08:00", "capacity.idle": "180s" },
                },
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

    #[tokio::test]
    async fn text_says_the_same_in_words() {
        let words = text(config_response(&status(), "format=text")).await;
        for expected in [
            "configuration 0123456789ab of /etc/tallygate.yaml, live since 2026-11-24T04:00:00Z\n",
            "weaker than its default: listener a: so\n",
            "waits for a restart: capacity.connections is 9, and not set in the file\n",
            "rejected: ba9876543210 at 2026-11-24T04:00:00Z, with 1 problems; the configuration above stays live\n",
            "  departments[0].id: missing\n",
            "  calendar.offset  +08:00\n",
        ] {
            assert!(words.contains(expected), "{expected}: {words}");
        }
        let refused = config_response(&status(), "format=yaml");
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert!(text(refused).await.contains("write format=text or format=json"));
    }
}

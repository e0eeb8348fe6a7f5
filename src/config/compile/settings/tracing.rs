//! Compiles the section `tracing`.

use std::time::Duration;

use http::Uri;

use crate::config::compile::doc_path::DocPath;
use crate::config::compile::values::{count_or, nonzero_duration_or};
use crate::config::document::TracingDocument;
use crate::config::settings::tracing::{TraceEndpoint, TracingSettings};

use super::access_log::parse_sample;

/// The path of OTLP over HTTP for traces.
const TRACES_PATH: &str = "/v1/traces";
const ONE_OF_DEFAULT: u32 = 100;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// A request that takes longer holds up all that wait behind it.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
const QUEUE_DEFAULT: usize = 2048;
/// At about 1 KiB each.
const QUEUE_MAX: usize = 1 << 20;
const SERVICE_NAME_DEFAULT: &str = "tallygate";
const SERVICE_NAME_MAX: usize = 255;

/// Compiles `tracing`; `None` if there is no such section.
pub(crate) fn compile_tracing(document: Option<&TracingDocument>, place: &DocPath<'_>) -> Option<TracingSettings> {
    let document = document?;
    let endpoint = place.key("endpoint").value_or_problem(parse_endpoint(&document.endpoint));
    let one_of = document.sample.as_deref().map(|text| place.key("sample").value_or_problem(parse_sample(text)));
    let timeout = nonzero_duration_or(document.timeout.as_deref(), TIMEOUT_DEFAULT, &place.key("timeout"));
    if timeout > TIMEOUT_MAX {
        place.key("timeout").problem("the spans behind it would wait too long; write at most 60s");
    }
    let queue = count_or(document.queue, QUEUE_DEFAULT, &place.key("queue"));
    if queue > QUEUE_MAX {
        place.key("queue").problem(format!("at most {QUEUE_MAX} spans may wait"));
    }
    let service_name = document.service_name.as_deref().unwrap_or(SERVICE_NAME_DEFAULT);
    if service_name.trim().is_empty() || service_name.len() > SERVICE_NAME_MAX {
        place.key("serviceName").problem(format!("a name of 1 to {SERVICE_NAME_MAX} bytes is needed"));
    }
    Some(TracingSettings {
        endpoint: endpoint?,
        one_of: one_of.unwrap_or(Some(ONE_OF_DEFAULT)).unwrap_or(ONE_OF_DEFAULT),
        is_parent_based: document.parent_based.unwrap_or(true),
        service_name: service_name.to_owned(),
        timeout,
        queue: queue.min(QUEUE_MAX),
    })
}

fn parse_endpoint(text: &str) -> Result<TraceEndpoint, String> {
    let bad =
        |why: &str| format!("it is not the URL of a collector: {why}; write http://otel-collector:4318/v1/traces");
    let uri: Uri = text.parse().map_err(|_| bad("it cannot be read"))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(bad("it does not begin with http:// or https://")),
    };
    let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad("it has a user; a collector beside the gateway adds credentials"));
    }
    if uri.query().is_some() {
        return Err(bad("it has a query"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err(bad("it has no host"));
    }
    Ok(TraceEndpoint {
        is_tls,
        host,
        port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
        authority: authority.to_string(),
        path: if uri.path().len() > 1 { uri.path().to_owned() } else { TRACES_PATH.to_owned() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile_text;
    use crate::model::NameInterner;

    /// The result of a configuration with this section.
    fn compile(section: &str) -> Result<TracingSettings, Vec<(String, String)>> {
        let text = format!(
            r#"{{
                "listeners": [{{ "name": "a", "address": "127.0.0.1:1", "protocol": "http" }}],
                "ledger": {{ "path": "a.db" }}, "tracing": {section},
                "departments": [{{ "id": "police", "callers": [{{ "dns": "police.example" }}] }}]
            }}"#
        );
        match compile_text(&text, std::path::Path::new("/etc/tallygate"), &NameInterner::default()) {
            Ok(read) => Ok(read.settings.tracing.expect("a section")),
            Err(problems) => Err(problems.0.into_iter().map(|one| (one.path, one.message)).collect()),
        }
    }

    #[test]
    fn section_has_defaults() {
        let settings = compile(r#"{ "endpoint": "http://collector:4318" }"#).expect("valid");
        assert_eq!(settings.endpoint.to_string(), "http://collector:4318/v1/traces");
        assert_eq!((settings.one_of, settings.is_parent_based, settings.queue), (100, true, 2048));
        assert_eq!((settings.timeout, settings.service_name.as_str()), (Duration::from_secs(10), "tallygate"));
        let all = r#"{ "endpoint": "https://[::1]/otlp", "sample": "all", "parentBased": false, "serviceName": "gate",
                       "timeout": "2s", "queue": 9 }"#;
        let settings = compile(all).expect("valid");
        assert_eq!((settings.endpoint.host.as_str(), settings.endpoint.port), ("::1", 443));
        assert_eq!((settings.one_of, settings.is_parent_based, settings.queue), (1, false, 9));
    }

    #[test]
    fn values_that_cannot_be_are_named() {
        for (section, path, reason) in [
            (r#"{ "endpoint": "collector:4318" }"#, "tracing.endpoint", "it does not begin with http://"),
            (r#"{ "endpoint": "http://me:secret@c" }"#, "tracing.endpoint", "it has a user"),
            (r#"{ "endpoint": "http://c?a=b" }"#, "tracing.endpoint", "it has a query"),
            (r#"{ "endpoint": "http://c", "sample": "1%" }"#, "tracing.sample", "write all, none, or 1/N"),
            (r#"{ "endpoint": "http://c", "timeout": "5m" }"#, "tracing.timeout", "write at most 60s"),
            (r#"{ "endpoint": "http://c", "queue": 0 }"#, "tracing.queue", "write at least 1"),
            (r#"{ "endpoint": "http://c", "queue": 2000000 }"#, "tracing.queue", "at most 1048576"),
            (r#"{ "endpoint": "http://c", "serviceName": " " }"#, "tracing.serviceName", "a name of 1 to 255"),
        ] {
            let problems = compile(section).expect_err(section);
            assert!(problems.iter().any(|(at, what)| at == path && what.contains(reason)), "{section}: {problems:?}");
            assert!(!problems.iter().any(|(_, what)| what.contains("secret")), "{problems:?}");
        }
    }
}

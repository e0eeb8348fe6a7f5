//! The format of samples that a scraper asks for (`Accept`, RFC 9110 section 12.5.1).
//!
//! Guarantees: pure. A scraper that prefers neither format gets the Prometheus text format.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::report::SampleFormat;

/// The weight of a media range in thousandths.
type Weight = u16;

/// Returns the format that the request prefers.
pub(crate) fn preferred_format(headers: &HeaderMap) -> SampleFormat {
    let (mut text, mut open) = (0, 0);
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let Some((format, weight)) = media_range(range) else { continue };
            let best = if format == SampleFormat::Text { &mut text } else { &mut open };
            *best = weight.max(*best);
        }
    }
    if open > 0 && open >= text { SampleFormat::OpenMetrics } else { SampleFormat::Text }
}

/// Reads a media range that names one of the two formats, with its weight.
fn media_range(text: &str) -> Option<(SampleFormat, Weight)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next()?.to_ascii_lowercase();
    let (mut version, mut weight) = (None, 1000);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value.trim()),
            "q" => weight = parse_weight(value.trim()),
            _ => {} // escaping, charset
        }
    }
    match (kind.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0")) => Some((SampleFormat::OpenMetrics, weight)),
        ("text/plain" | "text/*" | "*/*", None | Some("0.0.4")) => Some((SampleFormat::Text, weight)),
        _ => None,
    }
}

/// Reads a weight (RFC 9110 section 12.4.2); a malformed one counts as 0.
fn parse_weight(text: &str) -> Weight {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{decimals:0<3}");
    let is_weight = matches!(whole, "0" | "1") && digits.len() == 4;
    digits.parse().ok().filter(|weight| is_weight && *weight <= 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// What Prometheus 2.42 and 3.14 send.
    const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;\
                                q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                                application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
                                escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

    #[test]
    fn format_with_the_greatest_weight_is_chosen() {
        for (accept, expected) in [
            (None, SampleFormat::Text),
            (Some(""), SampleFormat::Text),
            (Some("*/*"), SampleFormat::Text),
            (Some(PROMETHEUS_2), SampleFormat::OpenMetrics),
            (Some(PROMETHEUS_3), SampleFormat::OpenMetrics),
            (Some("application/openmetrics-text"), SampleFormat::OpenMetrics),
            (Some("Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8"), SampleFormat::OpenMetrics),
            (Some("application/openmetrics-text; version=2.0.0"), SampleFormat::Text),
            (Some("application/openmetrics-text; q=0"), SampleFormat::Text),
            (Some("application/openmetrics-text; q=1.5, text/plain; q=0.1"), SampleFormat::Text),
            (Some("application/openmetrics-text; q=0.75, text/plain; q=0.751"), SampleFormat::Text),
            (Some("application/openmetrics-text; q=0.5, text/plain; q=0.5"), SampleFormat::OpenMetrics),
            (Some("text/plain; version=0.0.4"), SampleFormat::Text),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), SampleFormat::Text),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(preferred_format(&headers), expected, "{accept:?}");
        }
    }
}

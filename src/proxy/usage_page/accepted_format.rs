//! The format of the usage page that a caller asks for (`Accept`, RFC 9110 section 12.5.1).
//!
//! Guarantees: pure. Whoever does not name `text/html` with at least the weight of JSON gets JSON.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::report::UsagePageFormat;

/// The format that a request prefers.
pub(crate) fn preferred_format(headers: &HeaderMap) -> UsagePageFormat {
    let (mut html, mut json) = (0, 0);
    for value in headers.get_all(ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let weight = weight.map_or(1000, thousandths);
            match kind.as_str() {
                "text/html" | "application/xhtml+xml" => html = weight.max(html),
                "application/json" => json = weight.max(json),
                _ => {}
            }
        }
    }
    if html > 0 && html >= json { UsagePageFormat::Html } else { UsagePageFormat::Json }
}

/// A weight in thousandths (RFC 9110 section 12.4.2); a malformed one counts as 0.
fn thousandths(weight: &str) -> u16 {
    let (whole, decimals) = weight.split_once('.').unwrap_or((weight, ""));
    let digits = format!("{whole}{decimals:0<3}");
    let is_weight = matches!(whole, "0" | "1") && digits.len() == 4;
    digits.parse().ok().filter(|weight| is_weight && *weight <= 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn browsers_get_html_and_programs_get_json() {
        let chromium = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        for (accept, expected) in [
            (None, UsagePageFormat::Json),
            (Some("*/*"), UsagePageFormat::Json),
            (Some(chromium), UsagePageFormat::Html),
            (Some("application/json"), UsagePageFormat::Json),
            (Some("application/json, text/html;q=0.9"), UsagePageFormat::Json),
            (Some("application/json;q=0.5, TEXT/HTML;q=0.9"), UsagePageFormat::Html),
            (Some("text/html;q=0"), UsagePageFormat::Json),
            (Some("text/html;q=7"), UsagePageFormat::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(preferred_format(&headers), expected, "{accept:?}");
        }
    }
}

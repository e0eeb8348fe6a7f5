//! The answer of the query API, from JSON to series. Source: prometheus.io, "HTTP API".

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Number;

use crate::report::{ScrapedSample, ScrapedSeries};

use super::prometheus_error::QueryFault;

/// The most characters of a foreign text in a message.
const EXCERPT_MAX: usize = 120;

/// The series of an answer, and its warnings.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli) struct QueryAnswer {
    pub(in crate::cli) series: Vec<ScrapedSeries>,
    /// An answer with warnings may be only a part: of a server that asks others.
    pub(in crate::cli) warnings: Vec<String>,
}

#[derive(Deserialize)]
struct ApiDocument {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<ApiData>,
}

#[derive(Deserialize)]
struct ApiData {
    result: Vec<ApiSeries>,
}

#[derive(Deserialize)]
struct ApiSeries {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(Number, String)>,
}

/// Parses the body of an answer with this status to `query`.
pub(super) fn parse_answer(status: u16, body: &[u8], query: &str) -> Result<QueryAnswer, QueryFault> {
    let document: ApiDocument = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(error) if status == 200 && body.starts_with(b"{") => return Err(QueryFault::Malformed(error.to_string())),
        Err(_) => return Err(QueryFault::NotTheApi { status, excerpt: excerpt(&String::from_utf8_lossy(body)) }),
    };
    if document.status != "success" || status != 200 {
        let reason = format!("status {status}, {}", excerpt(&document.error));
        return Err(QueryFault::Refused { query: query.to_owned(), reason });
    }
    let data = document.data.ok_or_else(|| QueryFault::Malformed("it has no data".to_owned()))?;
    let series = data.result.into_iter().map(series_of).collect::<Result<_, _>>()?;
    let warnings = document.warnings.iter().map(|warning| excerpt(warning)).collect();
    Ok(QueryAnswer { series, warnings })
}

fn series_of(series: ApiSeries) -> Result<ScrapedSeries, QueryFault> {
    let sample = |(time, value): (Number, String)| {
        // A whole number of seconds, as nearly always, needs no text.
        let millis = match time.as_i64() {
            Some(seconds) => seconds.checked_mul(1000),
            None => millis_of(&time.to_string()),
        };
        let millis = millis.ok_or_else(|| QueryFault::Malformed(format!("{time} is not a time")))?;
        Ok(ScrapedSample { millis, value })
    };
    let samples = series.values.into_iter().map(sample).collect::<Result<_, _>>()?;
    Ok(ScrapedSeries { labels: series.metric, samples })
}

/// Reads seconds with up to three places as milliseconds, without a float.
fn millis_of(text: &str) -> Option<i64> {
    let (seconds, places) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let places = places.get(..places.len().min(3))?;
    let millis: i64 = format!("{places:0<3}").parse().ok()?;
    seconds.checked_mul(1000)?.checked_add(millis)
}

/// The beginning of a foreign text on one line, without control characters.
pub(in crate::cli) fn excerpt(text: &str) -> String {
    let plain: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).take(EXCERPT_MAX).collect();
    if plain.trim().is_empty() { "empty".to_owned() } else { plain.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_is_series_with_exact_times_and_values() {
        let body = br#"{"status":"success","warnings":["partial"],"data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"x","a":"b"},"values":[[1793458740,"9007199254740991"],[1793458740.5,"2"]]}]}}"#;
        let answer = parse_answer(200, body, "x").expect("series");
        let samples = [(1_793_458_740_000, "9007199254740991"), (1_793_458_740_500, "2")];
        let samples = samples.map(|(millis, value)| ScrapedSample { millis, value: value.to_owned() });
        assert_eq!(answer.series[0].samples, samples);
        assert_eq!((answer.series[0].labels["a"].as_str(), answer.warnings), ("b", vec!["partial".to_owned()]));
    }

    #[test]
    fn answer_that_cannot_be_used_is_described() {
        for (status, body, expected) in [
            (200, "<html>\nlogin", "status 200, and the answer is not that of the query API (<html> login)"),
            (
                404,
                "404 page not found\n",
                "status 404, and the answer is not that of the query API (404 page not found)",
            ),
            (200, "", "status 200, and the answer is not that of the query API (empty)"),
            (200, r#"{"status":"success"}"#, "it has no data"),
            (200, r#"{"status":"success","data":{"result":[{"metric":{},"values":[["x","1"]]}]}}"#, "is not a list"),
            (200, r#"{"status":"success","data":{"result":"#, "is not a list of series"),
            (422, r#"{"status":"error","errorType":"execution","error":"too many samples"}"#, "422, too many samples"),
            (500, r#"{"status":"success","data":{"result":[]}}"#, "refused the query \"x\": status 500, empty"),
        ] {
            let fault = parse_answer(status, body.as_bytes(), "x").expect_err(body).to_string();
            assert!(fault.contains(expected), "{body}: {fault}");
        }
    }
}

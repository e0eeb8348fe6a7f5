//! Canaries: `canary` and `canary-*`.
//!
//! Guarantees: the order is that of ingress-nginx: header, then cookie, then weight.
//!
//! Leaves to others: the Ingress whose requests the canary shares (`ingresses`).

use regex::Regex;
use serde_json::{Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::parse_count;
use crate::policy::{BackendShare, is_reserved_header};

/// Requests that go to the canary, or never to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kube::translate) struct CanaryRule {
    /// A condition on a header field.
    pub(in crate::kube::translate) condition: Value,
    pub(in crate::kube::translate) to_canary: bool,
}

/// The share of a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kube::translate) struct CanaryPlan {
    /// The earlier rule decides.
    pub(in crate::kube::translate) rules: Vec<CanaryRule>,
    /// Of [`CanaryPlan::total`] other requests so many go to the canary.
    pub(in crate::kube::translate) weight: u64,
    pub(in crate::kube::translate) total: u64,
}

pub(super) fn read_canary(reader: &mut AnnotationReader<'_>) -> Option<CanaryPlan> {
    let is_canary = reader.switch("canary");
    if is_canary != Some(true) {
        reader.taken("canary", "off");
        for name in ["weight", "weight-total", "by-header", "by-header-value", "by-header-pattern", "by-cookie"] {
            reader.taken(&format!("canary-{name}"), "has no effect without canary: \"true\"");
        }
        return None;
    }
    let sentence = "the Ingress shares the requests of the one of its namespace with the same host and path; they are \
                    metered under that one";
    reader.differs("canary", sentence);
    let total = reader.parsed("canary-weight-total", "a whole number above 0 and at most 1000000", |text| {
        parse_count(text).filter(|total| (1..=u64::from(BackendShare::WEIGHT_MAX)).contains(total))
    });
    reader.taken("canary-weight-total", "the sum of the weights");
    let total = total.unwrap_or(100);
    let weight = reader.parsed("canary-weight", "a whole number", parse_count).unwrap_or(0).min(total);
    reader.taken("canary-weight", "the share of the canary, as weights between backends");
    let mut rules = header_rules(reader);
    rules.extend(cookie_rules(reader));
    Some(CanaryPlan { rules, weight, total })
}

fn header_rules(reader: &mut AnnotationReader<'_>) -> Vec<CanaryRule> {
    let name = reader.value("canary-by-header").filter(|name| !name.is_empty());
    let Some(name) = name else {
        for other in ["canary-by-header-value", "canary-by-header-pattern"] {
            reader.taken(other, "has no effect without canary-by-header");
        }
        return Vec::new();
    };
    if !is_matchable(name) {
        reader.lost("canary-by-header", "requests cannot be matched by this field; the weight decides");
        for other in ["canary-by-header-value", "canary-by-header-pattern"] {
            reader.lost(other, "requests cannot be matched by this field");
        }
        return Vec::new();
    }
    reader.taken("canary-by-header", "a condition on the field; it goes before cookie and weight");
    let rule = |condition: Value, to_canary| CanaryRule { condition, to_canary };
    if let Some(value) = reader.value("canary-by-header-value").filter(|value| !value.is_empty()) {
        reader.taken("canary-by-header-value", "requests with exactly this value go to the canary");
        reader.taken("canary-by-header-pattern", "canary-by-header-value takes precedence");
        return vec![rule(json!({ "name": name, "value": value }), true)];
    }
    if let Some(pattern) = reader.value("canary-by-header-pattern").filter(|pattern| !pattern.is_empty()) {
        let expression = format!(".*(?:{pattern}).*");
        if Regex::new(&expression).is_err() {
            reader.lost("canary-by-header-pattern", "is not a regular expression in the syntax of RE2");
            return Vec::new();
        }
        reader.taken("canary-by-header-pattern", "requests whose value matches go to the canary");
        return vec![rule(json!({ "name": name, "regex": expression }), true)];
    }
    let exactly = |word: &str| json!({ "name": name, "value": word });
    vec![rule(exactly("always"), true), rule(exactly("never"), false)]
}

fn cookie_rules(reader: &mut AnnotationReader<'_>) -> Vec<CanaryRule> {
    let Some(name) = reader.value("canary-by-cookie").filter(|name| !name.is_empty()) else { return Vec::new() };
    reader.taken("canary-by-cookie", "a condition on the field Cookie: always and never");
    let name = regex::escape(name);
    let rule = |word: &str, to_canary| {
        let expression = format!("(?:.*;\\s*)?{name}={word}(?:\\s*;.*)?");
        CanaryRule { condition: json!({ "name": "cookie", "regex": expression }), to_canary }
    };
    vec![rule("always", true), rule("never", false)]
}

fn is_matchable(name: &str) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let name = http::HeaderName::from_bytes(name.as_bytes());
    let is_free = name.is_ok_and(|name| name != http::header::HOST && !is_reserved_header(&name));
    is_plain && is_free
}

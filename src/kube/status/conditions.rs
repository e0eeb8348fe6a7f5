//! Conditions: wanted ones beside shown ones.
//!
//! Guarantees:
//! - A condition whose status is unchanged keeps its time.
//! - Conditions keep their places; new ones come last.
//!
//! Leaves to others:
//! - which conditions are ours: the caller.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::wanted::WantedCondition;

/// The longest message, in bytes. The API allows 32 KiB; nobody reads that.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Types of conditions that this controller writes. Shown ones of these types that are not wanted are removed; others
/// are kept.
const OURS: [&str; 12] = [
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "Conflicted",
    "OverlappingTLSConfig",
    "PartiallyInvalid",
    "InsecureFrontendValidationMode",
    "SupportedVersion",
    "Scheduled",
    "Ready",
    "Attached",
    "Detached",
];

/// Returns the conditions to show.
pub(super) fn merged_conditions(wanted: &[WantedCondition], shown: &Value, now: Timestamp) -> Value {
    let shown: &[Value] = shown.as_array().map(Vec::as_slice).unwrap_or_default();
    let is_wanted = |kind: &str| wanted.iter().find(|condition| condition.kind == kind);
    let mut merged: Vec<Value> = Vec::new();
    for condition in shown {
        let kind = condition["type"].as_str().unwrap_or_default();
        match is_wanted(kind) {
            Some(wanted) if !has_kind(&merged, kind) => merged.push(merged_condition(wanted, Some(condition), now)),
            Some(_) => {}
            None if OURS.contains(&kind) => {}
            None => merged.push(condition.clone()),
        }
    }
    for condition in wanted {
        if !has_kind(&merged, &condition.kind) {
            merged.push(merged_condition(condition, None, now));
        }
    }
    Value::Array(merged)
}

fn has_kind(conditions: &[Value], kind: &str) -> bool {
    conditions.iter().any(|condition| condition["type"] == kind)
}

fn merged_condition(wanted: &WantedCondition, shown: Option<&Value>, now: Timestamp) -> Value {
    let status = wanted.status.as_str();
    let same = shown.filter(|shown| shown["status"] == status);
    let since = same.and_then(|shown| shown["lastTransitionTime"].as_str()).map_or_else(|| time(now), str::to_owned);
    json!({
        "type": wanted.kind,
        "status": status,
        "reason": wanted.reason,
        "message": wanted.message[..wanted.message.floor_char_boundary(MESSAGE_BYTES_MAX)],
        "observedGeneration": wanted.generation,
        "lastTransitionTime": since,
    })
}

/// Whole seconds: the API has no others.
fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

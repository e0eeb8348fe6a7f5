//! The bandwidth of responses: `limit-rate` and `limit-rate-after`.
//!
//! Guarantees: where ingress-nginx has no limit although it is written, the finding says which one holds here.
//!
//! Leaves to others: the limit itself (`proxy`).

use serde_json::{Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::parse_count;

/// The largest number of KiB that nginx reads as a size.
const KIB_MAX: u64 = (i64::MAX as u64) >> 10;

/// The key `bandwidthLimit` of each command.
pub(super) fn read_bandwidth(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    let rate = read_kib(reader, "limit-rate").filter(|rate| *rate > 0);
    if rate.is_none() {
        reader.taken("limit-rate", "0: no limit");
        reader.taken("limit-rate-after", "has no effect without limit-rate");
        return None;
    }
    let is_grpc = reader.value("backend-protocol").is_some_and(|text| text.to_ascii_uppercase().starts_with("GRPC"));
    if is_grpc {
        for name in ["limit-rate", "limit-rate-after"] {
            reader.taken(name, "has no effect with backend-protocol GRPC or GRPCS, as in ingress-nginx");
        }
        return None;
    }
    match reader.value("proxy-buffering") {
        Some("on") => reader.taken("limit-rate", "the bytes of a response body in KiB per second, for each request"),
        _ => {
            let sentence = "the bytes of a response body in KiB per second, for each request; ingress-nginx limits \
                            only with proxy-buffering: on";
            reader.differs("limit-rate", sentence);
        }
    }
    let after = read_kib(reader, "limit-rate-after");
    reader.taken("limit-rate-after", "the KiB at the beginning of a response body that are sent without limit");
    let mut limit = json!({ "rate": format!("{}KiB", rate?) });
    if let Some(after) = after {
        limit["after"] = json!(format!("{after}KiB"));
    }
    Some(limit)
}

fn read_kib(reader: &mut AnnotationReader<'_>, name: &str) -> Option<u64> {
    reader.parsed(name, "a whole number of KiB", |text| parse_count(text).filter(|count| *count <= KIB_MAX))
}

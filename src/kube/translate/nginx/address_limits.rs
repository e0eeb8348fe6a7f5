//! Limits and restrictions by the address of clients: `limit-*` and `*-source-range`.
//!
//! Guarantees:
//! - A rate admits what ingress-nginx admits: its leaky bucket lets one more than its burst pass at once.
//! - A list of addresses that cannot be read refuses the Ingress, if it restricts callers.
//!
//! Leaves to others: the zone that the paths of an Ingress share (`ingresses`).

use serde_json::{Map, Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::{list_items, parse_count, parse_range};

/// The burst of ingress-nginx: a multiple of the rate.
const BURST_MULTIPLIER: u64 = 5;
/// The largest rate and the largest number of connections that are taken.
const LIMIT_MAX: u64 = 1_000_000;
/// The largest multiplier that is taken.
const MULTIPLIER_MAX: u64 = 1000;
/// The status of refusals, without `limit-req-status-code` of the ConfigMap.
const STATUS: u64 = 503;

/// The key `addressLimits` of each command, without its zone.
pub(super) fn read_limits(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    let multiplier = |text: &str| parse_count(text).filter(|count| (1..=MULTIPLIER_MAX).contains(count));
    let multiplier = reader.parsed("limit-burst-multiplier", "a whole number from 1 to 1000", multiplier);
    reader.taken("limit-burst-multiplier", "the burst is so many times the rate");
    let mut limits = Map::new();
    let mut rates = Vec::new();
    for (name, unit) in [("limit-rps", "s"), ("limit-rpm", "m")] {
        let Some(count) = read_limit(reader, name) else { continue };
        let burst = count * multiplier.unwrap_or(BURST_MULTIPLIER) + 1;
        rates.push(json!({ "rate": format!("{count}/{unit}"), "burst": burst }));
        let sentence = "the rate of each client address, in each replica by itself; 503 beyond it; IPv6 addresses of \
                        one /64 are one address";
        reader.taken(name, sentence);
    }
    if !rates.is_empty() {
        limits.insert("rates".to_owned(), json!(rates));
    }
    if let Some(count) = read_limit(reader, "limit-connections") {
        limits.insert("concurrent".to_owned(), json!(count));
        let sentence = "requests in flight of each client address, which are the connections that nginx counts; 503 \
                        beyond it; IPv6 addresses of one /64 are one address";
        reader.taken("limit-connections", sentence);
    }
    let except = read_except(reader);
    if limits.is_empty() {
        return None;
    }
    limits.insert("status".to_owned(), json!(STATUS));
    if !except.is_empty() {
        limits.insert("except".to_owned(), json!(except));
    }
    Some(Value::Object(limits))
}

/// A limit above 0.
fn read_limit(reader: &mut AnnotationReader<'_>, name: &str) -> Option<u64> {
    let count = reader
        .parsed(name, "a whole number up to 1000000", |text| parse_count(text).filter(|count| *count <= LIMIT_MAX))?;
    if count == 0 {
        reader.taken(name, "0: no limit");
        return None;
    }
    Some(count)
}

/// The addresses without limits. Those that cannot be read keep them.
fn read_except(reader: &mut AnnotationReader<'_>) -> Vec<String> {
    let mut except = Vec::new();
    for name in ["limit-whitelist", "limit-allowlist"] {
        let items: Vec<&str> = reader.value(name).map(list_items).into_iter().flatten().collect();
        let ranges: Vec<String> = items.iter().filter_map(|item| parse_range(item)).collect();
        match ranges.len() == items.len() {
            true => reader.taken(name, "addresses without limits"),
            false => reader.lost(name, "what is not a range of addresses; its addresses are limited"),
        }
        except.extend(ranges);
    }
    except
}

/// The key `sources` of each command.
pub(super) fn read_sources(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    let mut sources = Map::new();
    let (old, new) = ("whitelist-source-range", "allowlist-source-range");
    let allow = read_ranges(reader, old, "403 for other client addresses");
    let alias = read_ranges(reader, new, "403 for other client addresses");
    if !allow.is_empty() && !alias.is_empty() && allow != alias {
        reader.refused(new, "whitelist-source-range is another list, and only one of them counts in ingress-nginx");
    }
    let allow = if allow.is_empty() { alias } else { allow };
    let deny = read_ranges(reader, "denylist-source-range", "403 for these client addresses");
    for (key, ranges) in [("allow", allow), ("deny", deny)] {
        if !ranges.is_empty() {
            sources.insert(key.to_owned(), json!(ranges));
        }
    }
    (!sources.is_empty()).then_some(Value::Object(sources))
}

fn read_ranges(reader: &mut AnnotationReader<'_>, name: &str, sentence: &str) -> Vec<String> {
    let items: Vec<&str> = reader.value(name).map(list_items).into_iter().flatten().collect();
    let ranges: Vec<String> = items.iter().filter_map(|item| parse_range(item)).collect();
    match (ranges.len() == items.len(), items.is_empty()) {
        (false, _) => reader.refused(name, "some of the list is not a range of addresses"),
        (true, true) => reader.taken(name, "empty"),
        (true, false) => reader.taken(name, sentence),
    }
    ranges
}

//! From text to [`Document`] or [`Part`]: YAML, unknown keys with hints, wrong types with their paths.
//!
//! Guarantees: time and memory are in proportion to the bytes of the text: what aliases may multiply is bounded by it.

use std::cell::OnceCell;

use serde::de::DeserializeOwned;
use serde_ignored::Path as IgnoredPath;
use serde_json::Value;
use serde_path_to_error::Track;
use serde_saphyr::{Options, budget, options};

use super::document::{Document, Part};
use super::misread::misread;
use super::problem::{PROBLEMS_MAX, Problem};
use super::schema;

/// What is said about a key that is no key.
pub(super) const UNKNOWN_KEY: &str = "unknown key";

/// The keys of a file that is included.
const PART_KEYS: [&str; 3] = ["departments", "subsystems", "grants"];
/// Collections within collections at most; a configuration has eight.
const DEPTH_MAX: usize = 64;
/// Nodes and events that any text may have, however small: so a short file may use aliases freely.
const NODES_FREE: usize = 250_000;
const EVENTS_FREE: usize = 1_000_000;
/// Bytes of text that any file may expand to.
const SCALAR_BYTES_FREE: usize = 64 * 1024 * 1024;

/// Reads a main file; the problems are those of syntax, of shape and all unknown keys.
pub(super) fn document(text: &str) -> (Option<Document>, Vec<Problem>) {
    let (document, unknown, misread) = yaml(text);
    let schema = OnceCell::new();
    let unknown = unknown.into_iter().map(|steps| unknown_key(&steps, &schema));
    (document, unknown.chain(misread).collect())
}

/// Reads a file that is included. One that holds nothing, or comments only, adds nothing.
pub(super) fn part(text: &str) -> (Option<Part>, Vec<Problem>) {
    let is_silent = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_silent) {
        return (Some(Part::default()), Vec::new());
    }
    let (part, unknown, misread) = yaml(text);
    let schema = OnceCell::new();
    let unknown = unknown.into_iter().map(|steps| match steps.as_slice() {
        [Step::Key(key)] => key_of_the_main_file(key, &schema),
        _ => unknown_key(&steps, &schema),
    });
    (part, unknown.chain(misread).collect())
}

/// What was read, the paths of at most [`PROBLEMS_MAX`] unknown keys, and why the reading stopped.
fn yaml<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<Vec<Step>>, Option<Problem>) {
    let mut unknown = Vec::new();
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, limits(text.len()), |yaml| {
        let tracked = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let mut note = |path: IgnoredPath<'_>| {
            if unknown.len() < PROBLEMS_MAX {
                unknown.push(steps(&path));
            }
        };
        T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note))
    });
    match read {
        Ok(read) => (Some(read), unknown, None),
        Err(error) => (None, unknown, Some(misread(&error, &track.path().to_string()))),
    }
}

/// Limits in proportion to the bytes of a text. A text without aliases has at most two events a byte (`{a,b}`), so it never
/// meets them, however many departments it has; one in which aliases multiply meets them soon
/// (`docs/decisions/yaml.md`).
fn limits(bytes: usize) -> Options {
    let twice = bytes.saturating_mul(2);
    let mut options = options! {
        budget: budget! {
            max_depth: DEPTH_MAX,
            max_nodes: twice.max(NODES_FREE),
            max_events: twice.max(EVENTS_FREE),
            max_total_scalar_bytes: twice.max(SCALAR_BYTES_FREE),
            max_aliases: bytes,
            max_merge_keys: bytes,
            enforce_alias_anchor_ratio: false, // one set of limits may serve every department
        },
        emit_comments: false,
    };
    options.alias_limits.max_total_replayed_events = bytes.max(EVENTS_FREE);
    options
}

fn unknown_key(steps: &[Step], schema: &OnceCell<Value>) -> Problem {
    let keys: Vec<String> = steps.iter().filter_map(Step::key).map(str::to_owned).collect();
    let hint = keys
        .split_last()
        .and_then(|(unknown, parents)| nearest(unknown, &schema::keys_in(schema.get_or_init(schema::schema), parents)));
    Problem { hint, ..Problem::new(show(steps), UNKNOWN_KEY) }
}

fn key_of_the_main_file(key: &str, schema: &OnceCell<Value>) -> Problem {
    if schema::keys_in(schema.get_or_init(schema::schema), &[]).iter().any(|known| known == key) {
        let message = "stands in an included file; only the main file may have it";
        return Problem::new(key, message).with_hint(format!("here there may be: {}", PART_KEYS.join(", ")));
    }
    Problem { hint: nearest(key, &PART_KEYS.map(str::to_owned)), ..Problem::new(key, UNKNOWN_KEY) }
}

fn nearest(unknown: &str, known: &[String]) -> Option<String> {
    let best =
        known.iter().min_by_key(|key| strsim::damerau_levenshtein(&key.to_lowercase(), &unknown.to_lowercase()))?;
    let distance = strsim::damerau_levenshtein(&best.to_lowercase(), &unknown.to_lowercase());
    if distance * 3 <= unknown.len().max(3) {
        return Some(format!("did you mean {best:?}?"));
    }
    Some(format!("known here: {}", known.join(", ")))
}

enum Step {
    Key(String),
    Item(usize),
}

impl Step {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Item(_) => None,
        }
    }
}

fn steps(path: &IgnoredPath<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    collect(path, &mut steps);
    steps
}

fn collect(path: &IgnoredPath<'_>, steps: &mut Vec<Step>) {
    match path {
        IgnoredPath::Root => {}
        IgnoredPath::Seq { parent, index } => {
            collect(parent, steps);
            steps.push(Step::Item(*index));
        }
        IgnoredPath::Map { parent, key } => {
            collect(parent, steps);
            steps.push(Step::Key(key.clone()));
        }
        IgnoredPath::Some { parent }
        | IgnoredPath::NewtypeStruct { parent }
        | IgnoredPath::NewtypeVariant { parent } => collect(parent, steps),
    }
}

fn show(steps: &[Step]) -> String {
    let mut shown = String::new();
    for step in steps {
        match step {
            Step::Item(index) => shown.push_str(&format!("[{index}]")),
            Step::Key(key) if shown.is_empty() => shown.push_str(key),
            Step::Key(key) => shown.extend([".", key]),
        }
    }
    shown
}

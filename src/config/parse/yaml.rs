//! YAML parsing: from text to [`ConfigDocument`] or [`IncludedDocument`], with hints for unknown keys and paths for
//! wrong types.
//!
//! Guarantees: time and memory are proportional to the bytes of the text. This bound covers the expansion of aliases.

use std::cell::OnceCell;

use serde::de::DeserializeOwned;
use serde_ignored::Path as IgnoredPath;
use serde_json::Value;
use serde_path_to_error::Track;
use serde_saphyr::{Options, budget, options};

use crate::config::document::{ConfigDocument, IncludedDocument};

use super::json_schema;
use super::problem::{ConfigProblem, PROBLEMS_MAX};
use super::syntax_errors::syntax_problem;

/// The message about an unknown key.
pub(crate) const UNKNOWN_KEY: &str = "unknown key";

/// The keys of an included file.
const PART_KEYS: [&str; 5] = ["listeners", "departments", "subsystems", "backends", "grants"];
/// The deepest nesting of collections; a configuration has eight levels.
const YAML_DEPTH_MAX: usize = 64;
/// The number of nodes and of events that a text of any size may have, so that a short file may use aliases freely.
const NODES_ALLOWED_MIN: usize = 250_000;
const EVENTS_ALLOWED_MIN: usize = 1_000_000;
/// The bytes of text that a file of any size may expand to.
const SCALAR_BYTES_ALLOWED_MIN: usize = 64 * 1024 * 1024;

/// Parses a main file. The problems are those of syntax and shape, and all unknown keys.
pub(crate) fn parse_document(text: &str) -> (Option<ConfigDocument>, Vec<ConfigProblem>) {
    let (document, unknown, misread) = parse_yaml(text);
    let schema = OnceCell::new();
    let unknown = unknown.into_iter().map(|steps| unknown_key_problem(&steps, &schema));
    (document, unknown.chain(misread).collect())
}

/// Parses an included file. A file that is empty, or holds comments only, adds nothing.
pub(crate) fn parse_included(text: &str) -> (Option<IncludedDocument>, Vec<ConfigProblem>) {
    let is_silent = |line: &str| line.trim_start().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_silent) {
        return (Some(IncludedDocument::default()), Vec::new());
    }
    let (part, unknown, misread) = parse_yaml(text);
    let schema = OnceCell::new();
    let unknown = unknown.into_iter().map(|steps| match steps.as_slice() {
        [PathStep::Key(key)] => main_file_key_problem(key, &schema),
        _ => unknown_key_problem(&steps, &schema),
    });
    (part, unknown.chain(misread).collect())
}

/// The documents of a text, whatever they are about. JSON is YAML as well.
///
/// # Errors
/// The place of an error of syntax.
pub(crate) fn parse_values(text: &str) -> Result<Vec<Value>, Box<ConfigProblem>> {
    serde_saphyr::from_multiple_with_options(text, yaml_limits(text.len()))
        .map_err(|error| Box::new(syntax_problem(&error, "the text")))
}

/// The parsed document, the paths of at most [`PROBLEMS_MAX`] unknown keys, and the error that ended the parsing.
fn parse_yaml<T: DeserializeOwned>(text: &str) -> (Option<T>, Vec<Vec<PathStep>>, Option<ConfigProblem>) {
    let mut unknown = Vec::new();
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, yaml_limits(text.len()), |yaml| {
        let tracked = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let mut note = |path: IgnoredPath<'_>| {
            if unknown.len() < PROBLEMS_MAX {
                unknown.push(path_steps(&path));
            }
        };
        T::deserialize(serde_ignored::Deserializer::new(tracked, &mut note))
    });
    match read {
        Ok(read) => (Some(read), unknown, None),
        Err(error) => (None, unknown, Some(syntax_problem(&error, &track.path().to_string()))),
    }
}

/// Limits proportional to the bytes of a text. A text without aliases has at most two events per byte (`{a,b}`), so it
/// never reaches the limits, for any number of departments. A text in which aliases multiply reaches them soon
/// (`docs/decisions/yaml.md`).
fn yaml_limits(bytes: usize) -> Options {
    let twice = bytes.saturating_mul(2);
    let mut options = options! {
        budget: budget! {
            max_depth: YAML_DEPTH_MAX,
            max_nodes: twice.max(NODES_ALLOWED_MIN),
            max_events: twice.max(EVENTS_ALLOWED_MIN),
            max_total_scalar_bytes: twice.max(SCALAR_BYTES_ALLOWED_MIN),
            max_aliases: bytes,
            max_merge_keys: bytes,
            enforce_alias_anchor_ratio: false, // one set of limits may serve every department
        },
        emit_comments: false,
    };
    options.alias_limits.max_total_replayed_events = bytes.max(EVENTS_ALLOWED_MIN);
    options
}

fn unknown_key_problem(steps: &[PathStep], schema: &OnceCell<Value>) -> ConfigProblem {
    let keys: Vec<String> = steps.iter().filter_map(PathStep::key_name).map(str::to_owned).collect();
    let hint = keys.split_last().and_then(|(unknown, parents)| {
        nearest_key(unknown, &json_schema::known_keys(schema.get_or_init(json_schema::json_schema), parents))
    });
    ConfigProblem { hint, ..ConfigProblem::new(path_text(steps), UNKNOWN_KEY) }
}

fn main_file_key_problem(key: &str, schema: &OnceCell<Value>) -> ConfigProblem {
    if json_schema::known_keys(schema.get_or_init(json_schema::json_schema), &[]).iter().any(|known| known == key) {
        let message = "is not allowed in an included file; only the main file may have it";
        return ConfigProblem::new(key, message).with_hint(format!("allowed here: {}", PART_KEYS.join(", ")));
    }
    ConfigProblem { hint: nearest_key(key, &PART_KEYS.map(str::to_owned)), ..ConfigProblem::new(key, UNKNOWN_KEY) }
}

fn nearest_key(unknown: &str, known: &[String]) -> Option<String> {
    let best =
        known.iter().min_by_key(|key| strsim::damerau_levenshtein(&key.to_lowercase(), &unknown.to_lowercase()))?;
    let distance = strsim::damerau_levenshtein(&best.to_lowercase(), &unknown.to_lowercase());
    if distance * 3 <= unknown.len().max(3) {
        return Some(format!("did you mean {best:?}?"));
    }
    Some(format!("known here: {}", known.join(", ")))
}

enum PathStep {
    Key(String),
    Item(usize),
}

impl PathStep {
    fn key_name(&self) -> Option<&str> {
        match self {
            Self::Key(key) => Some(key),
            Self::Item(_) => None,
        }
    }
}

/// The path of a key that is not known, as all problems write paths: `subsystems[0].key`.
pub(super) fn unknown_key_path(path: &IgnoredPath<'_>) -> String {
    path_text(&path_steps(path))
}

fn path_steps(path: &IgnoredPath<'_>) -> Vec<PathStep> {
    let mut steps = Vec::new();
    collect_steps(path, &mut steps);
    steps
}

fn collect_steps(path: &IgnoredPath<'_>, steps: &mut Vec<PathStep>) {
    match path {
        IgnoredPath::Root => {}
        IgnoredPath::Seq { parent, index } => {
            collect_steps(parent, steps);
            steps.push(PathStep::Item(*index));
        }
        IgnoredPath::Map { parent, key } => {
            collect_steps(parent, steps);
            steps.push(PathStep::Key(key.clone()));
        }
        IgnoredPath::Some { parent }
        | IgnoredPath::NewtypeStruct { parent }
        | IgnoredPath::NewtypeVariant { parent } => collect_steps(parent, steps),
    }
}

fn path_text(steps: &[PathStep]) -> String {
    let mut shown = String::new();
    for step in steps {
        match step {
            PathStep::Item(index) => shown.push_str(&format!("[{index}]")),
            PathStep::Key(key) if shown.is_empty() => shown.push_str(key),
            PathStep::Key(key) => shown.extend([".", key]),
        }
    }
    shown
}

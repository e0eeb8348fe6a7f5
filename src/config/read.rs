//! From text to [`Document`]: YAML, unknown keys with hints, wrong types with their paths.

use serde::Deserialize;
use serde_ignored::Path as IgnoredPath;
use serde_path_to_error::Track;

use super::document::Document;
use super::misread::misread;
use super::problem::Problem;
use super::schema;

/// What is said about a key that is no key.
pub(super) const UNKNOWN_KEY: &str = "unknown key";

/// Reads a document; the problems are those of syntax, of shape and all unknown keys.
pub(super) fn document(text: &str) -> (Option<Document>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |yaml| {
        let tracked = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let mut unknown = |path: IgnoredPath<'_>| problems.push(unknown_key(&path));
        Document::deserialize(serde_ignored::Deserializer::new(tracked, &mut unknown))
    });
    match read {
        Ok(document) => (Some(document), problems),
        Err(error) => {
            problems.push(misread(&error, &track.path().to_string()));
            (None, problems)
        }
    }
}

fn unknown_key(path: &IgnoredPath<'_>) -> Problem {
    let mut steps = Vec::new();
    collect(path, &mut steps);
    let shown = show(&steps);
    let keys: Vec<String> =
        steps.into_iter().filter_map(|step| if let Step::Key(key) = step { Some(key) } else { None }).collect();
    let hint = keys.split_last().and_then(|(unknown, parents)| nearest(unknown, &schema::keys_at(parents)));
    Problem { path: shown, message: UNKNOWN_KEY.to_owned(), hint }
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

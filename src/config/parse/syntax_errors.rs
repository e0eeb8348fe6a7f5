//! Conversion of YAML and shape errors into messages for the author of a configuration. The messages of the YAML parser
//! are meant for programmers.

use serde_saphyr::Error;

use super::problem::{ConfigProblem, ProblemSite};

/// The problem for an error of the parser, which stopped at `path`.
pub(crate) fn syntax_problem(error: &Error, path: &str) -> ConfigProblem {
    let path = path.trim_end_matches(".?"); // a key that could not be read
    let path = if matches!(path, "." | "?") { "" } else { path };
    let error = error.without_snippet();
    let text = match error {
        Error::SerdeMissingField { field, .. } => return problem_at(error, &path_below(path, field), "is missing"),
        _ => message_of(error),
    };
    problem_at(error, path, &text)
}

fn problem_at(error: &Error, path: &str, text: &str) -> ConfigProblem {
    let Some(place) = error.location().filter(|place| place.line() > 0) else { return ConfigProblem::new(path, text) };
    let (line, column) = (usize::try_from(place.line()).ok(), usize::try_from(place.column()).ok());
    let message = format!("{text}{}", position_suffix(place.line(), place.column()));
    ConfigProblem {
        site: Some(ProblemSite { line, column, ..ProblemSite::default() }),
        ..ConfigProblem::new(path, message)
    }
}

/// The end of a message whose position is not given elsewhere.
pub(crate) fn position_suffix(line: impl std::fmt::Display, column: impl std::fmt::Display) -> String {
    format!(", at line {line}, column {column}")
}

fn path_below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn message_of(error: &Error) -> String {
    match error {
        Error::Eof { .. } => "the file ends where a mapping was expected".to_owned(),
        Error::MultipleDocuments { .. } => "a second document begins here; a configuration is one document".to_owned(),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("duplicate key {key}; keep one of them"),
        Error::Unexpected { expected, .. } => expectation_message(expected),
        Error::InvalidScalar { ty, .. } => scalar_message(ty),
        Error::Budget { .. } => {
            "the document expands beyond the limit for a file of this size; check for nested aliases (*name)".to_owned()
        }
        Error::AliasError { error, .. } => message_of(error.without_snippet()),
        other => first_line(other),
    }
}

fn expectation_message(expected: &str) -> String {
    match expected {
        "sequence start" => "a list was expected; begin each of its items with '- '".to_owned(),
        "mapping start" => "a mapping (keys with values) was expected".to_owned(),
        "string scalar" => "a scalar value was expected; text that begins with [ { * & or ! needs quotes".to_owned(),
        other => format!("{other} was expected"),
    }
}

fn scalar_message(kind: &str) -> String {
    match kind {
        "u64" => "a whole number was expected, not negative and below 2^64".to_owned(),
        "bool" => "true or false was expected".to_owned(),
        other => format!("this is not a valid {other}"),
    }
}

/// The first line of the parser's message, without the excerpt below it and without the position, which is given
/// elsewhere.
fn first_line(error: &Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.split_once(" at line ").map_or(line, |(text, _place)| text).to_owned()
}

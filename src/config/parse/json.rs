//! Documents from JSON, for those that another part of the process makes.
//!
//! Guarantees: a key that is not known is a problem, as in a file.

use serde::Deserialize;
use serde_json::Value;

use crate::config::document::IncludedDocument;

use super::problem::ConfigProblem;
use super::yaml::{UNKNOWN_KEY, unknown_key_path};

/// Reads the lists of a document.
pub(crate) fn parse_document(document: &Value) -> Result<IncludedDocument, Box<ConfigProblem>> {
    let mut unknown = None;
    let mut note = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| unknown_key_path(&path));
    };
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(document, &mut track);
    let read = IncludedDocument::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
    match (read, unknown) {
        (Ok(read), None) => Ok(read),
        (_, Some(path)) => Err(Box::new(ConfigProblem::new(path, UNKNOWN_KEY))),
        (Err(error), None) => Err(Box::new(ConfigProblem::new(track.path().to_string(), error.to_string()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_have_their_paths() {
        let grant = json!({ "department": "a", "subsystem": "b", "commands": ["*"] });
        assert_eq!(parse_document(&json!({ "grants": [grant] })).map(|read| read.grants.len()).ok(), Some(1));
        for (document, path) in [
            (json!({ "grants": [{ "department": 1, "subsystem": "b" }] }), "grants[0].department"),
            (json!({ "grants": [{ "department": "a", "subsystem": "b", "odd": 1 }] }), "grants[0].odd"),
        ] {
            assert_eq!(parse_document(&document).expect_err("a fault").path, path);
        }
    }
}

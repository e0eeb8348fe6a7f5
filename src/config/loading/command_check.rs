//! A check of commands by themselves, before any subsystem has them.
//!
//! Guarantees: what passes is valid in a subsystem without other commands, whatever its backends are.
//!
//! Leaves to others: two commands with one id or one match in a subsystem (the load of a configuration).

use std::path::Path;

use serde_json::{Value, json};

use crate::config::compile::{CompileContext, compile_document};
use crate::config::document::ConfigDocument;
use crate::config::parse::problem::ConfigProblem;
use crate::config::parse::source_files::SourceFiles;
use crate::model::NameInterner;

use super::source_set::MemoryDocument;

/// The subsystem that the commands are checked in.
const SUBSYSTEM: &str = "checked";

/// Checks a list of commands in the form of `subsystems[].commands`.
///
/// # Errors
/// The first problem; its path begins with `commands`.
pub(crate) fn check_commands(commands: &Value) -> Result<(), Box<ConfigProblem>> {
    let subsystem = json!({ "id": SUBSYSTEM, "backends": [{ "status": 500 }], "commands": commands });
    let included =
        MemoryDocument::from_json(SUBSYSTEM, &json!({ "subsystems": [subsystem] })).map_err(below_subsystem)?;
    let main = serde_json::from_value::<ConfigDocument>(json!({ "ledger": { "path": SUBSYSTEM } }));
    let mut document = main.map_err(|error| Box::new(ConfigProblem::new("ledger", error.to_string())))?;
    document.subsystems.clone_from(&included.document?.subsystems);
    let (sources, numbers) = (SourceFiles::new(Path::new(SUBSYSTEM)), NameInterner::default());
    let context = CompileContext { sources: &sources, version: "", numbers: &numbers, may_be_empty: true };
    let first = compile_document(&document, context, None).problems.into_iter().next();
    first.map_or(Ok(()), |problem| Err(below_subsystem(Box::new(problem))))
}

/// The problem at its path below the subsystem.
fn below_subsystem(mut problem: Box<ConfigProblem>) -> Box<ConfigProblem> {
    let below = problem.path.find("commands").map(|start| problem.path.split_off(start));
    if let Some(below) = below {
        problem.path = below;
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_paths_below_commands() {
        let command = |id: &str, matched: Value| json!({ "id": id, "match": matched });
        let get = command("a", json!([{ "method": "GET", "path": "/a/{id}" }]));
        assert_eq!(check_commands(&json!([get, command("b", json!({ "grpc": "a.B/C" }))])), Ok(()));
        for (commands, path) in [
            (json!([command("a", json!({ "path": "/a/{" }))]), "commands[0].match.path"),
            (json!([get, get]), "commands[1].id"),
            (json!([get, command("b", json!([{ "pathRegex": "(" }]))]), "commands[1].match[0].pathRegex"),
            (json!([command("other", json!({ "path": "/a" }))]), "commands[0].id"),
        ] {
            let problem = check_commands(&commands).expect_err("a problem");
            assert!(problem.path.contains(path), "{}: {}", problem.path, problem.message);
        }
    }
}

//! `tallygate check`: every problem of a configuration, with its path.

use std::path::Path;

use crate::config::{self, Configuration, Problems};
use crate::model::Numbers;

use super::Format;

/// Reads and compiles the configuration. Problems go to stderr for people and to stdout as JSON.
/// Returns the exit code: 0 clean, 1 problems.
pub fn check(config: &Path, format: Format) -> u8 {
    let checked = config::load(config, &Numbers::default());
    if format == Format::Json {
        print_json(&json(&checked));
    }
    match checked {
        Ok(configuration) => {
            eprintln!("{}: {}", config.display(), counts(&configuration));
            0
        }
        Err(problems) => {
            if format != Format::Json {
                eprintln!("{}", for_people(config, &problems));
            }
            1
        }
    }
}

/// Machine output of a command.
#[expect(clippy::print_stdout, reason = "the cli talks to stdout")]
pub(super) fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}

/// All problems, one a line, under the name of their file.
pub(super) fn for_people(config: &Path, problems: &Problems) -> String {
    let count = match problems.0.len() {
        1 => "1 problem".to_owned(),
        count => format!("{count} problems"),
    };
    let lines: Vec<_> = problems.0.iter().map(|problem| format!("  {problem}")).collect();
    format!("{}: {count}\n{}", config.display(), lines.join("\n"))
}

fn json(checked: &Result<Configuration, Problems>) -> serde_json::Value {
    match checked {
        Ok(read) => serde_json::json!({ "ok": true, "version": read.snapshot.version, "problems": [] }),
        Err(problems) => serde_json::json!({ "ok": false, "problems": problems.0 }),
    }
}

fn counts(read: &Configuration) -> String {
    let snapshot = &read.snapshot;
    let commands: usize = snapshot.subsystems.iter().map(|subsystem| subsystem.commands.len()).sum();
    format!(
        "no problems; version {}, {} listeners, {} departments, {} subsystems, {commands} commands",
        snapshot.version,
        read.settings.listeners.len(),
        snapshot.departments.len(),
        snapshot.subsystems.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_one_problem() {
        let missing = Path::new("/nowhere/tallygate.yaml");
        assert_eq!(check(missing, Format::Table), 1);
        let problems = config::load(missing, &Numbers::default()).expect_err("nothing there");
        let said = for_people(missing, &problems);
        assert!(
            said.starts_with("/nowhere/tallygate.yaml: 1 problem\n  /nowhere/tallygate.yaml cannot be read"),
            "{said}"
        );
        assert_eq!(json(&Err(problems))["ok"], false);
    }
}

//! `tallygate check`: every problem of a configuration, with its path.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{self, Configuration, Problems};
use crate::identity::{AuthorityInUse, ListInUse, TrustedFiles};
use crate::ledger::{SeriesMemory, series_memory};
use crate::model::{Name, Numbers};

use super::{AnswerFormat, NOT_SO, tell};

/// Which configuration.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

/// Reads and compiles the configuration. Problems go to stderr for people, and to stdout as JSON.
/// Exit code 0 if it is clean, 1 if it has problems.
pub fn check(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let checked = config::load(&args.config, &Numbers::default());
    let code = if checked.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) };
    match (args.format, checked) {
        (AnswerFormat::Json, checked) => writeln!(out, "{:#}", json(&checked))?,
        (AnswerFormat::Table, Ok(configuration)) => tell(&praise(&args.config, &configuration)),
        (AnswerFormat::Table, Err(problems)) => tell(&for_people(&args.config, &problems)),
    }
    Ok(code)
}

/// All problems, one a line, under the name of their file.
pub(super) fn for_people(config: &Path, problems: &Problems) -> String {
    let count = counted(problems.0.len(), "problem");
    let lines: Vec<_> = problems.0.iter().map(|problem| format!("  {problem}")).collect();
    format!("{}: {count}\n{}", config.display(), lines.join("\n"))
}

/// What is there, whom the listeners trust, and what is odd about it but does not stop its use.
fn praise(config: &Path, read: &Configuration) -> String {
    let trusted: String = config::trusted(&read.settings).iter().map(|(name, trusted)| trust(name, trusted)).collect();
    let warnings = config::warnings(read).into_iter().map(|warning| format!("\n  warning: {warning}"));
    let (counts, memory) = (counts(read), memory_line(&memory(read)));
    format!("{}: {counts}\n  {memory}{trusted}{}", config.display(), warnings.collect::<String>())
}

/// What the series that are granted cost the ledger.
fn memory(read: &Configuration) -> SeriesMemory {
    series_memory(read.snapshot.granted_series() as u64, read.settings.workers as u64)
}

fn memory_line(memory: &SeriesMemory) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    format!(
        "memory: at most {} MiB, and {} MiB of the ledger's mapped tally, for {} granted series (departments x commands)",
        mib(memory.own_bytes),
        mib(memory.mapped_bytes),
        memory.series
    )
}

/// Whom a listener trusts to name callers, and to revoke them.
fn trust(listener: &Name, trusted: &TrustedFiles) -> String {
    let TrustedFiles { authorities, lists, .. } = trusted;
    if authorities.is_empty() {
        return String::new(); // it asks nobody
    }
    let counts = match (authorities.len(), lists.len()) {
        (1, lists) => format!("1 authority, {}", counted(lists, "revocation list")),
        (count, lists) => format!("{count} authorities, {}", counted(lists, "revocation list")),
    };
    let authorities = authorities.iter().map(|authority| {
        let AuthorityInUse { path, name, until } = authority;
        format!("\n    authority {name}, until {until}, in {}", path.display())
    });
    let lists = lists.iter().map(listed);
    format!("\n  listener {listener} uses {counts}{}{}", authorities.collect::<String>(), lists.collect::<String>())
}

fn listed(list: &ListInUse) -> String {
    let ListInUse { path, issuer, number, until, scope, revoked, of_authority } = list;
    let number = number.as_deref().map_or_else(|| "without number".to_owned(), |number| format!("number {number}"));
    let of = if *of_authority { "" } else { " (of no authority here; for intermediate certificates of that name)" };
    format!(
        "\n    revocation list of {issuer}{of}, {number}, until {until}, for {scope}, {revoked} revoked, in {}",
        path.display()
    )
}

fn trust_json((listener, trusted): &(Name, TrustedFiles)) -> serde_json::Value {
    let authorities = trusted.authorities.iter().map(
        |authority| serde_json::json!({ "file": authority.path, "name": authority.name, "until": authority.until }),
    );
    let lists = trusted.lists.iter().map(|list| {
        serde_json::json!({
            "file": list.path,
            "issuer": list.issuer,
            "number": list.number,
            "until": list.until,
            "scope": list.scope,
            "revoked": list.revoked,
            "ofAuthority": list.of_authority,
        })
    });
    serde_json::json!({
        "listener": listener.as_str(),
        "authorities": authorities.collect::<Vec<_>>(),
        "revocationLists": lists.collect::<Vec<_>>(),
    })
}

fn json(checked: &Result<Configuration, Problems>) -> serde_json::Value {
    match checked {
        Ok(read) => serde_json::json!({
            "ok": true,
            "version": read.snapshot.version,
            "problems": [],
            "memory": memory(read),
            "warnings": config::warnings(read),
            "trust": config::trusted(&read.settings).iter().map(trust_json).collect::<Vec<_>>(),
        }),
        Err(problems) => serde_json::json!({ "ok": false, "problems": problems.0 }),
    }
}

fn counts(read: &Configuration) -> String {
    let snapshot = &read.snapshot;
    let commands: usize = snapshot.subsystems.iter().map(|subsystem| subsystem.commands.len()).sum();
    format!(
        "no problems; version {}, {}, {}, {}, {}",
        snapshot.version,
        counted(read.settings.listeners.len(), "listener"),
        counted(snapshot.departments.len(), "department"),
        counted(snapshot.subsystems.len(), "subsystem"),
        counted(commands, "command"),
    )
}

/// A number and its noun, of which the plural is regular.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_whole_mebibytes_with_its_reason() {
        assert_eq!(
            memory_line(&series_memory(100_000, 2)),
            "memory: at most 147 MiB, and 293 MiB of the ledger's mapped tally, for 100000 granted series (departments x \
             commands)"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_one_problem() {
        let missing = Path::new("/nowhere/tallygate.yaml");
        let problems = config::load(missing, &Numbers::default()).expect_err("nothing there");
        let said = for_people(missing, &problems);
        assert!(
            said.starts_with("/nowhere/tallygate.yaml: 1 problem\n  /nowhere/tallygate.yaml cannot be read"),
            "{said}"
        );
        assert_eq!(json(&Err(problems))["ok"], false);
    }
}

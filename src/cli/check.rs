//! `tallygate check`: prints every problem of a configuration with its path.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::clock::Clock;
use crate::config::{self, ConfigProblems, Configuration, ExcludedSource};
use crate::identity::{AuthorityInUse, RevocationListInUse, TrustedFiles};
use crate::ledger::{SeriesMemory, series_memory};
use crate::model::{Name, NameInterner};

use super::{NOT_SO, OutputFormat, print_message};

/// Arguments of `tallygate check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// Reads and compiles the configuration. Problems go to stderr as text, or to stdout as JSON. The exit code is 0
/// without problems and 1 with problems, also if they only exclude isolated files.
pub fn check(args: &CheckArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let checked = config::load_configuration(&args.config, &NameInterner::default(), clock);
    let is_whole = checked.as_ref().is_ok_and(|configuration| configuration.excluded.is_empty());
    let code = if is_whole { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) };
    match (args.format, checked) {
        (OutputFormat::Json, checked) => writeln!(out, "{:#}", result_json(&checked))?,
        (OutputFormat::Table, Ok(configuration)) => print_message(&summary_text(&args.config, &configuration)),
        (OutputFormat::Table, Err(problems)) => print_message(&problems_text(&args.config, &problems)),
    }
    Ok(code)
}

/// All problems, one per line, below the name of their file.
pub(super) fn problems_text(config: &Path, problems: &ConfigProblems) -> String {
    let count = plural(problems.0.len(), "problem");
    let lines: Vec<_> = problems.0.iter().map(|problem| format!("  {problem}")).collect();
    format!("{}: {count}\n{}", config.display(), lines.join("\n"))
}

/// The summary of a valid configuration: its item counts, the authorities that the listeners trust, and its warnings.
fn summary_text(config: &Path, read: &Configuration) -> String {
    let trusted: String = trust_sets(read).map(|(name, trusted)| trust_text(name, trusted)).collect();
    let warnings = config::warnings(read).into_iter().map(|warning| format!("\n  warning: {warning}"));
    let excluded: String = read.excluded.iter().map(excluded_text).collect();
    let (counts, memory) = (count_text(read), memory_line(&memory_estimate(read)));
    format!("{}: {counts}\n  {memory}{trusted}{excluded}{}", config.display(), warnings.collect::<String>())
}

/// A file that would be left out, with its problems.
fn excluded_text(excluded: &ExcludedSource) -> String {
    let ExcludedSource { source, problems } = excluded;
    let lines: String = problems.iter().map(|problem| format!("\n    {problem}")).collect();
    format!("\n  left out: {source}: {}{lines}", plural(problems.len(), "problem"))
}

/// The memory that the ledger needs for the granted series.
fn memory_estimate(read: &Configuration) -> SeriesMemory {
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

/// The authorities and lists of each listener: one set for each different `clientAuth`.
fn trust_sets(read: &Configuration) -> impl Iterator<Item = (&Name, &TrustedFiles)> {
    let listeners = read.tls.listeners.iter();
    listeners.flat_map(|(name, tls)| tls.trust_sets().iter().map(move |trust| (name, &trust.trusted)))
}

/// The authorities that a listener trusts to issue and to revoke client certificates.
fn trust_text(listener: &Name, trusted: &TrustedFiles) -> String {
    let TrustedFiles { authorities, lists, .. } = trusted;
    if authorities.is_empty() {
        return String::new(); // the listener requests no client certificates
    }
    let counts = match (authorities.len(), lists.len()) {
        (1, lists) => format!("1 authority, {}", plural(lists, "revocation list")),
        (count, lists) => format!("{count} authorities, {}", plural(lists, "revocation list")),
    };
    let authorities = authorities.iter().map(|authority| {
        let AuthorityInUse { path, name, valid_until: until } = authority;
        format!("\n    authority {name}, until {until}, in {}", path.display())
    });
    let lists = lists.iter().map(list_text);
    format!("\n  listener {listener} uses {counts}{}{}", authorities.collect::<String>(), lists.collect::<String>())
}

fn list_text(list: &RevocationListInUse) -> String {
    let RevocationListInUse {
        path,
        issuer,
        number,
        next_update: until,
        scope,
        revoked,
        covers_authorities: of_authority,
    } = list;
    let number = number.as_deref().map_or_else(|| "without a number".to_owned(), |number| format!("number {number}"));
    let of =
        if *of_authority { "" } else { " (of no configured authority; for intermediate certificates of that name)" };
    format!(
        "\n    revocation list of {issuer}{of}, {number}, until {until}, for {scope}, {revoked} revoked, in {}",
        path.display()
    )
}

fn trust_json(listener: &Name, trusted: &TrustedFiles) -> serde_json::Value {
    let authorities = trusted.authorities.iter().map(
        |authority| serde_json::json!({ "file": authority.path, "name": authority.name, "until": authority.valid_until }),
    );
    let lists = trusted.lists.iter().map(|list| {
        serde_json::json!({
            "file": list.path,
            "issuer": list.issuer,
            "number": list.number,
            "until": list.next_update,
            "scope": list.scope,
            "revoked": list.revoked,
            "ofAuthority": list.covers_authorities,
        })
    });
    serde_json::json!({
        "listener": listener.as_str(),
        "authorities": authorities.collect::<Vec<_>>(),
        "revocationLists": lists.collect::<Vec<_>>(),
    })
}

fn result_json(checked: &Result<Configuration, ConfigProblems>) -> serde_json::Value {
    match checked {
        Ok(read) => serde_json::json!({
            "ok": read.excluded.is_empty(),
            "version": read.snapshot.version,
            "problems": [],
            "excluded": read.excluded,
            "memory": memory_estimate(read),
            "warnings": config::warnings(read),
            "trust": trust_sets(read).map(|(name, trusted)| trust_json(name, trusted)).collect::<Vec<_>>(),
        }),
        Err(problems) => serde_json::json!({ "ok": false, "problems": problems.0 }),
    }
}

fn count_text(read: &Configuration) -> String {
    let snapshot = &read.snapshot;
    let commands: usize = snapshot.subsystems.iter().map(|subsystem| subsystem.commands.len()).sum();
    let compiled = snapshot.subsystems.iter().flat_map(|subsystem| &subsystem.commands);
    let matches: usize = compiled.map(|command| command.matches.len()).sum();
    let matches = if matches == commands { String::new() } else { format!(" ({matches} matches)") };
    format!(
        "{}; version {}, {}, {}, {}, {}{matches}",
        if read.excluded.is_empty() {
            "no problems".to_owned()
        } else {
            plural(read.excluded.len(), "file") + " left out"
        },
        snapshot.version,
        plural(read.settings.listeners.len(), "listener"),
        plural(snapshot.departments.len(), "department"),
        plural(snapshot.subsystems.len(), "subsystem"),
        plural(commands, "command"),
    )
}

/// A number with its noun. The plural of the noun must be regular.
pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_in_whole_mebibytes_with_its_reason() {
        assert_eq!(
            memory_line(&series_memory(100_000, 2)),
            "memory: at most 147 MiB, and 293 MiB of the ledger's mapped tally, for 100000 granted series (departments x \
             commands)"
        );
    }

    #[test]
    fn missing_file_is_one_problem() {
        let missing = Path::new("/nowhere/tallygate.yaml");
        let problems =
            config::load_configuration(missing, &NameInterner::default(), &Clock::system()).expect_err("nothing there");
        let output = problems_text(missing, &problems);
        assert!(
            output.starts_with("/nowhere/tallygate.yaml: 1 problem\n  /nowhere/tallygate.yaml cannot be read"),
            "{output}"
        );
        assert_eq!(result_json(&Err(problems))["ok"], false);
    }
}

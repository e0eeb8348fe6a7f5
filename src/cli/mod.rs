//! The command line: argument parsing, one function per subcommand, and exit codes.
//!
//! Guarantees:
//! - Machine-readable output goes to stdout, messages for people to stderr.
//! - Exit codes: 0 success, 1 negative result (problems, differences), 2 usage, 70 internal, 74 storage.
//! - A reader that closes our stdout early, such as `head`, is not an error.

pub mod adjust;
mod backup;
pub mod check;
pub mod completions;
pub mod explain;
pub mod ledger;
pub mod pki;
pub mod report;
pub mod serve;
pub mod trial_authority;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use self::trial_authority::AuthorityError;
use crate::app::AppError;
use crate::clock::Clock;
use crate::config::ConfigProblems;
use crate::ledger::LedgerError;
use crate::ledger::audit::ExportError;

/// Exit code of a negative result: problems or differences were found.
pub const NOT_SO: u8 = 1;
/// Exit code of a usage error: the command line is wrong.
pub const USAGE: u8 = 2;
/// Exit code of an internal fault, or of a resource that the machine refuses (an address, a thread). A retry may
/// succeed.
pub const INTERNAL: u8 = 70;
/// Exit code of a storage fault: the disk or the ledger on it.
pub const STORAGE: u8 = 74;

/// The access-command gateway that counts exactly.
#[derive(Debug, Parser)]
#[command(name = "tallygate", version, about, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Runs the gateway
    Serve(serve::ServeArgs),
    /// Prints every problem of a configuration with its path
    Check(check::CheckArgs),
    /// Says what the gateway would do with a request, and why
    Explain(explain::ExplainArgs),
    /// What the ledger is, whether it is what it says, its raw rows, corrections, copies
    Ledger(ledger::LedgerArgs),
    /// Explains what was used
    Report(report::ReportArgs),
    /// A small certificate authority for trying things out
    Pki(pki::PkiArgs),
    /// Prints a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// The output format of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// The output format of a table of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    /// For people
    #[default]
    Table,
    /// For spreadsheets
    Csv,
    /// For programs
    Json,
}

/// A usage error: the command line asks for something impossible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUsage(pub String);

/// The result was computed but could not be written, for example because of a full disk behind stdout.
#[derive(Debug, thiserror::Error)]
#[error("the answer could not be written to stdout")]
struct PrintError(#[source] io::Error);

/// Runs the program with these arguments. The first argument is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match CommandLine::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage_exit(&error),
    };
    let mut out = Vec::new();
    let ended = run_command(&cli.command, &mut out).and_then(|code| print_output(&out).map(|()| code));
    ended.unwrap_or_else(|error| failure_exit(&error))
}

/// Writes the whole result at once, so that a write error is distinct from an error in computing the result.
fn print_output(answer: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(answer).and_then(|()| out.flush());
    Ok(printed.map_err(PrintError)?)
}

/// Prints a message for people to stderr.
fn print_message(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // stderr is closed: the error cannot be reported
}

fn run_command(command: &CliCommand, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match command {
        CliCommand::Serve(args) => serve::serve(args),
        CliCommand::Check(args) => check::check(args, out),
        CliCommand::Explain(args) => explain::explain(args, out),
        CliCommand::Ledger(args) => ledger::ledger(args, &Clock::system(), out),
        CliCommand::Report(args) => report::report(args, &Clock::system(), out),
        CliCommand::Pki(args) => pki::run(args, Clock::system().wall(), out),
        CliCommand::Completions(args) => completions::completions(args, &mut CommandLine::command(), out),
    }
}

/// Prints clap's text where clap sends it: help to stdout with code 0, errors to stderr with code 2.
fn usage_exit(error: &clap::Error) -> ExitCode {
    let _ = error.print(); // stderr is closed: the error cannot be reported
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

fn failure_exit(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    print_message(&format!("tallygate: {}", error_text(error)));
    ExitCode::from(exit_code(error))
}

/// The error with its causes. A cause whose text is already part of the message is not repeated.
fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// The exit code of an error: that of the first cause that has one.
fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of_cause).unwrap_or(INTERNAL)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = cause.downcast_ref::<AppError>() {
        return Some(match error {
            AppError::Config(_) => NOT_SO,
            AppError::Ledger(_) => STORAGE,
            AppError::Bind(_) | AppError::Thread(_) => INTERNAL,
        });
    }
    if let Some(error) = cause.downcast_ref::<AuthorityError>() {
        return Some(if matches!(error, AuthorityError::Unwritable { .. }) { STORAGE } else { NOT_SO });
    }
    if cause.is::<LedgerError>() || cause.is::<ExportError>() || cause.is::<PrintError>() {
        return Some(STORAGE);
    }
    if cause.is::<ConfigProblems>() {
        return Some(NOT_SO);
    }
    cause.is::<BadUsage>().then_some(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::BindProblems;

    #[test]
    fn the_arguments_are_declared_without_contradiction() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_failure_has_the_exit_code_of_its_cause() {
        let ledger = || LedgerError::Panicked("while it folded".to_owned());
        for (error, code) in [
            (anyhow::Error::new(ledger()).context("while reporting"), STORAGE),
            (AppError::Ledger(ledger()).into(), STORAGE),
            (AppError::Thread(io::ErrorKind::WouldBlock.into()).into(), INTERNAL),
            (AppError::Bind(BindProblems(vec![])).into(), INTERNAL),
            (AppError::Config(ConfigProblems(vec![])).into(), NOT_SO),
            (ConfigProblems(vec![]).into(), NOT_SO),
            (AuthorityError::Exists("ca.pem".into()).into(), NOT_SO),
            (AuthorityError::Unwritable { path: "ca.pem".into(), why: "full".to_owned() }.into(), STORAGE),
            (BadUsage("no".to_owned()).into(), USAGE),
            (PrintError(io::ErrorKind::StorageFull.into()).into(), STORAGE),
            (anyhow::anyhow!("something else"), INTERNAL),
        ] {
            assert_eq!(exit_code(&error), code, "{error:#}");
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("the disk is full").context("writing a: the disk is full").context("folding");
        assert_eq!(error_text(&error), "folding: writing a: the disk is full");
    }

    #[test]
    fn a_closed_stdout_is_no_error() {
        let broken = PrintError(io::ErrorKind::BrokenPipe.into());
        assert!(is_broken_pipe(&anyhow::Error::new(broken).context("printing")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken")));
    }
}

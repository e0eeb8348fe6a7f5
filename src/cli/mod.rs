//! The command line: argument parsing, one function per subcommand, and exit codes.
//!
//! Guarantees:
//! - Machine-readable output goes to stdout, messages for people to stderr.
//! - Exit codes: 0 success, 1 negative result (problems, differences), 2 usage, 70 internal, 74 storage, or a
//!   Prometheus or a gateway that gives no usable answer.
//! - A reader that closes our stdout early, such as `head`, is not an error.

pub mod adjust;
mod admin_client;
mod backup;
pub mod check;
pub mod cluster;
pub mod completions;
mod distinct_ledgers;
mod exit_code;
pub mod explain;
mod hour_export;
pub mod inspect;
pub mod ledger;
mod ledger_paths;
mod output;
pub mod pki;
mod prometheus;
pub mod report;
mod scraped;
pub mod serve;
pub mod trial_authority;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::clock::Clock;

use self::cluster::{controller, crds, migrate};
use self::exit_code::{error_text, exit_code, is_broken_pipe};
use self::inspect::{diagnose, top};
use self::output::print_output;

pub use self::exit_code::{BadUsage, INTERNAL, NOT_SO, STORAGE, USAGE};
pub(crate) use self::output::print_message;
pub use self::output::{OutputFormat, TableFormat};

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
    /// Runs the gateway as a Kubernetes ingress
    Controller(controller::ControllerArgs),
    /// Prints the CustomResourceDefinitions of its own kinds
    Crds(crds::CrdsArgs),
    /// Prints every problem of a configuration with its path
    Check(check::CheckArgs),
    /// Explains how the gateway would handle a request, and why
    Explain(explain::ExplainArgs),
    /// Says what becomes of the Ingresses of another controller
    Migrate(migrate::MigrateArgs),
    /// Inspects, verifies, corrects, exports and copies a ledger
    Ledger(ledger::LedgerArgs),
    /// Reports of usage
    Report(report::ReportArgs),
    /// Shows what a running gateway does: departments, subsystems, limits, certificates, ledger
    Top(top::TopArgs),
    /// Packs what a bug report needs into an archive, without secrets
    Diagnose(diagnose::DiagnoseArgs),
    /// A small certificate authority for trials
    Pki(pki::PkiArgs),
    /// Prints a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs the program with these arguments. The first argument is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut out = Vec::new();
    match run_into(arguments, &mut out) {
        Ok(code) => print_output(&out).map_or_else(|error| failure_exit(&error), |()| code),
        Err(code) => code,
    }
}

/// As [`run`], with the output in `out`. Messages go to stderr.
///
/// # Errors
/// The exit code, after a message. What is in `out` then is not complete.
pub fn run_into(arguments: impl IntoIterator<Item = OsString>, out: &mut Vec<u8>) -> Result<ExitCode, ExitCode> {
    let cli = CommandLine::try_parse_from(arguments).map_err(|error| usage_exit(&error))?;
    run_command(&cli.command, out).map_err(|error| failure_exit(&error))
}

fn run_command(command: &CliCommand, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match command {
        CliCommand::Serve(args) => serve::serve(args),
        CliCommand::Controller(args) => controller::controller(args),
        CliCommand::Crds(args) => crds::crds(args, out),
        CliCommand::Check(args) => check::check(args, &Clock::system(), out),
        CliCommand::Explain(args) => explain::explain(args, &Clock::system(), out),
        CliCommand::Migrate(args) => migrate::migrate(args, out),
        CliCommand::Ledger(args) => ledger::ledger(args, &Clock::system(), out),
        CliCommand::Report(args) => report::report(args, &Clock::system(), out),
        CliCommand::Top(args) => top::top(args, &Clock::system(), out),
        CliCommand::Diagnose(args) => diagnose::diagnose(args, &Clock::system(), out),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_definitions_are_consistent() {
        CommandLine::command().debug_assert();
    }
}

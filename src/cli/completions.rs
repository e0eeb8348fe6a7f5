//! `tallygate completions SHELL`: prints a completion script.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

/// Arguments of `tallygate completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completion script of a shell. The script is collected in memory first, because the generator panics if
/// stdout is closed.
pub fn completions(
    args: &CompletionsArgs,
    command: &mut clap::Command,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "tallygate", &mut script);
    out.write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

//! `tallygate completions SHELL`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;

/// What to complete in.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the script for a shell. Gathered first, because the generator panics on a closed stdout.
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

//! `tallygate ledger backup`: a copy of a ledger that verifies, beside a running gateway or without one.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::ledger::audit::{Backup, BackupError, backup};

use super::ledger::{Shown, existing};
use super::{AnswerFormat, BadUsage};

/// What to copy, and where to.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The ledger's book; the gateway may be running
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// The copy: a new file, or a folder that gets one of the book's name
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// How to print what was made
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

/// Copies, and says what the copy is.
pub(super) fn make(args: &BackupArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut shown = Shown::default();
    let made = backup(existing(&args.ledger)?, &args.out, &mut |what, done, all| shown.progress(what, done, all));
    shown.end();
    let made = made.map_err(|error| match error {
        BackupError::Ledger(error) => anyhow::Error::from(error),
        error => BadUsage(format!("--out: {error}")).into(),
    })?;
    match args.format {
        AnswerFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&made)?)?,
        AnswerFormat::Table => write_made(&made, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_made(made: &Backup, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "copied     {} to {}, {} bytes", made.ledger.display(), made.book.display(), made.bytes)?;
    if let Some(tally) = &made.tally {
        writeln!(out, "           with the tally of its dead gateway, {}; keep both together", tally.display())?;
    }
    match made.head.number {
        0 => writeln!(out, "head       nothing is sealed yet"),
        number => writeln!(out, "head       {number}:{} - note it elsewhere", made.head.hash),
    }
}

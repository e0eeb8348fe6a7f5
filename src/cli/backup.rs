//! `tallygate ledger backup`: makes a copy of a ledger that passes verification, with or without a running gateway.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::ledger::audit::{BackupError, LedgerBackup, backup};

use super::ledger::ProgressLine;
use super::ledger_paths::existing_book;
use super::{BadUsage, OutputFormat};

/// Arguments of `tallygate ledger backup`: the source and the destination.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// The ledger's book; the gateway may be running
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// The copy: a new file, or a folder, in which the copy has the name of the book
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// Copies the ledger and prints a description of the copy.
pub(super) fn make_backup(args: &BackupArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let mut progress = ProgressLine::default();
    let made = backup(existing_book(&args.ledger)?, &args.out, &mut |what, done, all| progress.update(what, done, all));
    progress.finish();
    let made = made.map_err(|error| match error {
        BackupError::Ledger(error) => anyhow::Error::from(error),
        error => BadUsage(format!("--out: {error}")).into(),
    })?;
    match args.format {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&made)?)?,
        OutputFormat::Table => write_summary(&made, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_summary(made: &LedgerBackup, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "copied     {} to {}, {} bytes", made.ledger.display(), made.book.display(), made.bytes)?;
    if let Some(tally) = &made.tally {
        writeln!(
            out,
            "           with the tally of a gateway that crashed, {}; keep both files together",
            tally.display()
        )?;
    }
    match made.head.number {
        0 => writeln!(out, "head       nothing is sealed yet"),
        number => writeln!(out, "head       {number}:{} - note it elsewhere", made.head.hash),
    }
}

//! `tallygate ledger`: looks into a ledger, checks it, writes it out, corrects it; whether its gateway runs or not.
//!
//! Turns arguments into calls of the ledger and shows what they answer; what is true is for the ledger to say.

mod show;

use std::fs::OpenOptions;
use std::io::{BufWriter, IsTerminal, Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::clock::Clock;
use crate::ledger::audit::{self, ExportError, ExportForm, NotedHead};
use crate::ledger::{Adjustment, BadAdjustment, LedgerError};
use crate::model::Name;

use super::report::check_book;
use super::{AnswerFormat, BadUsage, NOT_SO, tell};

/// What to do with a ledger.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Says what the ledger holds and how it is
    Info(InfoArgs),
    /// Checks everything: chain, sums, balances, tally; exit code 1 if anything is not as it must be
    Verify(VerifyArgs),
    /// Writes everything out, so that any program can compute every sum and hash again
    Export(ExportArgs),
    /// Adds a correction, sealed like everything else; nothing in a ledger is ever edited
    Adjust(AdjustArgs),
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// A head that was noted earlier: proves that nothing up to it was exchanged
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// A new file to write to [default: stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// As lines of text, or as a JSON object per line
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

#[derive(Debug, Args)]
struct AdjustArgs {
    /// The ledger's book
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// Whose usage is corrected
    #[arg(long, value_name = "ID")]
    department: String,
    /// Of which subsystem, if it is about one
    #[arg(long, value_name = "ID")]
    subsystem: Option<String>,
    /// Of which command of that subsystem, if it is about one
    #[arg(long, value_name = "ID")]
    command: Option<String>,
    /// A month, such as 2026-10, or a day, such as 2026-10-05, of the ledger's calendar
    #[arg(long, value_name = "PERIOD")]
    period: String,
    /// How many units more, or less: --units=-5
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    units: i64,
    /// Why, in one line
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who answers for it
    #[arg(long, value_name = "NAME")]
    who: String,
    /// How to print the correction's number
    #[arg(long, value_enum, default_value_t)]
    format: AnswerFormat,
}

/// Does what is asked of a ledger.
pub fn ledger(args: &LedgerArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        LedgerCommand::Info(args) => info(args, out),
        LedgerCommand::Verify(args) => verify(args, out),
        LedgerCommand::Export(args) => export(args),
        LedgerCommand::Adjust(args) => adjust(args, clock, out),
    }
}

fn info(args: &InfoArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    check_book(&args.ledger)?;
    let info = audit::info(&args.ledger)?;
    match args.format {
        AnswerFormat::Table => out.write_all(show::info(&info).as_bytes())?,
        AnswerFormat::Json => writeln!(out, "{}", serde_json::to_string(&info)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(args: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let noted = args.head.as_deref().map(NotedHead::parse).transpose();
    let noted = noted.map_err(|error| BadUsage(format!("--head: {error}")))?;
    check_book(&args.ledger)?;
    let mut bar = Bar::new();
    let verdict = audit::verify(&args.ledger, noted.as_ref(), &mut |what, done, all| bar.show(what, done, all));
    bar.clear();
    let verdict = verdict?;
    match args.format {
        AnswerFormat::Table => out.write_all(show::verdict(&verdict).as_bytes())?,
        AnswerFormat::Json => writeln!(out, "{}", serde_json::to_string(&verdict)?)?,
    }
    verdict.notes.iter().for_each(|note| tell(&format!("note: {note}")));
    Ok(if verdict.ok { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    check_book(&args.ledger)?;
    let form = match args.format {
        AnswerFormat::Table => ExportForm::Text,
        AnswerFormat::Json => ExportForm::JsonLines,
    };
    let mut bar = Bar::new();
    let mut progress = |what: &str, done, all| bar.show(what, done, all);
    // Streamed, not gathered as other answers are: a ledger is larger than memory should be.
    let exported = match &args.output {
        None => audit::export(&args.ledger, form, &mut BufWriter::new(stdout().lock()), &mut progress),
        Some(file) => export_to(file, &args.ledger, form, &mut progress)?,
    };
    bar.clear();
    let exported = exported?;
    tell(&format!(
        "exported {} seals in {} lines, {} commands in flight",
        exported.seals, exported.lines, exported.in_flight
    ));
    Ok(ExitCode::SUCCESS)
}

/// Writes a file that was not there before: what is there may be the ledger itself.
fn export_to(
    file: &Path,
    book: &Path,
    form: ExportForm,
    progress: &mut audit::Progress<'_>,
) -> anyhow::Result<Result<audit::Export, ExportError>> {
    let made = OpenOptions::new().write(true).create_new(true).open(file);
    let made = match made {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let what = format!("{} is there already; give the name of a new file", file.display());
            return Err(BadUsage(format!("--output: {what}")).into());
        }
        made => made.map_err(ExportError::Write)?,
    };
    let exported = audit::export(book, form, &mut BufWriter::new(&made), progress);
    Ok(exported.and_then(|exported| made.sync_all().map(|()| exported).map_err(ExportError::Write)))
}

fn adjust(args: &AdjustArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    check_book(&args.ledger)?;
    match crate::ledger::adjust(&args.ledger, &correction(args)?, clock) {
        Ok(number) => {
            match args.format {
                AnswerFormat::Table => writeln!(out, "{number}")?,
                AnswerFormat::Json => writeln!(out, "{}", serde_json::json!({ "number": number }))?,
            }
            tell(&format!("correction {number} is in the ledger and sealed"));
            Ok(ExitCode::SUCCESS)
        }
        Err(LedgerError::Adjustment(unknown @ BadAdjustment::Unknown(_))) => {
            tell(&format!("tallygate: {unknown}"));
            Ok(ExitCode::from(NOT_SO))
        }
        Err(LedgerError::Adjustment(bad)) => Err(BadUsage(bad.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}

fn correction(args: &AdjustArgs) -> Result<Adjustment, BadUsage> {
    let name = |option: &str, text: &str| Name::parse(text).map_err(|error| BadUsage(format!("--{option}: {error}")));
    let maybe = |option: &str, text: &Option<String>| text.as_deref().map(|text| name(option, text)).transpose();
    Ok(Adjustment {
        department: name("department", &args.department)?,
        subsystem: maybe("subsystem", &args.subsystem)?,
        command: maybe("command", &args.command)?,
        period: args.period.clone(),
        units: args.units,
        reason: args.reason.clone(),
        who: args.who.clone(),
    })
}

/// How far long work is, on a terminal only.
struct Bar {
    is_terminal: bool,
    begun: Instant,
    shown: Option<Instant>,
}

impl Bar {
    /// Work that takes no longer shows nothing.
    const SHORT: Duration = Duration::from_millis(500);
    const BETWEEN: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self { is_terminal: stderr().is_terminal(), begun: Instant::now(), shown: None }
    }

    fn show(&mut self, what: &str, done: u64, all: u64) {
        let is_due =
            || self.shown.map_or_else(|| self.begun.elapsed() > Self::SHORT, |at| at.elapsed() > Self::BETWEEN);
        if self.is_terminal && is_due() {
            let percent = done.saturating_mul(100).checked_div(all).unwrap_or(100);
            let _ = write!(stderr(), "\r\x1b[K{what}: {done} of {all} ({percent} %)"); // only for the eye
            self.shown = Some(Instant::now());
        }
    }

    fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

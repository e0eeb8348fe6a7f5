//! `tallygate ledger`: information about a ledger, verification, raw rows, corrections and backups.
//!
//! All subcommands except `adjust` are read-only. All work on a live ledger, on one whose gateway was killed, and on a
//! copy.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::clock::Clock;
use crate::ledger::audit::{
    AuditVerdict, ExportError, ExportPart, LedgerInfo, NotedHead, SealsAfterHead, export, ledger_info, verify,
};
use crate::ledger::{Adjustment, AdjustmentRow};

use super::backup::{self, BackupArgs};
use super::hour_export::{HourExport, HourExportArgs};
use super::ledger_paths::existing_book;
use super::prometheus::PrometheusArgs;
use super::scraped::remembered_heads::RememberedHeads;
use super::{BadUsage, NOT_SO, OutputFormat, adjust, print_message};

/// Arguments of `tallygate ledger`.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    #[command(subcommand)]
    command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Prints the state: head of the hash chain, epochs, hours, corrections, sizes
    Info(InfoArgs),
    /// Verifies the hash chain and computes all sums again; exit code 1 with findings
    Verify(VerifyArgs),
    /// Exports the raw rows and seals, so that any program can verify them; or sealed hours as samples for a Prometheus
    Export(ExportArgs),
    /// Adds a correction; existing rows are never edited
    Adjust(adjust::AdjustArgs),
    /// Copies the ledger, also of a running gateway; the copy passes `verify`
    Backup(BackupArgs),
}

#[derive(Debug, Args)]
struct InfoArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// A head that was noted elsewhere: the chain must still contain it
    #[arg(long, value_name = "NUMBER:HASH")]
    head: Option<String>,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// A verdict, and what a Prometheus remembers of the ledger.
#[derive(Debug, Serialize)]
struct ShownVerdict {
    #[serde(flatten)]
    verdict: AuditVerdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    prometheus: Option<RememberedHeads>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// The ledger's book (the tally is found beside it)
    #[arg(long, value_name = "DB")]
    ledger: PathBuf,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Text (docs/ledger.md), a JSON object on each line, or samples of sealed hours (docs/metrics.md)
    #[arg(long, value_enum, default_value_t)]
    format: ExportFormat,
    #[command(flatten)]
    hours: HourExportArgs,
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum ExportFormat {
    /// Canonical lines below their headings
    #[default]
    Text,
    /// The same, an object for each heading
    Json,
    /// Samples of sealed hours, for promtool tsdb create-blocks-from openmetrics
    Openmetrics,
}

/// Runs the requested subcommand.
pub fn ledger(args: &LedgerArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match &args.command {
        LedgerCommand::Info(args) => show_info(args, out),
        LedgerCommand::Verify(args) => show_verdict(args, clock, out),
        LedgerCommand::Export(args) => write_export(args, clock),
        LedgerCommand::Adjust(args) => adjust::adjust(args, clock, out),
        LedgerCommand::Backup(args) => backup::make_backup(args, out),
    }
}

fn show_info(args: &InfoArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let info = ledger_info(existing_book(&args.ledger)?)?;
    match args.format {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&info)?)?,
        OutputFormat::Table => write_info(&info, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_info(info: &LedgerInfo, out: &mut impl Write) -> io::Result<()> {
    let none = || "none".to_owned();
    writeln!(out, "gateway    {} (format {}, calendar {})", info.gateway, info.format, info.calendar)?;
    writeln!(out, "id         {}", info.id.as_deref().unwrap_or("none before its first epoch"))?;
    match &info.head.sealed_at {
        Some(at) => writeln!(out, "head       {}:{} sealed {at}", info.head.number, info.head.hash)?,
        None => writeln!(out, "head       nothing is sealed yet")?,
    }
    let windows = &info.windows;
    let [first, last] = [&windows.first, &windows.last].map(|window| window.clone().unwrap_or_else(none));
    writeln!(out, "hours      {first} to {last}; {} sealed, {} open", windows.sealed, windows.unsealed)?;
    if let Some(before) = &windows.rolled_before {
        writeln!(out, "           before {before} only sums of days")?;
    }
    writeln!(out, "bytes      book {}, its log {}, tally {}", info.sizes.book, info.sizes.log, info.sizes.tally)?;
    if let Some(tally) = &info.tally {
        let (used, free) = (tally.slots_used, tally.slots_free);
        writeln!(out, "tally      epoch {}; {used} slots in use, {free} free", tally.epoch)?;
        let (received, refused, finished) = (tally.received, tally.refused, tally.finished);
        writeln!(
            out,
            "           {received} received = {refused} refused + {finished} finished + {} in flight",
            tally.in_flight
        )?;
    }
    for epoch in &info.epochs {
        let row = &epoch.row;
        let ended = row.ended_at.as_deref().unwrap_or("-");
        writeln!(out, "epoch {:<4} {} to {ended}: {}", row.epoch, row.started_at, epoch.meaning)?;
    }
    for AdjustmentRow { number, adjustment, made_at } in &info.adjustments {
        let Adjustment { period, units, reason, who, .. } = adjustment;
        let whom = adjustment.subject_text();
        writeln!(out, "correction {number} {whom} {period}: {units:+} units, {reason} ({who}, {made_at})")?;
    }
    Ok(())
}

fn show_verdict(args: &VerifyArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let noted = args.head.as_deref().map(NotedHead::parse).transpose();
    let noted = noted.map_err(|error| BadUsage(format!("--head: {error}")))?;
    let book = existing_book(&args.ledger)?;
    let remembered = RememberedHeads::compare(&args.prometheus, book, clock)?;
    // A head that a Prometheus remembers is a head that was noted elsewhere.
    let noted = noted.or_else(|| remembered.as_ref().and_then(|heads| heads.newest.clone()));
    let mut shown = ProgressLine::default();
    let mut verdict = verify(book, noted.as_ref(), &mut |what, done, all| shown.update(what, done, all))?;
    shown.finish();
    verdict.add_findings(remembered.iter().flat_map(|heads| heads.findings.clone()));
    let is_sound = verdict.ok;
    match args.format {
        OutputFormat::Json => {
            let shown = ShownVerdict { verdict, prometheus: remembered };
            writeln!(out, "{}", serde_json::to_string_pretty(&shown)?)?;
        }
        OutputFormat::Table => {
            write_verdict(&verdict, out)?;
            if let Some(heads) = &remembered {
                writeln!(out, "{}", heads.text())?;
            }
        }
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn write_verdict(verdict: &AuditVerdict, out: &mut impl Write) -> io::Result<()> {
    for finding in &verdict.findings {
        writeln!(out, "{}: {}: {}", finding.check, finding.place, finding.what)?;
    }
    if verdict.more > 0 {
        writeln!(out, "and {} more findings", verdict.more)?;
    }
    for note in &verdict.notes {
        print_message(&format!("note: {note}"));
    }
    let checked = &verdict.checked;
    let numbers = [(checked.seals, "seal"), (checked.lines, "line"), (checked.days, "day"), (checked.epochs, "epoch")];
    let numbers = numbers.map(|(number, what)| format!("{number} {what}{}", if number == 1 { "" } else { "s" }));
    let result = if verdict.ok { "sound" } else { "NOT sound" };
    writeln!(out, "{result}: {} checked", numbers.join(", "))?;
    if let Some(after) = &verdict.after {
        writeln!(out, "after the noted head: {}", anchor_text(after))?;
    }
    if verdict.head.number > 0 {
        writeln!(
            out,
            "head {}:{} - note it elsewhere, and give it to a later `verify --head`",
            verdict.head.number, verdict.head.hash
        )?;
    }
    Ok(())
}

/// The part of the ledger that a head noted elsewhere does not prove.
fn anchor_text(after: &SealsAfterHead) -> String {
    let SealsAfterHead { seals, hours, days, epochs, corrections } = after;
    if *seals == 0 {
        return "nothing; the head proves the whole chain".to_owned();
    }
    format!(
        "{seals} seals: {hours} hours, {days} days in place of hours, {epochs} ends of epochs, {corrections} corrections"
    )
}

/// A progress line, shown on a terminal only.
#[derive(Debug, Default)]
pub(super) struct ProgressLine {
    last_percent: Option<u64>,
}

impl ProgressLine {
    pub(super) fn update(&mut self, what: &str, done: u64, all: u64) {
        let percent = done * 100 / all.max(1);
        if self.last_percent != Some(percent) && io::stderr().is_terminal() {
            self.last_percent = Some(percent);
            let _ = write!(io::stderr(), "\r{what}: {percent} % "); // a failed write is ignored
        }
    }

    pub(super) fn finish(&self) {
        if self.last_percent.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K"); // a failed write is ignored
        }
    }
}

fn write_export(args: &ExportArgs, clock: &Clock) -> anyhow::Result<ExitCode> {
    let ledger = existing_book(&args.ledger)?;
    if args.format == ExportFormat::Openmetrics {
        let export = HourExport::prepare(ledger, &args.hours, clock)?;
        export.write(&mut open_output(args)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    args.hours.refuse_options()?;
    let mut to = open_output(args)?;
    let written = export(ledger, &mut |part| write_part(&mut to, &part, args.format));
    written.and_then(|()| Ok(to.flush()?)).map_err(|error| match error {
        ExportError::Ledger(error) => anyhow::Error::from(error),
        other => anyhow::Error::from(other),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the new file of `--output`, or standard output.
fn open_output(args: &ExportArgs) -> Result<Box<dyn Write>, BadUsage> {
    Ok(match &args.output {
        Some(file) => Box::new(BufWriter::new(File::create_new(file).map_err(|error| {
            BadUsage(format!("--output {}: {error}; name a new file in an existing folder", file.display()))
        })?)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    })
}

fn write_part(to: &mut impl Write, part: &ExportPart, format: ExportFormat) -> io::Result<()> {
    match format {
        ExportFormat::Json => writeln!(to, "{}", serde_json::json!({ "heading": part.heading, "lines": part.lines })),
        ExportFormat::Text | ExportFormat::Openmetrics => {
            writeln!(to, "{}", part.heading.join("\t"))?;
            part.lines.iter().try_for_each(|line| writeln!(to, "{line}"))
        }
    }
}

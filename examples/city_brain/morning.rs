//! The morning after: the hours of the day are over. The gateway starts once more and seals them, Prometheus scrapes them,
//! and `tallygate report reconcile` compares both.

use std::ffi::OsString;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use tallygate::cli;
use tallygate::model::Window;

/// The longest wait until the hours are sealed and scraped.
const AGREEMENT_TIME: Duration = Duration::from_secs(30);
const RETRY_TIME: Duration = Duration::from_millis(500);
/// How the last line of a comparison begins that leaves nothing to explain and nothing missing.
const AGREEMENT: &str = "Prometheus and the ledger agree";

/// The result of the comparison.
#[derive(Debug)]
pub(crate) struct Reconciliation {
    /// The command, as a user would write it.
    pub(crate) command: String,
    pub(crate) report: String,
    pub(crate) is_agreed: bool,
}

/// Compares the hours of the city until both sides agree, for at most [`AGREEMENT_TIME`].
pub(crate) fn reconcile(ledger: &Path, hours: &Range<Window>, url: &str) -> anyhow::Result<Reconciliation> {
    let (from, to) = (hour_text(hours.start)?, hour_text(hours.end)?);
    let ledger = ledger.display().to_string();
    let arguments =
        ["tallygate", "report", "reconcile", "--ledger", &ledger, "--prometheus", url, "--from", &from, "--to", &to];
    let until = Instant::now() + AGREEMENT_TIME;
    loop {
        let mut out = Vec::new();
        let code = cli::run_into(arguments.map(OsString::from), &mut out);
        let report = String::from_utf8_lossy(&out).into_owned();
        let is_agreed =
            code == Ok(ExitCode::SUCCESS) && report.lines().last().is_some_and(|line| line.starts_with(AGREEMENT));
        if is_agreed || Instant::now() >= until {
            ensure!(code.is_ok(), "the hours could not be compared with those of Prometheus");
            return Ok(Reconciliation { command: arguments.join(" "), report, is_agreed });
        }
        std::thread::sleep(RETRY_TIME);
    }
}

fn hour_text(hour: Window) -> anyhow::Result<String> {
    Ok(Timestamp::from_second(hour.start_unix_seconds()).context("an hour out of range")?.to_string())
}

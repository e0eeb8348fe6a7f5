//! `tallygate diagnose`: packs what a bug report needs into one archive, without secrets, and prints what it packed.
//!
//! Guarantees:
//! - A source that is away does not end it: the archive says what is missing, and why.
//! - Every wait and every text is bounded, but for `--ledger`, which reads the whole ledger as `ledger verify` does.
//!
//! Leaves to `redaction`: which texts are secrets.

mod bundle;
mod machine;
mod redaction;

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use http::StatusCode;
use tokio::runtime::Builder;

use crate::cli::BadUsage;
use crate::cli::admin_client::AdminClient;
use crate::clock::Clock;
use crate::config::{configuration_files, load_configuration, parse_values};
use crate::ledger::audit::{ledger_info, verify};
use crate::model::NameInterner;

use self::bundle::DiagnosisBundle;
use self::machine::{machine_text, processes_text};
use self::redaction::redact_value;

/// The most bytes of one file of a configuration; a larger one is left out.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The most files of a configuration.
const FILES_MAX: usize = 64;
/// The last bytes of a log that are packed.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// The paths of the admin listener, and the names of their texts.
const ADMIN_PATHS: [(&str, &str); 5] = [
    ("/readyz?verbose", "readyz.txt"),
    ("/config?format=text", "config.txt"),
    ("/config", "config.json"),
    ("/metrics", "metrics.txt"),
    ("/metrics/hours", "metrics-hours.txt"),
];

/// Arguments of `tallygate diagnose`.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// The admin listener of the gateway: its metrics, readiness and live configuration
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: String,
    /// The configuration file: it and the files that it includes, without secrets, and its problems
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The ledger's book: its state, and what `ledger verify` finds
    #[arg(long, value_name = "DB")]
    ledger: Option<PathBuf>,
    /// The gateway's log, of which the last mebibyte is packed
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The archive to write, a new file
    #[arg(long, value_name = "FILE.tar.gz")]
    out: PathBuf,
}

/// Packs an archive, and prints what is in it.
pub fn diagnose(args: &DiagnoseArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let client = AdminClient::parse(&args.admin)?;
    if args.out.exists() {
        return Err(BadUsage(format!("--out {}: it exists; name a new file", args.out.display())).into());
    }
    let made_at = clock.wall();
    let mut bundle = DiagnosisBundle::default();
    bundle.add("machine.txt", &machine_text(&made_at.to_string()));
    bundle.add_result("processes.txt", processes_text());
    add_admin(&mut bundle, &client)?;
    match &args.config {
        Some(config) => add_configuration(&mut bundle, config, clock),
        None => bundle.leave_out("configuration", "no --config was given"),
    }
    match &args.ledger {
        Some(ledger) => add_ledger(&mut bundle, ledger),
        None => bundle.leave_out("ledger", "no --ledger was given"),
    }
    match &args.log {
        Some(log) => bundle.add_result("log.txt", last_part(log)),
        None => bundle.leave_out("log.txt", "no --log was given; journalctl -u tallygate writes one"),
    }
    let contents = bundle.contents();
    bundle.add("contents.txt", &contents);
    let folder = format!("tallygate-diagnosis-{}", made_at.strftime("%Y%m%dT%H%M%SZ"));
    let seconds = u64::try_from(made_at.as_second()).unwrap_or_default();
    let bytes = bundle.write(&args.out, (&folder, seconds)).map_err(|error| {
        BadUsage(format!("--out {}: {error}; name a new file in a folder that exists", args.out.display()))
    })?;
    writeln!(out, "packed into {}, {bytes} bytes:\n{contents}", args.out.display())?;
    writeln!(
        out,
        "Private keys, passwords of URLs, tokens, cookies and values of header fields are left out. Names of"
    )?;
    writeln!(out, "departments, callers, hosts and paths are in it: read it before you send it (tar -xzf).")?;
    Ok(ExitCode::SUCCESS)
}

fn add_admin(bundle: &mut DiagnosisBundle, client: &AdminClient) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("starting the client")?;
    for (path, name) in ADMIN_PATHS {
        let answer = runtime.block_on(client.get(path, Some(StatusCode::SERVICE_UNAVAILABLE)));
        bundle.add_result(name, answer.map(|answer| answer.text()));
    }
    Ok(())
}

/// Adds what the files say, without secrets, and the problems that `check` would print.
fn add_configuration(bundle: &mut DiagnosisBundle, main: &Path, clock: &Clock) {
    let (files, more) = match configuration_files(main) {
        Ok(mut files) => {
            let more = files.split_off(files.len().min(FILES_MAX));
            (files, more.len())
        }
        Err(error) => return bundle.leave_out("configuration", format!("{}: {error}", main.display())),
    };
    for (number, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        bundle.add_result(&format!("configuration/{number}-{name}.json"), redacted_file(file));
    }
    if more > 0 {
        bundle.leave_out("configuration", format!("{more} more files; the first {FILES_MAX} are in it"));
    }
    let problems = match load_configuration(main, &NameInterner::default(), clock) {
        Ok(configuration) if configuration.excluded.is_empty() => "no problems\n".to_owned(),
        Ok(configuration) => configuration.excluded.iter().map(|excluded| format!("{excluded:#?}\n")).collect(),
        Err(problems) => problems.0.iter().map(|problem| format!("{problem}\n")).collect(),
    };
    bundle.add("configuration/problems.txt", &problems);
}

/// The values of a file as JSON. Comments are not in it. A file that cannot be read as YAML is left out: secrets could
/// not be found by their names.
fn redacted_file(file: &Path) -> Result<String, String> {
    let length = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("{} has {length} bytes, more than {FILE_BYTES_MAX}", file.display()));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut values =
        parse_values(&text).map_err(|_| format!("{} is not YAML; problems.txt says why", file.display()))?;
    values.iter_mut().for_each(redact_value);
    let shown: Result<Vec<_>, _> = values.iter().map(serde_json::to_string_pretty).collect();
    Ok(format!("{}\n", shown.map_err(|error| error.to_string())?.join("\n")))
}

fn add_ledger(bundle: &mut DiagnosisBundle, book: &Path) {
    if !book.is_file() {
        return bundle.leave_out("ledger", format!("there is no ledger at {}", book.display()));
    }
    let info = ledger_info(book).map_err(|error| error.to_string()).and_then(|info| {
        let mut shown = serde_json::to_value(&info).map_err(|error| error.to_string())?;
        // Reasons and names of people are nobody else's business; their number may matter.
        shown["adjustments"] = info.adjustments.len().into();
        serde_json::to_string_pretty(&shown).map_err(|error| error.to_string())
    });
    bundle.add_result("ledger/info.json", info);
    let verdict = verify(book, None, &mut |_, _, _| {}).map_err(|error| error.to_string());
    let verdict = verdict.and_then(|verdict| serde_json::to_string_pretty(&verdict).map_err(|error| error.to_string()));
    bundle.add_result("ledger/verify.json", verdict);
}

/// The last part of a log, from the beginning of a line.
fn last_part(log: &Path) -> Result<String, String> {
    let refused = |error: std::io::Error| format!("{}: {error}", log.display());
    let mut file = File::open(log).map_err(refused)?;
    let length = file.metadata().map_err(refused)?.len();
    let start = length.saturating_sub(LOG_BYTES_MAX);
    file.seek(SeekFrom::Start(start)).map_err(refused)?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes).map_err(refused)?;
    let text = String::from_utf8_lossy(&bytes);
    let from = if start == 0 { 0 } else { text.find('\n').map_or(0, |end| end + 1) };
    Ok(text.get(from..).unwrap_or_default().to_owned())
}

//! `tallygate serve`: runs the gateway until a signal ends it.

use std::io::{Write, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, Running, Start};
use crate::clock::Clock;
use crate::telemetry::logging::{self, LogFormat};

use super::BadUsage;

/// The variable that sets the log level where `--log-level` does not.
const LEVEL_VARIABLE: &str = "TALLYGATE_LOG";
const LEVEL_DEFAULT: &str = "info";

/// What to run, and how it logs.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How the log on stderr looks
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormatArg,
    /// What is logged: error, warn, info, debug, trace, or a filter [default: $TALLYGATE_LOG, else info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogFormatArg {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Reload,
    Stop,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// Runs the gateway: SIGHUP reads the configuration again, SIGTERM and SIGINT drain and end it.
pub fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    begin_log(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("starting")?;
    let mut signals = runtime.block_on(async { Signals::catch() }).context("asking for signals")?;
    let running = app::start(Start { config: args.config.clone(), clock: Clock::system() })?;
    say(&announcement(&running));
    while runtime.block_on(signals.next()) == Asked::Reload {
        reload(&running);
    }
    say("stopping: commands in flight may finish");
    running.shutdown()?;
    say("stopped");
    Ok(ExitCode::SUCCESS)
}

fn begin_log(args: &ServeArgs) -> anyhow::Result<()> {
    let format = match args.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    let level = args.log_level.clone().or_else(|| std::env::var(LEVEL_VARIABLE).ok());
    let level = level.as_deref().filter(|level| !level.is_empty()).unwrap_or(LEVEL_DEFAULT);
    logging::begin(format, level).map_err(|error| BadUsage(format!("--log-level: {error}")).into())
}

fn announcement(running: &Running) -> String {
    let mut text = String::from("tallygate is ready");
    for (name, address) in running.listeners() {
        text += &format!("\n  listener {name}: https://{address}");
    }
    if let Some(address) = running.admin() {
        text += &format!("\n  admin: http://{address} (/metrics /readyz /config)");
    }
    text
}

fn reload(running: &Running) {
    match running.reload() {
        Ok(()) => say("the configuration was read again and is live"),
        Err(problems) => say(&format!("the new configuration is wrong, so the old one stays live:\n{problems}")),
    }
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(stderr(), "{text}"); // a gateway goes on without anybody who listens to it
}

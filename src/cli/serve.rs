//! `tallygate serve`: runs the gateway until a signal ends it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, Running, Start};
use crate::clock::Clock;
use crate::telemetry::logging::{self, LogFormat};

use super::{BadUsage, exit_code, sentence};

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
    /// Another log file, as logrotate asks for (SIGUSR1).
    Reopen,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    user_1: Signal,
}

/// Runs the gateway: SIGHUP reads the configuration again; SIGTERM, SIGINT and SIGQUIT drain and end it; SIGUSR1 changes
/// nothing.
///
/// What is said from here on goes through the log, so that neither a stalled reader nor a full disk behind it holds the gateway
/// up, not even at its end.
pub fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    begin_log(args)?;
    let ended = run(args).unwrap_or_else(|error| {
        match args.log_format {
            LogFormatArg::Json => tracing::error!("{}", sentence(&error)),
            LogFormatArg::Text => logging::say(&format!("tallygate: {}", sentence(&error))),
        }
        ExitCode::from(exit_code(&error))
    });
    logging::flush();
    Ok(ended)
}

fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("starting")?;
    let mut signals = runtime.block_on(async { Signals::catch() }).context("asking for signals")?;
    let running = app::start(Start { config: args.config.clone(), clock: Clock::system() })?;
    announce(args.log_format, &running);
    loop {
        match runtime.block_on(signals.next()) {
            Asked::Reload => drop(running.reload()), // the log has the result, as it has that of a file that changed
            Asked::Reopen => tracing::info!("SIGUSR1: the log goes to stderr, so there is no file to open again"),
            Asked::Stop => break,
        }
    }
    say(args.log_format, "stopping: commands in flight may finish");
    running.shutdown()?;
    say(args.log_format, "stopped");
    Ok(ExitCode::SUCCESS)
}

fn begin_log(args: &ServeArgs) -> anyhow::Result<()> {
    let format = match args.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    let given = args.log_level.clone().map(|level| ("--log-level", level));
    let given = given.or_else(|| std::env::var(LEVEL_VARIABLE).ok().map(|level| (LEVEL_VARIABLE, level)));
    let given = given.filter(|(_, level)| !level.is_empty());
    let (place, level) = given.unwrap_or_else(|| ("--log-level", LEVEL_DEFAULT.to_owned()));
    logging::begin(format, &level).map_err(|error| BadUsage(format!("{place}: {error}")).into())
}

/// Says where the gateway can be reached.
fn announce(format: LogFormatArg, running: &Running) {
    if matches!(format, LogFormatArg::Text) {
        return logging::say(&announcement(running));
    }
    for (listener, address) in running.listeners() {
        tracing::info!(%listener, %address, "listening");
    }
    if let Some(address) = running.admin() {
        tracing::info!(%address, "listening for operators");
    }
    tracing::info!("tallygate is ready");
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

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user_1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.quit.recv() => Asked::Stop,
            _ = self.user_1.recv() => Asked::Reopen,
        }
    }
}

/// A line about the gateway's own life: as it is for people, as an event where every line is one.
fn say(format: LogFormatArg, text: &str) {
    match format {
        LogFormatArg::Text => logging::say(text),
        LogFormatArg::Json => tracing::info!("{text}"),
    }
}

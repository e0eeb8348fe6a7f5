//! `tallygate serve`: runs the gateway until a signal ends it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, RunningGateway, StartOptions};
use crate::clock::Clock;
use crate::telemetry::logging::{self, LogFormat};

use super::{BadUsage, error_text, exit_code};

/// The environment variable that sets the log level if `--log-level` is absent.
const LEVEL_VARIABLE: &str = "TALLYGATE_LOG";
const LEVEL_DEFAULT: &str = "info";

/// Arguments of `tallygate serve`: the configuration and the log's settings.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Format of the log on stderr
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

/// The action that a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalAction {
    Reload,
    Stop,
    /// SIGUSR1 asks for a reopened file of the access log, as logrotate does after it has renamed the file.
    ReopenLog,
}

struct SignalStreams {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    user_1: Signal,
}

/// Runs the gateway. Signals:
/// - SIGHUP reloads the configuration.
/// - SIGTERM, SIGINT and SIGQUIT start a graceful shutdown.
/// - SIGUSR1 opens the file of the access log again.
///
/// From here on, messages go through the log. Neither a stalled reader nor a full disk behind it blocks the gateway,
/// not even during shutdown.
pub fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    args.run_logged(|| {
        let mut session = ServeSession::install()?;
        let running = app::start(StartOptions::new(args.config.clone(), Clock::system()))?;
        session.run_until_stopped(args, &running);
        running.shutdown()?;
        args.log_line("stopped");
        Ok(ExitCode::SUCCESS)
    })
}

impl ServeArgs {
    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Runs `work` with the log in place. Its error goes to the log.
    pub(super) fn run_logged(&self, work: impl FnOnce() -> anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        init_log(self)?;
        let ended = work().unwrap_or_else(|error| {
            match self.log_format {
                LogFormatArg::Json => tracing::error!("{}", error_text(&error)),
                LogFormatArg::Text => logging::log_line(&format!("tallygate: {}", error_text(&error))),
            }
            ExitCode::from(exit_code(&error))
        });
        logging::flush_log();
        Ok(ended)
    }

    /// Logs a line about the gateway's own lifecycle: unchanged in the text format, as an event in the JSON format.
    pub(super) fn log_line(&self, text: &str) {
        match self.log_format {
            LogFormatArg::Text => logging::log_line(text),
            LogFormatArg::Json => tracing::info!("{text}"),
        }
    }
}

/// The signals of a running gateway.
pub(super) struct ServeSession {
    runtime: tokio::runtime::Runtime,
    signals: SignalStreams,
}

impl ServeSession {
    /// Installs the signal handlers, before anything starts.
    pub(super) fn install() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("starting")?;
        let signals = runtime.block_on(async { SignalStreams::install() }).context("installing the signal handlers")?;
        Ok(Self { runtime, signals })
    }

    /// Follows the signals until one asks for a stop.
    pub(super) fn run_until_stopped(&mut self, args: &ServeArgs, running: &RunningGateway) {
        log_addresses(args.log_format, running);
        loop {
            match self.runtime.block_on(self.signals.next_action()) {
                SignalAction::Reload => drop(running.reload()), // the result is in the log, as for a changed file
                SignalAction::ReopenLog => {
                    if !running.reopen_access_log() {
                        tracing::info!("SIGUSR1 ignored: there is no file of an access log to open again");
                    }
                }
                SignalAction::Stop => break,
            }
        }
        args.log_line("shutting down; waiting for commands in flight");
    }
}

fn init_log(args: &ServeArgs) -> anyhow::Result<()> {
    let format = match args.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    let given = args.log_level.clone().map(|level| ("--log-level", level));
    let given = given.or_else(|| std::env::var(LEVEL_VARIABLE).ok().map(|level| (LEVEL_VARIABLE, level)));
    let given = given.filter(|(_, level)| !level.is_empty());
    let (place, level) = given.unwrap_or_else(|| ("--log-level", LEVEL_DEFAULT.to_owned()));
    logging::init_log(format, &level).map_err(|error| BadUsage(format!("{place}: {error}")).into())
}

/// Logs the addresses of the gateway.
fn log_addresses(format: LogFormatArg, running: &RunningGateway) {
    if matches!(format, LogFormatArg::Text) {
        return logging::log_line(&addresses_text(running));
    }
    for listener in running.listeners() {
        tracing::info!(listener = %listener.name, address = %listener.address.bound, "listening");
    }
    if let Some(address) = running.admin() {
        tracing::info!(%address, "admin listener started");
    }
    tracing::info!("tallygate is ready");
}

fn addresses_text(running: &RunningGateway) -> String {
    let mut text = String::from("tallygate is ready");
    for listener in running.listeners() {
        let protocol = listener.protocol.name();
        text += &format!("\n  listener {}: {protocol}://{}", listener.name, listener.address.bound);
    }
    if let Some(address) = running.admin() {
        text += &format!("\n  admin: http://{address} (/metrics /readyz /config)");
    }
    text
}

impl SignalStreams {
    fn install() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user_1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next_action(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.hangup.recv() => SignalAction::Reload,
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.quit.recv() => SignalAction::Stop,
            _ = self.user_1.recv() => SignalAction::ReopenLog,
        }
    }
}

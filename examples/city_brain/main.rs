//! A small city on one machine, for trying out Tallygate.
//!
//! One process contains:
//! - a throw-away certificate authority;
//! - the gateway, through the library's public API;
//! - five subsystems, which are real HTTP servers;
//! - departments that call the subsystems over mTLS.
//!
//! The departments:
//! - Cameras upload snapshots.
//! - A recogniser, a department of its own, detects red-light running and illegal parking and reports them to the
//!   control centre.
//! - The control centre notifies the officers on duty over a stream.
//! - A warehouse posts box movements.
//! - Other departments read signals and parking, some of them beyond their grants and limits.
//!
//! At the end three parties compare their counts, and the process fails if they differ.

#[cfg(test)]
mod audit;
mod books;
mod city;
mod departments;
mod display;
mod gateway;
mod options;
mod pki;
mod scrape;
mod subsystems;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tallygate::lifecycle::{DrainTrigger, drain};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use books::Comparison;
use departments::{Answers, Office};
use gateway::Gateway;
use options::{Home, Options};
use pki::Pki;
use subsystems::{Subsystems, Taken};

/// Snapshots that wait for the recogniser, at most.
const UNSEEN: usize = 256;
/// The longest wait for the departments' last calls.
const CLOSING_TIME: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("The city could not open: {problem:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; returns whether the books balanced at its end.
fn run(options: &Options) -> anyhow::Result<bool> {
    let home = Home::prepare(options)?;
    log_to(&home)?;
    let pki = Pki::found(home.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let (shown, taken) = mpsc::channel(UNSEEN);
    let subsystems = runtime.block_on(Subsystems::open(shown))?;
    let gateway = Gateway::start(home.path(), options, &subsystems)?;
    display::introduce(&gateway, &home);
    display::invite(&gateway, &pki);

    let office = Office { gateway: gateway.traffic, pki, answers: Answers::default() };
    runtime.block_on(day(options, &gateway, &office, taken, &subsystems))?;
    gateway.stop()?;

    let ledger = books::read(&home.ledger())?;
    let comparison = Comparison::new(&ledger.rows, &subsystems.received.all(), &office.answers);
    display::conclude(&ledger.usage()?, &comparison);
    display::say_next(&home);
    Ok(comparison.is_balanced())
}

/// Lets the departments work until `evening`, then finish their calls.
async fn day(
    options: &Options,
    gateway: &Gateway,
    office: &Office,
    taken: mpsc::Receiver<Taken>,
    subsystems: &Subsystems,
) -> anyhow::Result<()> {
    let (closing, working) = drain();
    departments::open(office, &working, taken, options.growth())?;
    drop(working);
    tokio::select! {
        () = display::watch(gateway) => {}
        ended = evening(options) => ended?,
    }
    close(closing, subsystems).await
}

/// Waits for the end of `--seconds`, for Ctrl-C or for SIGTERM.
async fn evening(options: &Options) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let length = async {
        match options.length() {
            Some(length) => tokio::time::sleep(length).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = length => Ok(()),
        pressed = tokio::signal::ctrl_c() => Ok(pressed?),
        _ = terminated.recv() => Ok(()),
    }
}

/// Closes the city: departments finish their calls, and officers end with their streams.
async fn close(closing: DrainTrigger, subsystems: &Subsystems) -> anyhow::Result<()> {
    closing.begin();
    subsystems.end_duty();
    let finished = tokio::time::timeout(CLOSING_TIME, closing.done()).await;
    finished.context("some departments did not finish their last calls; see gateway.log")
}

/// Writes the gateway's log to a file, because the table occupies the screen.
fn log_to(home: &Home) -> anyhow::Result<()> {
    let path = home.path().join("gateway.log");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::sync::Mutex::new(file)).init();
    Ok(())
}

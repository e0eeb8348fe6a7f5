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
//! At the end three parties compare their counts, and the process fails if they differ. Then a real Prometheus, which has
//! scraped the gateway all the time, is compared with the ledger, hour by hour.
//!
//! The city's clock is one to two hours behind: its day begins shortly before an hour ends, and all of its hours are over
//! when it closes, so that the ledger can seal them.

#[cfg(test)]
mod audit;
mod books;
mod city;
mod departments;
mod display;
mod gateway;
mod morning;
mod options;
mod pki;
mod prometheus;
mod scrape;
mod subsystems;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tallygate::clock::Clock;
use tallygate::lifecycle::{DrainTrigger, drain};
use tallygate::model::Window;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use books::Comparison;
use departments::{Answers, Office};
use gateway::Gateway;
use options::{Home, Options};
use pki::Pki;
use prometheus::Prometheus;
use subsystems::{Subsystems, Taken};

/// Snapshots that wait for the recogniser, at most.
const UNSEEN: usize = 256;
/// The longest wait for the departments' last calls.
const CLOSING_TIME: Duration = Duration::from_secs(20);
/// How long before the end of an hour, on the city's clock, the day begins: then there are two hours to compare.
const EVENING: Duration = Duration::from_secs(5);
/// An hour can be sealed a minute after its end. In seconds, with room.
const SEALING_TIME: i64 = 300;

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
    let clock = city_clock();
    let pki = Pki::found(home.path(), &clock)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let (shown, taken) = mpsc::channel(UNSEEN);
    let subsystems = runtime.block_on(Subsystems::open(shown))?;
    let gateway = Gateway::start(home.path(), (options.port, options.admin_port), &subsystems, clock)?;
    let prometheus = Prometheus::start(home.path(), gateway.admin)?;
    display::introduce(&gateway, &home, prometheus.as_ref());
    display::invite(&gateway, &pki);

    let office = Office { gateway: gateway.traffic, pki, answers: Answers::default() };
    runtime.block_on(day(options, &gateway, &office, taken, &subsystems))?;
    let ports = (gateway.traffic.port(), gateway.admin.port());
    gateway.stop()?;

    let ledger = books::read(&home.ledger())?;
    let comparison = Comparison::new(&ledger.rows, &subsystems.received.all(), &office.answers);
    display::conclude(&ledger.usage()?, &comparison);
    let is_reconciled = match prometheus {
        Some(prometheus) => {
            let gateway = Gateway::start(home.path(), ports, &subsystems, Clock::system())?;
            let reconciliation = morning::reconcile(&home.ledger(), &ledger.hours(), &prometheus.url());
            gateway.stop()?;
            display::show_reconciliation(&reconciliation?)
        }
        None => true, // `introduce` has said so
    };
    display::say_next(&home);
    Ok(comparison.is_balanced() && is_reconciled)
}

/// The clock of the city: its day begins [`EVENING`] before the end of an hour, so long ago that each of its hours is over
/// and sealed as soon as the system's clock counts.
fn city_clock() -> Clock {
    let now = Clock::system().unix_seconds();
    let begin = Window::of_unix_seconds(now - 3600 - SEALING_TIME).start_unix_seconds();
    Clock::system_behind(Duration::from_secs(u64::try_from(now - begin).unwrap_or(0)) + EVENING)
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

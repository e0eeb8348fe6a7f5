//! `loadtests drive`: sends a fixed number of commands from eight departments, in a closed loop.
//!
//! Guarantees:
//! - All callers use real client certificates.
//! - The report contains every command that was sent exactly once, under its department and outcome.
//! - All connections are open and warm before the measured part begins.
//! - The run is bounded in time.
//!
//! Not implemented: an open loop (latency from the time at which a command is due).

mod lane;
mod record;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::account::add;
use crate::pki::{DEPARTMENTS, Pki, department};
use lane::Lane;
use record::Record;

pub use lane::Door;
pub use record::{Latency, Report};

/// The line on stdout that means: connected, warm, and waiting for a line on stdin.
pub const WARM: &str = "warm";

/// The protocol of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive connections.
    H1,
    /// HTTP/2 with several streams on each connection.
    H2,
    /// HTTP/1.1 with a new TLS connection for each command.
    Fresh,
}

impl Protocol {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Fresh => "fresh",
        }
    }

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 | Self::Fresh => b"http/1.1",
            Self::H2 => b"h2",
        }
    }
}

/// The options of a driver.
#[derive(Clone, Debug, clap::Args)]
pub struct Drive {
    /// Address of the proxy
    #[arg(long)]
    pub address: SocketAddr,
    /// The folder with the certificates (`loadtests pki` makes one)
    #[arg(long)]
    pub pki: PathBuf,
    /// Protocol of the commands
    #[arg(long, value_enum)]
    pub protocol: Protocol,
    /// Connections, all departments together
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// Concurrent streams on each HTTP/2 connection
    #[arg(long, default_value_t = 16)]
    pub streams: usize,
    /// Commands to measure, all departments together
    #[arg(long, default_value_t = 100_000)]
    pub commands: u64,
    /// Commands before these, on the same connections: counted, not measured
    #[arg(long, default_value_t = 0)]
    pub warmup: u64,
    /// Print "warm" after the warm-up and wait for a line on stdin
    #[arg(long)]
    pub hold: bool,
    /// Time limit of the run, in seconds
    #[arg(long, default_value_t = 300)]
    pub seconds: u64,
}

impl Drive {
    /// The command-line arguments that pass this plan to another process.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["drive".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        option("address", self.address.to_string());
        option("pki", self.pki.display().to_string());
        option("protocol", self.protocol.name().to_owned());
        option("connections", self.connections.to_string());
        option("streams", self.streams.to_string());
        option("commands", self.commands.to_string());
        option("warmup", self.warmup.to_string());
        option("seconds", self.seconds.to_string());
        if self.hold {
            arguments.push("--hold".to_owned());
        }
        arguments
    }
}

/// Drives the commands of the plan and prints the report.
pub async fn drive(plan: Drive) -> Result<()> {
    let limit = Duration::from_secs(plan.seconds);
    let work = tokio::task::LocalSet::new();
    let (report, lanes) = tokio::time::timeout(limit, work.run_until(run(&plan)))
        .await
        .with_context(|| format!("not all commands were answered within {limit:?}"))??;
    println!("{}", serde_json::to_string(&report)?);
    drop(lanes); // the reader of the report reads the proxy's CPU time before these connections close
    Ok(())
}

/// A lane and the index of the department that uses it.
type Owned = (usize, Lane);

async fn run(plan: &Drive) -> Result<(Report, Vec<Owned>)> {
    let lanes = connect(plan).await?;
    let (warm_up, lanes) = stint(lanes, plan.warmup).await?;
    if plan.hold {
        println!("{WARM}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    }
    let begin = Instant::now();
    let (record, lanes) = stint(lanes, plan.commands).await?;
    let elapsed_us = u64::try_from(begin.elapsed().as_micros())?;
    let mut account = warm_up.account();
    add(&mut account, &record.account());
    let (commands, latency_us) = (record.commands(), record.latency());
    let faults = warm_up.faults().into_iter().chain(record.faults()).collect();
    Ok((Report { account, commands, elapsed_us, latency_us, faults }, lanes))
}

/// Opens all connections, the same number for each department.
async fn connect(plan: &Drive) -> Result<Vec<Owned>> {
    let each = plan.connections / DEPARTMENTS;
    ensure!(
        each > 0 && plan.connections.is_multiple_of(DEPARTMENTS),
        "--connections must be a multiple of {DEPARTMENTS}"
    );
    let pki = Pki::existing(&plan.pki);
    let mut lanes = Vec::new();
    for index in 0..DEPARTMENTS {
        let name = department(index);
        let door = Door { address: plan.address, tls: pki.client(&name, plan.protocol.alpn())? };
        for _ in 0..each {
            let opened =
                open(plan, &door).await.with_context(|| format!("connecting as {name} to {}", plan.address))?;
            lanes.extend(opened.into_iter().map(|lane| (index, lane)));
        }
    }
    Ok(lanes)
}

async fn open(plan: &Drive, door: &Door) -> Result<Vec<Lane>> {
    match plan.protocol {
        Protocol::H1 => Ok(vec![Lane::keep_alive(door).await?]),
        Protocol::H2 => Lane::streams(door, plan.streams).await,
        Protocol::Fresh => Ok(vec![Lane::Fresh(door.clone())]),
    }
}

/// The state that the lanes share during a stint.
struct Stint {
    left: [Cell<u64>; DEPARTMENTS],
    record: RefCell<Record>,
}

impl Stint {
    /// Takes one of the department's remaining commands; returns false if none is left.
    fn take(&self, department: usize) -> bool {
        let left = self.left[department].get();
        self.left[department].set(left.saturating_sub(1));
        left > 0
    }
}

/// Sends `commands` commands over all lanes and returns the lanes.
async fn stint(lanes: Vec<Owned>, commands: u64) -> Result<(Record, Vec<Owned>)> {
    let left = record::shares(commands).map(Cell::new);
    let stint = Rc::new(Stint { left, record: RefCell::new(Record::new()?) });
    let tasks: Vec<_> = lanes
        .into_iter()
        .map(|(department, lane)| tokio::task::spawn_local(work(department, lane, Rc::clone(&stint))))
        .collect();
    let mut back = Vec::new();
    for task in tasks {
        back.extend(task.await?);
    }
    let unsent: u64 = stint.left.iter().map(Cell::get).sum();
    let Some(stint) = Rc::into_inner(stint) else { anyhow::bail!("a lane still works after its end") };
    let record = stint.record.into_inner();
    ensure!(unsent == 0, "{unsent} commands were not sent, all lanes had failed: {}", record.faults().join("; "));
    Ok((record, back))
}

/// Drives one lane until its department has no command left. A failed lane is not returned.
async fn work(department: usize, mut lane: Lane, stint: Rc<Stint>) -> Option<Owned> {
    while stint.take(department) {
        let begin = Instant::now();
        match lane.command().await {
            Ok(status) => stint.record.borrow_mut().answered(department, status, begin.elapsed()),
            Err(fault) => {
                stint.record.borrow_mut().failed(department, &fault);
                return None;
            }
        }
    }
    Some((department, lane))
}

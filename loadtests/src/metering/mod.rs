//! `loadtests metering`: measures the cost of counting a command, of waiting for the disk, and of telling about it: the
//! access log and traces.
//!
//! Guarantees:
//! - All variants are the same gateway at the same work, in one interleaved run, alone on its core.
//! - Ratios are taken within a round.
//! - The books of every sample balance, except for a build without counting.
//!
//! The run judges no figure: a missed target is only shown.

mod collector;
mod result;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::account::Balance;
use crate::books::book_when_folded;
use crate::cpu::Cpu;
use crate::driver::{Drive, Protocol, Report};
use crate::machine::{Machine, today};
use crate::proxy::{Durability, Kind, Proxy, START_LIMIT, Setup};
use crate::workshop::Workshop;
use result::{Figure, Measured, Sample};

/// The gateway's core, and the core of driver and upstream.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Response time of the upstream where latency is measured.
const UPSTREAM_TAKES: Duration = Duration::from_millis(5);

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Metering {
    /// The gateway's program (a release build)
    #[arg(long)]
    pub tallygate: PathBuf,
    /// The same program built with `RUSTFLAGS="--cfg uncounted"`: it forwards and does not count
    #[arg(long)]
    pub uncounted: Option<PathBuf>,
    /// Number of rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Commands in a sample; a fifth of it where latency is measured
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(20_000..=10_000_000))]
    pub commands: u64,
    /// Measure the access log and traces instead of counting
    #[arg(long)]
    pub observing: bool,
    /// File of the result; the table is written beside it [default: loadtests/results/DATE-metering.json]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The measured variants of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// Counts survive the death of the process.
    Process,
    /// Responses wait for the disk (durability `machine`).
    Machine,
    /// Nothing is counted.
    Uncounted,
    /// The access log has a line of JSON for each command, in a file.
    AccessLog,
    /// Traces are on, and one command of a hundred is sampled. A collector takes the spans.
    Traces,
    /// Traces are on, and every command is sampled.
    AllTraces,
}

impl Variant {
    /// The configuration that it adds.
    fn settings(self, folder: &Path, collector: SocketAddr) -> String {
        let sample = match self {
            Self::Process | Self::Machine | Self::Uncounted => return String::new(),
            Self::AccessLog => return format!("accessLog: {{ output: {} }}\n", folder.join("access.log").display()),
            Self::Traces => "1/100",
            Self::AllTraces => "all",
        };
        format!("tracing: {{ endpoint: \"http://{collector}\", sample: {sample} }}\n")
    }
}

/// The kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// HTTP/1.1, 32 connections.
    H1,
    /// HTTP/2, 8 connections of 16 streams.
    H2,
    /// HTTP/1.1, 256 connections.
    Crowd,
    /// HTTP/1.1, 32 connections, a slow upstream.
    Slow,
}

/// The comparisons: work, variant, and the variant it is compared with. A figure is the first over the second.
const PAIRS: [(Work, Variant, Variant); 4] = [
    (Work::H1, Variant::Process, Variant::Uncounted),
    (Work::H2, Variant::Process, Variant::Uncounted),
    (Work::Crowd, Variant::Machine, Variant::Process),
    (Work::Slow, Variant::Machine, Variant::Process),
];

/// The comparisons of `--observing`.
const OBSERVING_PAIRS: [(Work, Variant, Variant); 5] = [
    (Work::H1, Variant::AccessLog, Variant::Process),
    (Work::H2, Variant::AccessLog, Variant::Process),
    (Work::H1, Variant::Traces, Variant::Process),
    (Work::H2, Variant::Traces, Variant::Process),
    (Work::H1, Variant::AllTraces, Variant::Process),
];

/// Measures, prints and stores the result.
pub fn metering(options: &Metering) -> Result<()> {
    let machine = Machine::here()?;
    ensure!(machine.cores > LOAD_CORE, "measuring needs two cores: one for the gateway, one for the load");
    let samples = measure(options)?;
    let measured = Measured {
        date: today()?,
        command_line: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        machine,
        figures: pairs(options).iter().filter_map(|pair| Figure::of(*pair, &samples)).collect(),
        samples,
    };
    println!("{}", measured.table());
    measured.keep(options.out.as_deref())
}

fn pairs(options: &Metering) -> &'static [(Work, Variant, Variant)] {
    if options.observing { &OBSERVING_PAIRS } else { &PAIRS }
}

fn measure(options: &Metering) -> Result<Vec<Sample>> {
    let collector = collector::start()?;
    let (quick, slow) = (Workshop::open(Some(LOAD_CORE))?, Workshop::open_with(Some(LOAD_CORE), UPSTREAM_TAKES)?);
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for &(work, one, other) in pairs(options) {
            let workshop = if work == Work::Slow { &slow } else { &quick };
            for variant in [one, other] {
                let Some(program) = program(options, variant).filter(|_| is_wanted(options, other)) else { continue };
                let what = format!("round {round}, {work:?}, {variant:?}");
                let sample = sample((workshop, collector), (program, variant), work, options.commands);
                let (cpu, report) = sample.with_context(|| format!("measuring failed: {what}"))?;
                let sample = Sample::new((round, work, variant), cpu, &report);
                eprintln!("{what}: {sample}");
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

fn is_wanted(options: &Metering, against: Variant) -> bool {
    program(options, against).is_some()
}

fn program(options: &Metering, variant: Variant) -> Option<&Path> {
    match variant {
        Variant::Uncounted => options.uncounted.as_deref(),
        _ => Some(&options.tallygate),
    }
}

/// Takes one sample: a freshly started gateway and one driver.
fn sample(
    (workshop, collector): (&Workshop, SocketAddr),
    who: (&Path, Variant),
    work: Work,
    commands: u64,
) -> Result<(Cpu, Report)> {
    workshop.upstream().reset()?;
    let durability = if who.1 == Variant::Machine { Durability::Machine } else { Durability::Process };
    let (program, core) = (who.0.to_owned(), Some(PROXY_CORE));
    let setup = Setup { kind: Kind::Tallygate, program, core, workers: 1, durability };
    let settings = |text: String, folder: &Path| Ok(text + &who.1.settings(folder, collector));
    let gateway = Proxy::start_with(&setup, workshop, START_LIMIT, settings)?;
    let mut driver = workshop.driver(&plan(workshop, &gateway, work, commands))?;
    driver.warm()?;
    let before = gateway.cpu()?;
    driver.go()?;
    let report = driver.report()?;
    let cpu = gateway.cpu()? - before;
    balance(workshop, &gateway, who.1, &report)?;
    gateway.stop()?;
    Ok((cpu, report))
}

fn plan(workshop: &Workshop, gateway: &Proxy, work: Work, commands: u64) -> Drive {
    let (protocol, connections, streams, commands) = match work {
        Work::H1 => (Protocol::H1, 32, 1, commands),
        Work::H2 => (Protocol::H2, 8, 16, commands),
        Work::Crowd => (Protocol::H1, 256, 1, commands),
        Work::Slow => (Protocol::H1, 32, 1, commands / 5),
    };
    Drive {
        address: gateway.address(),
        pki: workshop.pki().folder().to_owned(),
        protocol,
        connections,
        streams,
        commands,
        warmup: commands / 5,
        hold: true,
        seconds: 300,
    }
}

fn balance(workshop: &Workshop, gateway: &Proxy, variant: Variant, report: &Report) -> Result<()> {
    let client = report.account.clone();
    let mut balance = Balance::of_client(client.clone()).and("upstream", workshop.upstream().counts()?);
    if variant != Variant::Uncounted {
        balance = balance.and("usage_hourly", book_when_folded(gateway, &client)?);
    }
    let faults = report.faults.join("; ");
    ensure!(balance.is_equal(), "the books do not balance, so the figure means nothing\n{balance}\nfaults: {faults}");
    Ok(())
}

//! `loadtests compare`: measures the CPU cost of one command, beside nginx and HAProxy at the same work.
//!
//! Guarantees:
//! - One proxy runs at a time, alone on its core. Driver and upstream share the other core.
//! - The samples are interleaved (A B C A B C ...).
//! - Only warm connections are measured.
//! - The books of every sample balance, or the whole run fails.
//!
//! The run judges no figure: a missed target is shown and is not an error.

pub mod render;
pub mod result;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::account::Balance;
use crate::books::book_when_folded;
use crate::cpu::Cpu;
use crate::driver::{Drive, Protocol, Report};
use crate::machine::{Machine, today, version};
use crate::proxy::{Durability, Kind, Proxy, Setup};
use crate::workshop::Workshop;
use result::{Comparison, Sample, Setting};

/// The proxy's core. No other process of the run uses it.
const PROXY_CORE: usize = 0;

/// The core of driver and upstream.
const LOAD_CORE: usize = 1;

/// A new connection costs about forty times as much as a command, so `Fresh` samples have fewer commands by this
/// factor.
const FRESH_DIVISOR: u64 = 50;

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Compare {
    /// The gateway's program (a release build)
    #[arg(long, required_unless_present = "peers_only")]
    pub tallygate: Option<PathBuf>,
    /// Only nginx and HAProxy
    #[arg(long, conflicts_with = "tallygate")]
    pub peers_only: bool,
    /// Another build of the gateway, measured instead of nginx and HAProxy: the cost of a change
    #[arg(long, value_name = "PROGRAM", conflicts_with = "peers_only")]
    pub before: Option<PathBuf>,
    /// Number of rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Commands in a sample; a fiftieth of it where each has a new connection (with fewer than 20,000 commands the
    /// kernel's 10 ms ticks hide the figure)
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(20_000..=10_000_000))]
    pub commands: u64,
    /// Kinds of work to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Protocol::H1, Protocol::H2, Protocol::Fresh])]
    pub cases: Vec<Protocol>,
    /// The gateway's durability
    #[arg(long, value_enum, default_value_t = Durability::Process)]
    pub durability: Durability,
    /// File of the result; the table and the plot are written beside it [default: loadtests/results/DATE-compare.json]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Measures, prints and stores the result.
pub fn compare(options: &Compare) -> Result<()> {
    let setups = setups(options);
    let setting = setting(options, &setups)?;
    let comparison = Comparison::new(setting, measure(options, &setups)?);
    println!("{}", render::tables(&comparison));
    keep(&comparison, options.out.as_deref())
}

fn setting(options: &Compare, setups: &[Setup]) -> Result<Setting> {
    let machine = Machine::here()?;
    ensure!(machine.cores > LOAD_CORE, "comparing needs two cores: one for the proxy, one for the load");
    Ok(Setting {
        date: today()?,
        command_line: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        machine,
        versions: setups.iter().map(version_of).collect::<Result<_>>()?,
        durability: options.durability,
    })
}

fn setups(options: &Compare) -> Vec<Setup> {
    let setup = |kind, program: &Path| Setup {
        kind,
        program: program.to_owned(),
        core: Some(PROXY_CORE),
        workers: 1,
        durability: options.durability,
    };
    let ours = options.tallygate.iter().map(|program| setup(Kind::Tallygate, program));
    let peers = match &options.before {
        Some(before) => vec![(Kind::Before, before.as_path())],
        None => vec![(Kind::Haproxy, Path::new("/usr/sbin/haproxy")), (Kind::Nginx, Path::new("/usr/sbin/nginx"))],
    };
    ours.chain(peers.into_iter().map(|(kind, program)| setup(kind, program))).collect()
}

fn version_of(setup: &Setup) -> Result<(Kind, String)> {
    let (argument, hint) = match setup.kind {
        Kind::Tallygate | Kind::Before => ("--version", "build it with `cargo build --release -p tallygate`"),
        Kind::Nginx | Kind::Haproxy => ("-v", "it comes with `apt-get install --no-install-recommends haproxy nginx`"),
    };
    let version = version(&setup.program, argument);
    Ok((setup.kind, version.with_context(|| format!("{} does not run; {hint}", setup.kind.name()))?))
}

/// Takes all samples, interleaved.
fn measure(options: &Compare, setups: &[Setup]) -> Result<Vec<Sample>> {
    let workshop = Workshop::open(Some(LOAD_CORE))?;
    let mut samples = Vec::new();
    for round in 1..=options.rounds {
        for case in &options.cases {
            for setup in setups {
                let what = format!("round {round}, {}, {}", case.name(), setup.kind.name());
                let sample = sample(&workshop, setup, (round, *case), options.commands);
                let sample = sample.with_context(|| format!("measuring failed: {what}"))?;
                eprintln!("{what}: {} us a command", render::micros(sample.cpu_ns));
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// Takes one sample: a freshly started proxy, one driver, one figure.
fn sample(workshop: &Workshop, setup: &Setup, at: (u32, Protocol), commands: u64) -> Result<Sample> {
    workshop.upstream().reset()?;
    let proxy = Proxy::start(setup, workshop)?;
    let mut driver = workshop.driver(&plan(workshop, &proxy, at.1, commands))?;
    driver.warm()?;
    let before = proxy.cpu()?;
    driver.go()?;
    let report = driver.report()?;
    let cpu = proxy.cpu()? - before;
    balance(workshop, setup.kind, &proxy, &report)?;
    proxy.stop()?;
    Ok(to_sample(setup.kind, at, cpu, &report))
}

fn plan(workshop: &Workshop, proxy: &Proxy, protocol: Protocol, commands: u64) -> Drive {
    let (connections, streams, commands) = match protocol {
        Protocol::H1 => (32, 1, commands),
        Protocol::H2 => (8, 16, commands),
        Protocol::Fresh => (8, 1, commands / FRESH_DIVISOR),
    };
    Drive {
        address: proxy.address(),
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

/// Returns an error unless all accounts are equal. The peers have no book.
fn balance(workshop: &Workshop, kind: Kind, proxy: &Proxy, report: &Report) -> Result<()> {
    let client = report.account.clone();
    let mut balance = Balance::of_client(client.clone()).and("upstream", workshop.upstream().counts()?);
    if kind.is_gateway() {
        balance = balance.and("usage_hourly", book_when_folded(proxy, &client)?);
    }
    let faults = if report.faults.is_empty() { "none".to_owned() } else { report.faults.join("; ") };
    ensure!(
        balance.is_equal(),
        "the books do not balance, so the figure means nothing\n{balance}\nfaults the driver saw: {faults}"
    );
    Ok(())
}

fn to_sample(proxy: Kind, (round, case): (u32, Protocol), cpu: Cpu, report: &Report) -> Sample {
    let per_command = |microseconds: u64| microseconds * 1000 / report.commands.max(1);
    Sample {
        round,
        case,
        proxy,
        commands: report.commands,
        cpu_ns: per_command(cpu.total_us()),
        user_ns: per_command(cpu.user_us),
        system_ns: per_command(cpu.system_us),
        elapsed_us: report.elapsed_us,
        busy_percent: cpu.total_us() * 100 / report.elapsed_us.max(1),
        latency_us: report.latency_us,
    }
}

/// Writes JSON, Markdown and SVG side by side.
fn keep(comparison: &Comparison, out: Option<&Path>) -> Result<()> {
    let default = || PathBuf::from(format!("loadtests/results/{}-compare.json", comparison.setting.date));
    let json = out.map_or_else(default, Path::to_owned);
    if let Some(folder) = json.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    }
    let (markdown, plot) = (json.with_extension("md"), json.with_extension("svg"));
    let plot_name = plot.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let texts = [
        (&json, serde_json::to_string_pretty(comparison)? + "\n"),
        (&markdown, render::markdown(comparison, &plot_name)),
        (&plot, render::plot(comparison)),
    ];
    for (file, text) in texts {
        std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    eprintln!("kept in {}, {} and {}", json.display(), markdown.display(), plot.display());
    Ok(())
}

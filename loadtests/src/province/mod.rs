//! `loadtests province`: a gateway with 210 subsystems, 30,000 departments and 410,000 callers starts, is called, scraped and
//! reloaded, each within its bound.
//!
//! Guarantees: the real binary, real client certificates; every department has usage in the ledger; CPU a command is compared
//! with the same gateway at eight departments in one interleaved run; the books of every sample balance. The result is kept
//! also when a bound is missed.

mod plan;
mod result;
mod usage;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::account::{Account, Balance};
use crate::cpu::Cpu;
use crate::driver::{Drive, Latency, Protocol, Report};
use crate::http;
use crate::ledger;
use crate::machine::{Machine, today};
use crate::process::LOOK_AGAIN;
use crate::proxy::{Durability, Kind, Proxy, Setup};
use crate::workshop::Workshop;
use plan::Plan;
use result::{Figures, Kept, Start};

/// The gateway's core, and that of driver and upstream, where CPU is measured.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// How long the upstream takes where latency is measured: so that neither core is full.
const UPSTREAM_TAKES: Duration = Duration::from_millis(5);
/// How long a start or a reload may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the book may take to catch up.
const FOLD_LIMIT: Duration = Duration::from_secs(20);
/// How often `/config` is asked whether a reload is live: its answer costs milliseconds with 30,000 quotas.
const LOOK_AT_CONFIG: Duration = Duration::from_millis(50);
const SCRAPES: usize = 5;
const RELOADS: usize = 3;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's program (a release build)
    #[arg(long)]
    pub tallygate: PathBuf,
    /// Subsystems, beside the one that is called
    #[arg(long, default_value_t = 209)]
    pub subsystems: usize,
    /// Departments, beside the eight that call
    #[arg(long, default_value_t = 29_992)]
    pub departments: usize,
    /// Callers of these
    #[arg(long, default_value_t = 409_992)]
    pub callers: usize,
    /// Included files with departments
    #[arg(long, default_value_t = 300)]
    pub files: usize,
    /// How often CPU a command is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Commands in a sample; a fifth of it where latency is measured
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    pub commands: u64,
    /// Where the result goes [default: loadtests/results/DATE-province.md]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Measures, prints and keeps the result.
pub fn province(options: &Options) -> Result<()> {
    let machine = Machine::here()?;
    ensure!(machine.cores > LOAD_CORE, "measuring needs two cores: one for the gateway, one for the load");
    let (quick, slow) = (Workshop::open(Some(LOAD_CORE))?, Workshop::open_with(None, UPSTREAM_TAKES)?);
    let one_file = one_file(options, &quick)?;
    let (many_files, figures) = at_work(options, &slow)?;
    let cpu_ns = cpu(options, &quick)?;
    let kept = Kept {
        date: today()?,
        command_line: std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        machine,
        one_file,
        many_files,
        figures,
        cpu_ns,
    };
    println!("{}", kept.table());
    kept.keep(options.out.as_deref())?;
    ensure!(kept.is_met(), "a bound is missed");
    Ok(())
}

fn plan_of(options: &Options, workshop: &Workshop) -> Result<Plan> {
    let Options { subsystems, departments, callers, files, .. } = *options;
    let plan = Plan { subsystems, departments, callers, files, upstream: workshop.upstream().traffic };
    plan.check()?;
    Ok(plan)
}

fn setup(options: &Options, core: Option<usize>, workers: usize) -> Setup {
    let (kind, durability) = (Kind::Tallygate, Durability::Process);
    Setup { kind, program: options.tallygate.clone(), core, workers, durability }
}

/// Everything in one file: only its start is measured.
fn one_file(options: &Options, workshop: &Workshop) -> Result<Start> {
    let plan = plan_of(options, workshop)?;
    let mut bytes = 0;
    let gateway = Proxy::start_with(&setup(options, None, 2), workshop, PATIENCE, |main, _folder| {
        let text = plan.in_one_file(&main);
        bytes = text.len();
        Ok(text)
    })?;
    let start = Start { bytes, took: gateway.ready_after(), memory_kib: peak_kib(gateway.id())? };
    eprintln!("one file: {start}");
    gateway.stop()?;
    Ok(start)
}

fn start_province(options: &Options, workshop: &Workshop, setup: &Setup) -> Result<Proxy> {
    let plan = plan_of(options, workshop)?;
    Proxy::start_with(setup, workshop, PATIENCE, |main, folder| {
        usage::count_all(plan, &folder.join("ledger.db"))?;
        plan.in_many_files(&main, folder)
    })
}

/// Many files: start, scrapes, latency without and with reloads, memory.
fn at_work(options: &Options, workshop: &Workshop) -> Result<(Start, Figures)> {
    let gateway = start_province(options, workshop, &setup(options, None, 2))?;
    let bytes = (0..options.files).map(|file| gateway.folder().join(Plan::file(file)));
    let bytes = bytes.map(|file| Ok(std::fs::metadata(file)?.len())).sum::<Result<u64>>()?;
    let start =
        Start { bytes: usize::try_from(bytes)?, took: gateway.ready_after(), memory_kib: peak_kib(gateway.id())? };
    eprintln!("many files: {start}");
    let (scrape, scrape_bytes) = scrape(&gateway)?;
    let mut account = Account::new();
    workshop.upstream().reset()?;
    let (quiet, ()) = drive_beside(workshop, &gateway, options.commands / 5, &mut account, || Ok(()))?;
    let plan = plan_of(options, workshop)?;
    let reloads = || (0..RELOADS).map(|number| reload(plan, &gateway, number)).collect::<Result<Vec<_>>>();
    let (reloading, reloads) = drive_beside(workshop, &gateway, options.commands / 5, &mut account, reloads)?;
    let (reload, memory_kib) = (reloads.into_iter().max().unwrap_or_default(), peak_kib(gateway.id())?);
    balance(workshop, &gateway, &account)?;
    gateway.stop()?;
    Ok((start, Figures { scrape, scrape_bytes, reload, quiet, reloading, memory_kib }))
}

/// The slowest of several scrapes, and the size of the last.
fn scrape(gateway: &Proxy) -> Result<(Duration, usize)> {
    let (mut slowest, mut bytes) = (Duration::ZERO, 0);
    for _ in 0..SCRAPES {
        let begin = Instant::now();
        bytes = http::get(gateway.admin(), "/metrics")?.len();
        slowest = slowest.max(begin.elapsed());
    }
    eprintln!("/metrics: {slowest:?} at most, {bytes} bytes");
    Ok((slowest, bytes))
}

/// Drives commands and does something else meanwhile.
fn drive_beside<T>(
    workshop: &Workshop,
    gateway: &Proxy,
    commands: u64,
    account: &mut Account,
    beside: impl FnOnce() -> Result<T>,
) -> Result<(Latency, T)> {
    let mut driver = workshop.driver(&drive(workshop, gateway, 8, commands))?;
    driver.warm()?;
    driver.go()?;
    let done = beside()?;
    let report = driver.report()?;
    crate::account::add(account, &report.account);
    eprintln!("latency in us: {:?}", report.latency_us);
    Ok((report.latency_us, done))
}

/// Changes the limit of one department; how long until that is live.
fn reload(plan: Plan, gateway: &Proxy, number: usize) -> Result<Duration> {
    let (file, before) = (gateway.folder().join(Plan::file(0)), live(gateway)?);
    let text = plan.team(0).replacen("rate: 2000/s", &format!("rate: {}/s", 2001 + number), 1);
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).with_context(|| format!("writing {}", beside.display()))?;
    let begin = Instant::now();
    std::fs::rename(&beside, &file)?;
    while live(gateway)? == before {
        ensure!(begin.elapsed() < PATIENCE, "the changed file was not live after {PATIENCE:?}");
        std::thread::sleep(LOOK_AT_CONFIG);
    }
    eprintln!("reload {}: {:?}", number + 1, begin.elapsed());
    Ok(begin.elapsed())
}

/// The version that is live.
fn live(gateway: &Proxy) -> Result<String> {
    let config: serde_json::Value = serde_json::from_str(&http::get(gateway.admin(), "/config")?)?;
    ensure!(config["rejected"].is_null(), "the configuration was rejected: {config:#}");
    Ok(config["live"]["version"].as_str().unwrap_or_default().to_owned())
}

/// CPU nanoseconds a command, small beside province, in each round.
fn cpu(options: &Options, workshop: &Workshop) -> Result<Vec<(u64, u64)>> {
    let setup = setup(options, Some(PROXY_CORE), 1);
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        let small = sample(workshop, Proxy::start(&setup, workshop)?, options.commands)?;
        let province = sample(workshop, start_province(options, workshop, &setup)?, options.commands)?;
        eprintln!("round {round}: {small} ns a command with 8 departments, {province} ns with a province");
        rounds.push((small, province));
    }
    Ok(rounds)
}

fn sample(workshop: &Workshop, gateway: Proxy, commands: u64) -> Result<u64> {
    workshop.upstream().reset()?;
    let mut driver = workshop.driver(&drive(workshop, &gateway, 32, commands))?;
    driver.warm()?;
    let before = gateway.cpu()?;
    driver.go()?;
    let report: Report = driver.report()?;
    let used: Cpu = gateway.cpu()? - before;
    balance(workshop, &gateway, &report.account)?;
    gateway.stop()?;
    Ok(used.total_us() * 1000 / report.commands.max(1))
}

fn drive(workshop: &Workshop, gateway: &Proxy, connections: usize, commands: u64) -> Drive {
    Drive {
        address: gateway.address(),
        pki: workshop.pki().folder().to_owned(),
        protocol: Protocol::H1,
        connections,
        streams: 1,
        commands,
        warmup: commands / 5,
        hold: true,
        seconds: 300,
    }
}

/// Client, upstream and book say the same of the departments that called.
fn balance(workshop: &Workshop, gateway: &Proxy, client: &Account) -> Result<()> {
    let begin = Instant::now();
    loop {
        let mut book = ledger::account(&gateway.ledger())?;
        book.retain(|key, _| key.starts_with("dept-"));
        let balance =
            Balance::of_client(client.clone()).and("upstream", workshop.upstream().counts()?).and("usage_hourly", book);
        if balance.is_equal() {
            return Ok(());
        }
        ensure!(begin.elapsed() < FOLD_LIMIT, "the books do not balance, so the figure means nothing\n{balance}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The most memory that a process has had at once (proc(5), VmHWM).
fn peak_kib(id: u32) -> Result<u64> {
    let file = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.with_context(|| format!("{file} has no VmHWM"))
}

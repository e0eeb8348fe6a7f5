//! `loadtests province`: a gateway with 210 subsystems, 30,000 departments and 410,000 callers.
//!
//! The run starts, calls, scrapes and reloads the gateway, each within a bound. Guarantees:
//! - The real binary runs, with real client certificates.
//! - Every department has usage in the ledger.
//! - CPU per command is compared with the same gateway at eight departments, in one interleaved run.
//! - The books of every sample balance.
//! - The result is stored even if a bound is missed.

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

/// The gateway's core, and the core of driver and upstream, where CPU is measured.
const PROXY_CORE: usize = 0;
const LOAD_CORE: usize = 1;
/// Response time of the upstream where latency is measured, so that neither core is full.
const UPSTREAM_TAKES: Duration = Duration::from_millis(5);
/// The longest permitted start or reload; after it the run fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest permitted delay of the book.
const FOLD_LIMIT: Duration = Duration::from_secs(20);
/// Polling interval of `/config` for a live reload. With 30,000 quotas its response costs milliseconds.
const LOOK_AT_CONFIG: Duration = Duration::from_millis(50);
const SCRAPES: usize = 5;
const RELOADS: usize = 3;

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's program (a release build)
    #[arg(long)]
    pub tallygate: PathBuf,
    /// Subsystems, in addition to the one that is called
    #[arg(long, default_value_t = 209)]
    pub subsystems: usize,
    /// Departments, in addition to the eight that call
    #[arg(long, default_value_t = 29_992)]
    pub departments: usize,
    /// Callers of these
    #[arg(long, default_value_t = 409_992)]
    pub callers: usize,
    /// Included files with departments
    #[arg(long, default_value_t = 300)]
    pub files: usize,
    /// Rounds of the measurement of CPU per command
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Commands in a sample; a fifth of it where latency is measured
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10_000..=10_000_000))]
    pub commands: u64,
    /// File of the result [default: loadtests/results/DATE-province.md]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Measures, prints and stores the result.
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

/// The whole configuration in one file: only the start is measured.
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

/// The slowest of several scrapes, and the size of the last one.
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

/// Drives commands and runs `beside` at the same time.
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

/// Changes the limit of one department; returns the time until the change is live.
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

/// The live version of the configuration.
fn live(gateway: &Proxy) -> Result<String> {
    let config: serde_json::Value = serde_json::from_str(&http::get(gateway.admin(), "/config")?)?;
    ensure!(config["rejected"].is_null(), "the configuration was rejected: {config:#}");
    Ok(config["live"]["version"].as_str().unwrap_or_default().to_owned())
}

/// CPU nanoseconds per command in each round: eight departments, then the province.
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

/// Checks that client, upstream and book have equal counts for the departments that called.
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

/// Peak resident memory of a process (proc(5), VmHWM).
fn peak_kib(id: u32) -> Result<u64> {
    let file = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    peak.with_context(|| format!("{file} has no VmHWM"))
}

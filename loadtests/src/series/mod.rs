//! `loadtests series`: measures the memory of a gateway that counts many series, and of concurrent scrapes.
//!
//! Guarantees:
//! - The real program runs, with real client certificates.
//! - Every department calls each of its commands once, over its own connection.
//! - `/metrics` must count exactly the commands that were called, and `ledger verify` must find no problem.
//! - Memory is the kernel's account (proc(5), `/proc/PID/status`). `RssAnon` is the process's own memory. `RssFile` is
//!   mapped pages of files, including the tally.
//! - If a bound is exceeded, the run prints all figures and then fails.

mod callers;
mod gateway;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use self::gateway::{Gateway, Resident};
use crate::http;
use crate::machine::{Machine, today, version};
use crate::pki::Pki;
use crate::process::{Child, Launch, myself};
use crate::upstream::Addresses;

/// Number of subsystems over which the commands are spread.
pub const SUBSYSTEMS: usize = 10;
/// Concurrent scrapes in a storm (the gateway's own limit), and the number of storms in sequence.
const SCRAPES: usize = 8;
const STORMS: usize = 3;
/// The pause in which the last fold reaches the book and freed memory returns to the system.
const REST: Duration = Duration::from_secs(8);
/// Polling interval of memory during a storm.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The number of series and the bounds of memory.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The gateway's program
    #[arg(long)]
    pub tallygate: PathBuf,
    /// Departments that call
    #[arg(long, default_value_t = 200)]
    pub departments: usize,
    /// Commands of each department
    #[arg(long, default_value_t = 500)]
    pub commands: usize,
    /// Upper bound of resident memory at rest with all series in use, in MiB
    #[arg(long, default_value_t = 200)]
    pub rest_mib: u64,
    /// Upper bound of the memory that a storm of scrapes adds, in MiB
    #[arg(long, default_value_t = 100)]
    pub storm_mib: u64,
    /// File of the result [default: it is only printed]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The figures of a run.
#[derive(Debug)]
struct Measured {
    idle: Resident,
    calling: Duration,
    rest: Resident,
    scrape: Duration,
    scrape_bytes: usize,
    storm: Resident,
    storm_slowest: Duration,
    restarted: Resident,
    tally_bytes: u64,
    check: String,
}

/// Calls, scrapes, restarts, prints the figures and checks the bounds.
pub fn series(options: &Options) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("series-").tempdir().context("making a folder for the run")?;
    let measured = measure(options, folder.path());
    let measured = measured.with_context(|| format!("everything was in {}", folder.path().display()))?;
    let text = page(options, &measured)?;
    println!("{text}");
    if let Some(out) = &options.out {
        std::fs::write(out, text).with_context(|| format!("writing {}", out.display()))?;
    }
    let (rest, storm) = (measured.rest.mib(), measured.storm.all.saturating_sub(measured.rest.all) >> 20);
    ensure!(rest <= options.rest_mib, "{rest} MiB at rest, at most {} were allowed", options.rest_mib);
    ensure!(storm <= options.storm_mib, "a storm added {storm} MiB, at most {} were allowed", options.storm_mib);
    Ok(())
}

fn measure(options: &Options, folder: &Path) -> Result<Measured> {
    let pki = Pki::make_for(&folder.join("pki"), options.departments)?;
    let launch = Launch { name: "upstream".into(), program: myself()?, arguments: vec!["upstream".into()], core: None };
    let mut upstream = Child::start(launch, folder)?;
    let addresses: Addresses = serde_json::from_str(&upstream.read_line()?).context("the upstream's addresses")?;
    let mut gateway = Gateway::make(options, folder, addresses.traffic)?;
    let check = gateway.check()?;
    gateway.start()?;
    let idle = gateway.resident()?;
    let begun = Instant::now();
    callers::call_all(options, &pki, gateway.address)?;
    let calling = begun.elapsed();
    std::thread::sleep(REST);
    let rest = gateway.resident()?;
    let (scrape, text) = timed_scrape(gateway.admin)?;
    counts(&text, options)?;
    std::thread::sleep(REST);
    let (storm, storm_slowest) = storms(&gateway)?;
    let tally_bytes = gateway.tally_bytes()?;
    gateway.verify()?;
    gateway.stop()?;
    gateway.start()?;
    std::thread::sleep(REST);
    let restarted = gateway.resident()?;
    gateway.stop()?;
    gateway.verify()?;
    let scrape_bytes = text.len();
    Ok(Measured { idle, calling, rest, scrape, scrape_bytes, storm, storm_slowest, restarted, tally_bytes, check })
}

fn timed_scrape(admin: SocketAddr) -> Result<(Duration, String)> {
    let begun = Instant::now();
    let text = http::get(admin, "/metrics")?;
    Ok((begun.elapsed(), text))
}

/// Checks that `/metrics` contains every called command, under its department or under `other`.
fn counts(text: &str, options: &Options) -> Result<()> {
    let lines = text.lines().filter(|line| line.starts_with("tallygate_commands_total{"));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    let (counted, called) = (values.sum::<u64>(), (options.departments * options.commands) as u64);
    ensure!(counted == called, "{called} commands were called, /metrics counts {counted}");
    Ok(())
}

/// Peak memory during several storms, and the slowest response.
fn storms(gateway: &Gateway) -> Result<(Resident, Duration)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = gateway.resident()?;
            while !done.load(Ordering::Relaxed) {
                let now = gateway.resident()?;
                most = if now.all > most.all { now } else { most };
                std::thread::sleep(LOOK_EVERY);
            }
            Ok(most)
        });
        let slowest: Result<Duration> =
            (0..STORMS).try_fold(Duration::ZERO, |slowest, _| Ok(slowest.max(storm(gateway.admin)?)));
        done.store(true, Ordering::Relaxed);
        let most: Result<Resident> = watching.join().expect("looking at memory does not panic");
        Ok((most?, slowest?))
    })
}

fn storm(admin: SocketAddr) -> Result<Duration> {
    std::thread::scope(|scope| {
        let scrapes: Vec<_> = (0..SCRAPES).map(|_| scope.spawn(move || timed_scrape(admin))).collect();
        let times = scrapes.into_iter().map(|scrape| scrape.join().expect("a scrape does not panic"));
        times.map(|scrape| scrape.map(|(time, _)| time)).try_fold(Duration::ZERO, |most, time| Ok(most.max(time?)))
    })
}

fn page(options: &Options, measured: &Measured) -> Result<String> {
    let machine = Machine::here()?;
    let series = options.departments * options.commands;
    let mut text = format!("# Memory of {series} series, {}\n\n", today()?);
    text += &format!("`loadtests {}`\n\n", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    text += &format!("* machine: {}, {} cores, Linux {}\n", machine.cpu, machine.cores, machine.kernel);
    text += &format!("* load average of the last minute at the end: {}\n", machine.load_before);
    text += &format!("* program: {}\n", version(&options.tallygate, "--version")?);
    text += &format!(
        "* {} departments x {} commands, each called once in {:.1} s; 2 workers; the tally has {} MiB\n",
        options.departments,
        options.commands,
        measured.calling.as_secs_f64(),
        measured.tally_bytes >> 20
    );
    text += &format!("* `tallygate check` says: {}\n\n", measured.check);
    text += "`RssAnon` is the process's own memory, `RssFile` mapped pages of files: program and tally. The kernel can write\n\
             the tally's pages back when memory is short. `VmRSS` is the sum (proc(5)).\n\n";
    text += "| moment | VmRSS | RssAnon | RssFile | bound |\n|---|---:|---:|---:|---:|\n";
    let bound = format!("{} MiB", options.rest_mib);
    let storm = format!("{} MiB more", options.storm_mib);
    for (moment, resident, bound) in [
        ("no command yet", measured.idle, ""),
        ("all series in use", measured.rest, &*bound),
        ("most during storms of 8 scrapes", measured.storm, &*storm),
        ("after a restart", measured.restarted, ""),
    ] {
        let [all, own, file] = [resident.all, resident.own, resident.file].map(|bytes| bytes >> 20);
        text += &format!("| {moment} | {all} MiB | {own} MiB | {file} MiB | {bound} |\n");
    }
    text += &format!(
        "\nA scrape: {} KiB in {:.2} s; the slowest in a storm {:.2} s. `/metrics` counts every command, `ledger verify` finds \
         nothing.\n",
        measured.scrape_bytes >> 10,
        measured.scrape.as_secs_f64(),
        measured.storm_slowest.as_secs_f64()
    );
    Ok(text)
}

//! `loadtests torture`: kills the gateway repeatedly under load (crash test) and audits the ledger after each kill.
//!
//! Guarantees:
//! - Callers, gateway and upstream are separate processes. Callers and upstream write append-only logs.
//! - Every kill is SIGKILL, by this program or by the kernel that ran out of memory.
//! - The ledger of the dead gateway is audited as it is, and again after the next start, which must give the same
//!   result.
//! - The first violated rule ends the run.
//! - A seed fixes the time of each kill, as far as a machine is reproducible.

pub mod audit;
mod callers;
pub mod cgroup;
pub mod gateway;
pub mod journal;
mod render;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::audit::{Findings, Received, audit};
use self::cgroup::Cgroup;
use self::gateway::{Books, House};
use self::journal::{Seen, Tail, read_on};
use crate::ledger;
use crate::pki::Pki;
use crate::process::{Child, LOOK_AGAIN, Launch, myself};
use crate::proxy::Durability;
use crate::upstream::Addresses;

pub use callers::{Callers, call};

/// The longest time until the callers have noticed the death of the gateway, or have begun to call.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Memory limit of the cgroup; the gateway needs a tenth of it.
const CGROUP_BYTES: u64 = 256 * 1024 * 1024;

/// Responses after a start before its kill.
const BUSY: u64 = 50;

/// Range of the delay between the first responses after a start and its kill, in milliseconds.
const LIFE_MS: std::ops::Range<u64> = 20..500;

/// The largest delay of a kill during recovery, in milliseconds.
const RECOVERY_MS: u64 = 40;

/// The kinds of kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// kill -9 under load.
    Plain,
    /// kill -9 while new series make the tally grow.
    Growth,
    /// kill -9 under load, and again up to three times within the recovery that follows.
    Recovery,
    /// Killed by the kernel: the cgroup has no memory left.
    Oom,
}

/// The order of the kinds; half of all kills are plain.
const ORDER: [Kind; 10] = [
    Kind::Plain,
    Kind::Growth,
    Kind::Recovery,
    Kind::Plain,
    Kind::Plain,
    Kind::Oom,
    Kind::Plain,
    Kind::Growth,
    Kind::Recovery,
    Kind::Plain,
];

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Torture {
    /// The gateway's program
    #[arg(long)]
    pub tallygate: PathBuf,
    /// Number of kills, half of them with each durability
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub kills: u32,
    /// Kinds of kill; `oom` requires root
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Plain, Kind::Growth, Kind::Recovery, Kind::Oom])]
    pub kinds: Vec<Kind>,
    /// Seed of the times of the kills
    #[arg(long, default_value_t = 4)]
    pub seed: u64,
    /// File of the result [default: it is only printed]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The figures of all kills with one durability.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub durability: &'static str,
    pub kills: BTreeMap<&'static str, u32>,
    /// Further kills during recovery.
    pub again: u32,
    /// Kills of a gateway whose tally had grown.
    pub grown: u32,
    pub findings: Findings,
    pub received: u64,
    pub slowest_start: Duration,
    pub took: Duration,
}

/// Runs with both durabilities, prints every kill and stores the result.
pub fn torture(options: &Torture) -> Result<()> {
    let mut figures = Vec::new();
    let first = options.kills / 2;
    for (durability, range) in [(Durability::Process, 0..first), (Durability::Machine, first..options.kills)] {
        let folder = tempfile::Builder::new().prefix("torture-").tempdir().context("making a folder for the run")?;
        let result = Chamber::open(options, folder.path(), durability).and_then(|chamber| chamber.run(range));
        match result {
            Ok(result) => figures.push(result),
            Err(fault) => bail!("{fault:#}; everything is kept in {}", folder.keep().display()),
        }
    }
    let text = render::result(options, &figures)?;
    println!("{text}");
    if let Some(out) = &options.out {
        std::fs::write(out, text).with_context(|| format!("writing {}", out.display()))?;
    }
    Ok(())
}

/// All processes and logs around one ledger.
struct Chamber<'a> {
    options: &'a Torture,
    house: House,
    callers: Child,
    upstream: Child,
    callers_log: Tail,
    upstream_log: Tail,
    seen: BTreeMap<String, Seen>,
    received: Received,
    figures: Figures,
    dice: Dice,
}

impl<'a> Chamber<'a> {
    fn open(options: &'a Torture, folder: &Path, durability: Durability) -> Result<Self> {
        let pki = Pki::make(&folder.join("pki"))?;
        let path = |name: &str| folder.join(name);
        let text = |path: PathBuf| path.display().to_string();
        let mut upstream = start("upstream", folder, vec!["--log".into(), text(path("upstream-log"))])?;
        let addresses: Addresses = serde_json::from_str(&upstream.read_line()?)?;
        let house = House::make(&options.tallygate, &path("gateway"), addresses.traffic, durability)?;
        let arguments = [
            ["--address".to_owned(), house.address.to_string()],
            ["--pki".to_owned(), text(pki.folder().to_owned())],
            ["--log".to_owned(), text(path("callers-log"))],
        ];
        let callers = start("callers", folder, arguments.concat())?;
        let durability = match durability {
            Durability::Process => "process",
            Durability::Machine => "machine",
        };
        Ok(Self {
            options,
            house,
            callers,
            upstream,
            callers_log: Tail::open(&path("callers-log"))?,
            upstream_log: Tail::open(&path("upstream-log"))?,
            seen: BTreeMap::new(),
            received: Received::default(),
            figures: Figures { durability, ..Figures::default() },
            dice: Dice(options.seed),
        })
    }

    fn run(mut self, numbers: std::ops::Range<u32>) -> Result<Figures> {
        let begin = Instant::now();
        let kinds: Vec<_> = ORDER.into_iter().filter(|kind| self.options.kinds.contains(kind)).collect();
        ensure!(!kinds.is_empty(), "--kinds names no way to kill");
        let mut before = None;
        for number in numbers {
            let kind = kinds[number as usize % kinds.len()];
            let dead = self.life(number, kind, before.as_ref()).with_context(|| format!("kill {}", number + 1))?;
            before = Some(dead);
        }
        self.end(before.as_ref()).context("the last life")?;
        self.callers.stop()?;
        self.upstream.stop()?;
        self.figures.took = begin.elapsed();
        Ok(self.figures)
    }

    /// One cycle: start, load, kill, audit.
    fn life(&mut self, number: u32, kind: Kind, before: Option<&Books>) -> Result<Books> {
        let cgroup = (kind == Kind::Oom)
            .then(|| Cgroup::make(&format!("torture-{}", std::process::id()), CGROUP_BYTES))
            .transpose()?;
        let (mut gateway, ready_after) = self.start(before, cgroup.as_ref())?;
        let first_length = self.house.tally_bytes();
        let answered = self.answers();
        self.callers.write_line(if kind == Kind::Growth { "spread" } else { "call" })?;
        self.until("the gateway is busy", |chamber| chamber.answers() >= answered + BUSY)?;
        let lived = Duration::from_millis(self.dice.within(LIFE_MS));
        std::thread::sleep(lived);
        match &cgroup {
            None => drop(gateway.kill()?),
            Some(cgroup) => killed_by_the_kernel(cgroup, &mut gateway)?,
        }
        self.figures.grown += u32::from(self.house.tally_bytes() > first_length);
        self.callers.write_line("pause")?;
        self.until("every caller knows what became of its command", Chamber::is_settled)?;
        let dead = self.audit()?;
        if kind == Kind::Recovery {
            self.kill_recoveries(&dead)?;
        }
        *self.figures.kills.entry(kind.name()).or_default() += 1;
        self.say(number, kind, (lived, ready_after));
        Ok(dead)
    }

    /// Starts the gateway and checks that its ledger is equal to the dead one and balances.
    fn start(&mut self, before: Option<&Books>, cgroup: Option<&Cgroup>) -> Result<(Child, Duration)> {
        let (gateway, ready_after) = self.house.start(cgroup)?;
        if let Some(before) = before {
            self.says_the_same(before)?;
        }
        let imbalance = self.house.imbalance()?;
        ensure!(imbalance == 0, "tallygate_ledger_imbalance is {imbalance} after a start");
        self.figures.slowest_start = self.figures.slowest_start.max(ready_after);
        Ok((gateway, ready_after))
    }

    fn says_the_same(&self, before: &Books) -> Result<()> {
        let after = self.house.books()?;
        ensure!(
            after.all == before.all,
            "recovery changed the books; before it: {}, after it: {}",
            before.all,
            after.all
        );
        Ok(())
    }

    fn kill_recoveries(&mut self, dead: &Books) -> Result<()> {
        for _ in 0..=self.dice.within(0..3) {
            let mut gateway = self.house.begin(None)?;
            std::thread::sleep(Duration::from_millis(self.dice.within(0..RECOVERY_MS)));
            gateway.kill()?;
            self.says_the_same(dead)?;
            self.figures.again += 1;
        }
        Ok(())
    }

    /// Compares the logs with the ledger as it is.
    fn audit(&mut self) -> Result<Books> {
        let books = self.house.books()?;
        for (department, id) in self.upstream_log.lines()? {
            self.received.take(department, id);
        }
        self.figures.findings = audit(&self.seen, &books.usage, &self.received);
        self.figures.received = self.received.total();
        let broken = &self.figures.findings.broken;
        ensure!(broken.is_empty(), "the books do not balance: {}", broken.join("; "));
        Ok(books)
    }

    /// A last start with a graceful shutdown: the SQL view must be equal to the report.
    fn end(&mut self, before: Option<&Books>) -> Result<()> {
        let (gateway, _) = self.start(before, None)?;
        gateway.stop()?;
        let books = self.audit()?;
        let mut report = crate::account::Account::new();
        for ((department, outcome), commands) in books.usage {
            *report.entry(ledger::key(&department, &outcome)).or_default() += commands;
        }
        let view = ledger::account(&self.house.book())?;
        ensure!(view == report, "usage_hourly says {view:?}, the report {report:?}");
        Ok(())
    }

    fn answers(&self) -> u64 {
        self.seen.values().map(Seen::answers).sum()
    }

    fn is_settled(&self) -> bool {
        self.seen.values().all(|seen| seen.sent == seen.answers() + seen.failed)
    }

    fn until(&mut self, what: &str, fits: impl Fn(&Self) -> bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            read_on(&mut self.callers_log, &mut self.seen)?;
            if fits(self) {
                return Ok(());
            }
            ensure!(begin.elapsed() < SETTLE_LIMIT, "waited {SETTLE_LIMIT:?} in vain: {what}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn say(&self, number: u32, kind: Kind, (lived, ready_after): (Duration, Duration)) {
        let (found, all) = (&self.figures.findings, self.options.kills);
        eprintln!(
            "[{:>3}/{all}] {:<7} {:<8} ready in {:>4} ms, killed after {:>3} ms: sent {}, answered {}, ledger ok {} + \
             interrupted {}, upstream {}; lost {}, double {}",
            number + 1,
            self.figures.durability,
            kind.name(),
            ready_after.as_millis(),
            lived.as_millis(),
            found.sent,
            found.answered,
            found.ok,
            found.interrupted,
            self.figures.received,
            found.lost,
            found.double,
        );
    }
}

fn start(part: &str, folder: &Path, arguments: Vec<String>) -> Result<Child> {
    let arguments = std::iter::once(part.to_owned()).chain(arguments).collect();
    Child::start(Launch { name: part.to_owned(), program: myself()?, arguments, core: None }, folder)
}

fn killed_by_the_kernel(cgroup: &Cgroup, gateway: &mut Child) -> Result<()> {
    use std::os::unix::process::ExitStatusExt;
    cgroup.fill()?;
    let status = gateway.ended_within(SETTLE_LIMIT)?;
    ensure!(status.signal() == Some(9), "the kernel was to kill the gateway, but it ended with {status}");
    Ok(())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Growth => "growth",
            Self::Recovery => "recovery",
            Self::Oom => "oom",
        }
    }
}

/// Pseudo-random numbers that depend only on the seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        range.start + (mixed ^ (mixed >> 31)) % (range.end - range.start)
    }
}

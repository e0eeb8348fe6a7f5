//! `loadtests siege`: attacks the gateway, with 512 MiB of memory, in sequence, while a well-behaved department sends
//! 200 commands per second.
//!
//! Guarantees:
//! - The real program runs. Gateway and attackers are separate processes.
//! - Each attack has a new gateway and a new ledger.
//! - A crash, errors of the well-behaved department and unbalanced books fail the run, after all attacks.
//! - Latency and memory are shown beside their targets and do not fail the run, because they also depend on the
//!   machine.

mod attack;
mod call;
mod frames;
mod gateway;
mod good;
mod render;
mod subsystem;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum as _;

use self::attack::{ATTACKER, Attack, Report};
use self::call::Way;
use self::gateway::{CONNECTIONS, Gateway, IN_FLIGHT};
use self::good::{Good, Part};
use self::subsystem::Subsystems;
use crate::pki::{Pki, department};
use crate::process::{Child, LOOK_AGAIN, Launch, myself};
use crate::torture::audit::audit;
use crate::torture::journal::Seen;

pub use attack::{Besiege, besiege};

/// The longest time after an attack until all commands are settled and folded.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// Time after an attack at which memory should be back at its earlier level.
const RECOVERY: Duration = Duration::from_secs(5);

/// The options of a siege.
#[derive(Clone, Debug, clap::Args)]
pub struct Siege {
    /// The gateway's program
    #[arg(long)]
    pub tallygate: PathBuf,
    /// Attacks to run [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub attacks: Vec<Attack>,
    /// Connections of the attacks, as a fraction of the full number: 0.1 is a tenth
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Seconds without an attack, and again of each attack once it is established
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// File of the result [default: it is only printed]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The result of one attack.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub attack: Attack,
    pub count: usize,
    pub report: Report,
    /// The well-behaved department without attack, while the attack is set up, once it is established, and while it
    /// ends.
    pub idle: Part,
    pub opening: Part,
    pub under: Part,
    pub ending: Part,
    /// All commands of the well-behaved department, and those of them without a 200.
    pub commands: u64,
    pub errors: u64,
    /// Resident memory in bytes: before the attack, peak during it, after it.
    pub memory: [u64; 3],
    /// All violated conditions.
    pub broken: Vec<String>,
}

/// Runs the attacks, prints and stores the result; returns an error if the gateway crashed or any books differ.
pub fn siege(options: &Siege) -> Result<()> {
    ensure!(options.scale > 0.0 && options.scale <= 1.0, "--scale is more than 0 and at most 1");
    let attacks = if options.attacks.is_empty() { Attack::value_variants() } else { &options.attacks };
    let mut outcomes = Vec::new();
    for attack in attacks {
        let folder = tempfile::Builder::new().prefix("siege-").tempdir().context("making a folder for the run")?;
        let outcome = withstand(options, *attack, folder.path());
        let outcome = outcome.with_context(|| format!("{attack:?}; everything was in {}", folder.path().display()))?;
        eprintln!("{}", render::line(&outcome));
        if !outcome.broken.is_empty() {
            eprintln!("  broken: {}; kept in {}", outcome.broken.join("; "), folder.keep().display());
        }
        outcomes.push(outcome);
    }
    let text = render::result(options, &outcomes)?;
    println!("{text}");
    if let Some(out) = &options.out {
        std::fs::write(out, text).with_context(|| format!("writing {}", out.display()))?;
    }
    let broken = outcomes.iter().filter(|outcome| !outcome.broken.is_empty()).count();
    ensure!(broken == 0, "{broken} of {} attacks were not withstood", outcomes.len());
    Ok(())
}

/// Runs one attack, from the start of a new gateway to the audit of its ledger.
fn withstand(options: &Siege, attack: Attack, folder: &Path) -> Result<Outcome> {
    let pki = Pki::make(&folder.join("pki"))?;
    let subsystems = Subsystems::start()?;
    let gateway = Gateway::start(&options.tallygate, &folder.join("gateway"), &subsystems, attack)?;
    let way = Way { to: gateway.address, tls: pki.client(&department(0), b"http/1.1")?, receive_buffer: None };
    let good = Good::start(way, attack != Attack::Descriptors)?;
    let part = Duration::from_secs(options.seconds);
    std::thread::sleep(part);
    good.part(); // connections and caches are warm from here on
    std::thread::sleep(part);
    let (idle, before) = (good.part(), gateway.resident()?);
    let count = attack.count(options.scale);
    let Standing { report, most: during, opening, under } =
        under_attack((&gateway, &pki, folder), attack, (count, part), &good)?;
    std::thread::sleep(RECOVERY);
    let ending = good.part();
    let memory = [before, during, gateway.resident().unwrap_or(0)];
    let seen = good.end()?;
    let errors = seen.sent - seen.answered.get(&200).copied().unwrap_or(0);
    let commands = seen.sent;
    let broken = judge((&gateway, &subsystems), attack, (seen, &report));
    let mut outcome = Outcome { attack, count, report, idle, opening, under, ending, commands, errors, memory, broken };
    if let Err(fault) = gateway.stop() {
        outcome.broken.push(format!("{fault:#}"));
    }
    Ok(outcome)
}

/// The figures of an established attack.
struct Standing {
    report: Report,
    /// Peak resident memory of the gateway.
    most: u64,
    /// The well-behaved department while the attack was set up, and while it was established.
    opening: Part,
    under: Part,
}

/// Runs the attack from beginning to end.
fn under_attack(
    (gateway, pki, folder): (&Gateway, &Pki, &Path),
    attack: Attack,
    (count, part): (usize, Duration),
    good: &Good,
) -> Result<Standing> {
    let name = attack.name();
    let arguments = [
        ["besiege".to_owned(), "--attack".to_owned()],
        [name.clone(), "--count".to_owned()],
        [count.to_string(), "--address".to_owned()],
        [gateway.address.to_string(), "--pki".to_owned()],
    ];
    let arguments = arguments.concat().into_iter().chain([pki.folder().display().to_string()]).collect();
    let mut attacker = Child::start(Launch { name, program: myself()?, arguments, core: None }, folder)?;
    attacker.read_line()?;
    let opening = good.part();
    if attack == Attack::Descriptors {
        gateway.exhaust_descriptors()?;
    }
    let mut most = 0;
    let begin = Instant::now();
    while begin.elapsed() < part {
        most = most.max(gateway.resident().unwrap_or(0)); // `judge` detects a crashed gateway
        std::thread::sleep(LOOK_AGAIN * 10);
    }
    if attack == Attack::Descriptors {
        gateway.restore_descriptors()?;
    }
    let under = good.part(); // a separate part: connections that close at once are no longer an established attack
    attacker.write_line("enough")?;
    let report = serde_json::from_str(&attacker.read_line()?).context("reading the attacker's report")?;
    Ok(Standing { report, most, opening, under })
}

/// Collects all violated conditions.
fn judge(
    (gateway, subsystems): (&Gateway, &Subsystems),
    attack: Attack,
    (seen, report): (Seen, &Report),
) -> Vec<String> {
    let mut broken = Vec::new();
    broken.extend(gateway.is_alive().err().map(|fault| format!("it fell: {fault:#}")));
    let of = |status| seen.answered.get(&status).copied().unwrap_or(0);
    let shed = if attack == Attack::Overload { of(503) } else { 0 }; // without limits, all are shed alike
    let errors = seen.sent - of(200) - shed;
    if errors > 0 {
        broken.push(format!("{errors} errors of the good department: {seen:?}"));
    }
    if report.shed_with_retry_after != report.shed {
        broken.push(format!("{} were shed, {} with Retry-After", report.shed, report.shed_with_retry_after));
    }
    let all = BTreeMap::from([(department(0), seen), (department(ATTACKER), report.seen())]);
    broken.extend(balance((gateway, subsystems), &all).err().map(|fault| format!("{fault:#}")));
    broken
}

/// Compares client, upstream and ledger as soon as all commands are settled; for the well-behaved department exactly.
fn balance((gateway, subsystems): (&Gateway, &Subsystems), all: &BTreeMap<String, Seen>) -> Result<()> {
    let begin = Instant::now();
    loop {
        let books = gateway.books()?;
        let mut broken = audit(all, &books.usage, &subsystems.received()).broken;
        let good = department(0);
        let ok = books.usage.get(&(good.clone(), "ok".to_owned())).copied().unwrap_or(0);
        let answered = all[&good].answered.get(&200).copied().unwrap_or(0);
        if ok != answered && all[&good].failed == 0 {
            broken.push(format!("{good}: {answered} were answered 200, the ledger holds {ok} ok"));
        }
        if broken.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > SETTLE_LIMIT {
            bail!("the books do not balance: {}", broken.join("; "));
        }
        std::thread::sleep(LOOK_AGAIN * 20);
    }
}

impl Attack {
    /// The name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Number of connections, or commands per second for an overload.
    fn count(self, scale: f64) -> usize {
        let full = match self {
            Self::SlowHeaders => CONNECTIONS - 100, // reserved for the well-behaved department
            Self::SlowUploads | Self::SlowReaders => 5_000,
            Self::StalledHandshakes => 2_000,
            Self::Descriptors => 600,
            Self::Overload | Self::OverloadWithinLimit => return 2 * attack::capacity(IN_FLIGHT),
            _ => return 8,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let scaled = (full as f64 * scale).ceil() as usize; // precise enough for a number of connections
        if self == Self::Descriptors { full } else { scaled }
    }
}

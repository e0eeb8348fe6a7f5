//! `loadtests siege`: the gateway, with 512 MiB of memory, under one attack after the other, while a well-behaved department
//! calls 200 times a second.
//!
//! Guarantees: the real program; gateway and attackers are processes of their own; each attack has a new gateway and a new
//! ledger; alive, the good department's errors and the books are judged (a broken one ends in failure, after all attacks);
//! latency and memory are told beside their targets and not judged, because they are the machine's as well.

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

/// How long everything may take to be settled and folded after an attack.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// How long after an attack its memory should be back.
const RECOVERY: Duration = Duration::from_secs(5);

/// What to besiege, and how hard.
#[derive(Clone, Debug, clap::Args)]
pub struct Siege {
    /// The gateway's program
    #[arg(long)]
    pub tallygate: PathBuf,
    /// The attacks [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub attacks: Vec<Attack>,
    /// Connections of the attacks, as a part of the full number: 0.1 is a tenth
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Seconds without an attack, and again of each attack once it stands
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Keep the result here [default: it is only printed]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// What one attack did.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub attack: Attack,
    pub count: usize,
    pub report: Report,
    /// The good department without attack, while the attack comes up, once it stands, and while it ends.
    pub idle: Part,
    pub opening: Part,
    pub under: Part,
    pub ending: Part,
    /// All commands of the good department, and those of them that were not answered with 200.
    pub commands: u64,
    pub errors: u64,
    /// Resident memory in bytes: before, at most during, after.
    pub memory: [u64; 3],
    /// Everything that is not as it must be.
    pub broken: Vec<String>,
}

/// Besieges, prints the result and keeps it; an error if the gateway fell or the books do.
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

/// One attack from a new gateway to its books.
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

/// An attack that stood.
struct Standing {
    report: Report,
    /// The most memory that the gateway had.
    most: u64,
    /// The good department while it came up, and while it stood.
    opening: Part,
    under: Part,
}

/// The attack from its beginning to its end.
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
        most = most.max(gateway.resident().unwrap_or(0)); // one that has fallen is found by the judge
        std::thread::sleep(LOOK_AGAIN * 10);
    }
    if attack == Attack::Descriptors {
        gateway.restore_descriptors()?;
    }
    let under = good.part(); // a crowd that leaves at once is no attack that stands
    attacker.write_line("enough")?;
    let report = serde_json::from_str(&attacker.read_line()?).context("reading the attacker's report")?;
    Ok(Standing { report, most, opening, under })
}

/// Everything that is not as it must be.
fn judge(
    (gateway, subsystems): (&Gateway, &Subsystems),
    attack: Attack,
    (seen, report): (Seen, &Report),
) -> Vec<String> {
    let mut broken = Vec::new();
    broken.extend(gateway.is_alive().err().map(|fault| format!("it fell: {fault:#}")));
    let of = |status| seen.answered.get(&status).copied().unwrap_or(0);
    let shed = if attack == Attack::Overload { of(503) } else { 0 }; // everybody is shed alike where nobody has a limit
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

/// Client, upstream and ledger, as soon as everything is settled; the good department's to the command.
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
    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Its connections, or for an overload its commands a second.
    fn count(self, scale: f64) -> usize {
        let full = match self {
            Self::SlowHeaders => CONNECTIONS - 100, // the good department's
            Self::SlowUploads | Self::SlowReaders => 5_000,
            Self::StalledHandshakes => 2_000,
            Self::Descriptors => 600,
            Self::Overload | Self::OverloadWithinLimit => return 2 * attack::capacity(IN_FLIGHT),
            _ => return 8,
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let scaled = (full as f64 * scale).ceil() as usize; // exact enough for a number of connections
        if self == Self::Descriptors { full } else { scaled }
    }
}

//! `loadtests besiege`: one kind of attack in a process of its own, until a line comes on stdin.
//!
//! Guarantees: says on stdout, as a line of JSON each, when the attack stands and what came of it at its end; counts every
//! command that it began as sent before it is. Who is thrown out comes back after a second, as attackers do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};

use super::call::{Answer, Caller, Way};
use super::frames::{Flood, opening};
use super::subsystem::SLOW;
use crate::pki::{HOST, Pki, department};
use crate::torture::journal::Seen;

/// Which department attacks; the first one is the good one.
pub const ATTACKER: usize = 1;

/// Connections that are being opened at a time.
const DIALS: usize = 64;

/// How long the opening of all connections may take.
const OPENING_LIMIT: Duration = Duration::from_secs(60);

/// After how long a slow caller does a little more.
const TRICKLE: Duration = Duration::from_secs(5);

/// After how long one that was thrown out comes back.
const COME_BACK: Duration = Duration::from_secs(1);

/// After how long an attack whose last connection is there stands: what its last commands set going is behind us then. An overload's
/// first commands need connections, whose handshakes are no overload of commands.
const SURGE: Duration = Duration::from_secs(2);

/// Connections of an overload; more commands than this are never under way from us.
const LANES: usize = 2000;

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    SlowHeaders,
    SlowUploads,
    SlowReaders,
    StalledHandshakes,
    RapidReset,
    Settings,
    Ping,
    EmptyData,
    Continuation,
    Overload,
    OverloadWithinLimit,
    Descriptors,
}

/// How to attack.
#[derive(Clone, Debug, clap::Args)]
pub struct Besiege {
    /// Where the gateway listens
    #[arg(long)]
    pub address: SocketAddr,
    /// The folder with the certificates
    #[arg(long)]
    pub pki: PathBuf,
    /// What to do to it
    #[arg(long, value_enum)]
    pub attack: Attack,
    /// Connections; for an overload commands a second
    #[arg(long)]
    pub count: usize,
}

/// What came of an attack.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Connections that stand.
    pub standing: u64,
    /// The most that stood.
    pub most: u64,
    /// Connections that were opened in all.
    pub opened: u64,
    /// Connections that were not let in, and that were ended by the gateway.
    pub turned_away: u64,
    pub ended: u64,
    /// How long the opening took, in milliseconds.
    pub opening_ms: u64,
    pub sent: u64,
    pub answered: BTreeMap<u16, u64>,
    pub failed: u64,
    /// Answers with 503 or 429, those of them that have a Retry-After, and how long they took from the first byte sent
    /// (99 of 100, in microseconds) once the attack stood.
    pub shed: u64,
    pub shed_with_retry_after: u64,
    pub shed_p50_us: u64,
    pub shed_p99_us: u64,
    /// How long commands were answered, in milliseconds.
    pub during_ms: u64,
    pub first_fault: Option<String>,
}

impl Report {
    /// As the audit wants it.
    pub fn seen(&self) -> Seen {
        Seen { sent: self.sent, answered: self.answered.clone(), failed: self.failed }
    }
}

/// What all connections of an attack share.
struct Camp {
    attack: Attack,
    way: Way,
    dials: Semaphore,
    report: RefCell<Report>,
    shed: RefCell<Histogram<u64>>,
    idle: RefCell<Vec<Caller>>,
    lanes: Semaphore,
}

/// Attacks until a line comes.
pub async fn besiege(options: Besiege) -> Result<()> {
    let alpn = if options.attack.flood().is_some() { &b"h2"[..] } else { b"http/1.1" };
    let tls = Pki::existing(&options.pki).client(&department(ATTACKER), alpn)?;
    let receive_buffer = (options.attack == Attack::SlowReaders).then_some(4096);
    let camp = Rc::new(Camp {
        attack: options.attack,
        way: Way { to: options.address, tls, receive_buffer },
        dials: Semaphore::new(DIALS),
        report: RefCell::default(),
        shed: RefCell::new(Histogram::new_with_bounds(1, 120_000_000, 3)?),
        idle: RefCell::default(),
        lanes: Semaphore::new(LANES),
    });
    let work = tokio::task::LocalSet::new();
    work.run_until(attack(Rc::clone(&camp), options.count)).await?;
    drop(work); // whatever is open closes here, before the report says that it has
    let mut report = camp.report.borrow().clone();
    let shed = camp.shed.borrow();
    (report.shed_p50_us, report.shed_p99_us) = (shed.value_at_quantile(0.5), shed.value_at_quantile(0.99));
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn attack(camp: Rc<Camp>, count: usize) -> Result<()> {
    let begin = Instant::now();
    if camp.attack.is_overload() {
        tokio::task::spawn_local(overload(Rc::clone(&camp), count));
    } else {
        (0..count).for_each(|n| drop(tokio::task::spawn_local(connection(Rc::clone(&camp), n))));
        while !camp.stands(count) && begin.elapsed() < OPENING_LIMIT {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(SURGE).await;
    camp.shed.borrow_mut().reset();
    camp.report.borrow_mut().opening_ms = u64::try_from(begin.elapsed().as_millis())?;
    println!("{}", serde_json::to_string(&*camp.report.borrow())?);
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    ensure!(read > 0, "nobody waits for the end of this attack any more");
    camp.report.borrow_mut().during_ms = u64::try_from(begin.elapsed().as_millis())?;
    Ok(())
}

impl Camp {
    /// Everybody is in, or was thrown out at least once.
    fn stands(&self, count: usize) -> bool {
        let report = self.report.borrow();
        report.opened.max(report.standing + report.turned_away) >= count as u64
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.borrow_mut());
    }
}

/// One attacker: in, attack, thrown out, in again.
async fn connection(camp: Rc<Camp>, n: usize) {
    loop {
        let held = async {
            let permit = camp.dials.acquire().await?;
            if camp.attack == Attack::StalledHandshakes {
                let stream = camp.way.dial(n).await?;
                drop(permit);
                return stay(&camp, stream).await;
            }
            let stream = camp.way.enter(n).await?;
            drop(permit);
            stay(&camp, stream).await
        };
        if let Err(fault) = held.await {
            camp.note(|report| {
                report.turned_away += 1;
                report.first_fault.get_or_insert(format!("{fault:#}"));
            });
        }
        tokio::time::sleep(COME_BACK).await;
    }
}

async fn stay<S: AsyncRead + AsyncWrite + Unpin>(camp: &Camp, mut stream: S) -> Result<()> {
    camp.note(|report| {
        report.opened += 1;
        report.standing += 1;
        report.most = report.most.max(report.standing);
    });
    let _ = match camp.attack.flood() {
        Some(flood) => overwhelm(camp, flood, stream).await,
        None => linger(camp, &mut stream).await,
    }; // thrown out, one way or another
    camp.note(|report| {
        report.standing -= 1;
        report.ended += 1;
    });
    Ok(())
}

/// Begins something and takes its time over the rest; ends when the gateway has had enough.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(camp: &Camp, stream: &mut S) -> Result<()> {
    let (begin, more) = camp.attack.slowness();
    camp.note(|report| report.sent += u64::from(camp.attack != Attack::StalledHandshakes));
    stream.write_all(begin.as_bytes()).await?;
    stream.flush().await?;
    let mut some = [0; 1024];
    loop {
        if camp.attack == Attack::SlowReaders {
            tokio::time::sleep(TRICKLE).await;
            ensure!(stream.read(&mut some[..16]).await? > 0, "closed");
            continue;
        }
        match tokio::time::timeout(TRICKLE, stream.read(&mut some)).await {
            Ok(read) => ensure!(read? > 0, "closed"),
            Err(_) => stream.write_all(more.as_bytes()).await?,
        }
        stream.flush().await?;
    }
}

/// Sends as much as the gateway takes, and reads what it says.
async fn overwhelm<S: AsyncRead + AsyncWrite + Unpin>(camp: &Camp, flood: Flood, stream: S) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = async {
        writer.write_all(&opening()).await?;
        let (first, begun) = flood.first();
        camp.note(|report| report.sent += begun);
        writer.write_all(&first).await?;
        for n in 0.. {
            let (frames, begun) = flood.portion(n);
            camp.note(|report| report.sent += begun);
            writer.write_all(&frames).await?;
            tokio::task::yield_now().await;
        }
        anyhow::Ok(())
    };
    let reading = async {
        let mut heard = [0; 16 * 1024];
        while reader.read(&mut heard).await? > 0 {}
        anyhow::Ok(())
    };
    tokio::select! { end = writing => end, end = reading => end }
}

/// So many commands a second, whether they are answered or not.
async fn overload(camp: Rc<Camp>, rate: usize) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate as u64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0.. {
        ticks.tick().await;
        tokio::task::spawn_local(one_more(Rc::clone(&camp), n));
    }
    Ok(())
}

async fn one_more(camp: Rc<Camp>, n: usize) {
    let Ok(_lane) = camp.lanes.try_acquire() else { return };
    let idle = camp.idle.borrow_mut().pop();
    let caller = match idle {
        Some(caller) => Ok(caller),
        None => camp.way.caller(n).await,
    };
    let Ok(mut caller) = caller else { return camp.note(|report| report.turned_away += 1) };
    camp.note(|report| report.sent += 1);
    let begin = Instant::now();
    match caller.command("/cameras/slow").await {
        Ok(answer) => {
            count(&camp, answer, begin.elapsed());
            if !answer.is_last {
                camp.idle.borrow_mut().push(caller);
            }
        }
        Err(fault) => camp.note(|report| {
            report.failed += 1;
            report.first_fault.get_or_insert(format!("{fault:#}"));
        }),
    }
}

fn count(camp: &Camp, answer: Answer, took: Duration) {
    let is_shed = matches!(answer.status, 429 | 503);
    camp.note(|report| {
        *report.answered.entry(answer.status).or_default() += 1;
        report.shed += u64::from(is_shed);
        report.shed_with_retry_after += u64::from(is_shed && answer.has_retry_after);
    });
    if is_shed {
        camp.shed.borrow_mut().saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Attack {
    fn flood(self) -> Option<Flood> {
        Some(match self {
            Self::RapidReset => Flood::RapidReset,
            Self::Settings => Flood::Settings,
            Self::Ping => Flood::Ping,
            Self::EmptyData => Flood::EmptyData,
            Self::Continuation => Flood::Continuation,
            _ => return None,
        })
    }

    /// Whether it is nothing but too many commands.
    pub fn is_overload(self) -> bool {
        matches!(self, Self::Overload | Self::OverloadWithinLimit)
    }

    /// How it begins, and what it goes on with.
    fn slowness(self) -> (String, &'static str) {
        let host = format!("Host: {HOST}\r\n");
        match self {
            Self::SlowUploads => {
                let begin = format!("POST /cameras/upload HTTP/1.1\r\n{host}Content-Length: 1000000\r\n\r\nx");
                (begin, "x")
            }
            Self::SlowReaders => (format!("GET /cameras/large HTTP/1.1\r\n{host}\r\n"), ""),
            Self::StalledHandshakes => ("\u{16}\u{3}\u{1}".to_owned(), ""),
            _ => (format!("GET /cameras/v1/snapshots/7 HTTP/1.1\r\n{host}X-Slow: "), "x"),
        }
    }
}

/// Commands a second that the gateway can carry when it carries so many at a time.
pub fn capacity(in_flight: usize) -> usize {
    in_flight * 1000 / usize::try_from(SLOW.as_millis()).expect("a short time")
}

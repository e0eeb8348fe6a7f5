//! `loadtests besiege`: runs one kind of attack in a separate process, until a line arrives on stdin.
//!
//! Guarantees:
//! - Stdout receives one line of JSON when the attack is established, and one with the report at its end.
//! - Every command is counted as sent before it is sent.
//! - An attacker whose connection is closed reconnects after a second, as real attackers do.

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

/// Index of the attacking department. Index 0 is the well-behaved department.
pub const ATTACKER: usize = 1;

/// Connections that are being opened concurrently.
const DIALS: usize = 64;

/// The longest time for opening all connections.
const OPENING_LIMIT: Duration = Duration::from_secs(60);

/// Interval at which a slow caller sends or reads a little more.
const TRICKLE: Duration = Duration::from_secs(5);

/// Delay before a closed connection is reopened.
const COME_BACK: Duration = Duration::from_secs(1);

/// Delay between the last connection and the established attack, so that the effects of the last commands are over.
/// The first commands of an overload open connections, and these handshakes are not part of an overload of commands.
const SURGE: Duration = Duration::from_secs(2);

/// Connections of an overload, which is also the largest number of commands in flight.
const LANES: usize = 2000;

/// The kinds of attack.
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

/// The options of an attack.
#[derive(Clone, Debug, clap::Args)]
pub struct Besiege {
    /// Address of the gateway
    #[arg(long)]
    pub address: SocketAddr,
    /// The folder with the certificates
    #[arg(long)]
    pub pki: PathBuf,
    /// The kind of attack
    #[arg(long, value_enum)]
    pub attack: Attack,
    /// Connections; for an overload, commands per second
    #[arg(long)]
    pub count: usize,
}

/// The result of an attack.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Connections that are open now.
    pub standing: u64,
    /// The largest number of connections that were open at once.
    pub most: u64,
    /// Connections opened in total.
    pub opened: u64,
    /// Connections that the gateway did not accept, and connections that the gateway closed.
    pub turned_away: u64,
    pub ended: u64,
    /// Duration of the opening of all connections, in milliseconds.
    pub opening_ms: u64,
    pub sent: u64,
    pub answered: BTreeMap<u16, u64>,
    pub failed: u64,
    /// Responses with 503 or 429 (load shedding), those of them with a Retry-After, and their latency. The latency is
    /// taken once the attack is established, from the first byte sent (median and 99th percentile, in microseconds).
    pub shed: u64,
    pub shed_with_retry_after: u64,
    pub shed_p50_us: u64,
    pub shed_p99_us: u64,
    /// Duration of the period in which commands were answered, in milliseconds.
    pub during_ms: u64,
    pub first_fault: Option<String>,
}

impl Report {
    /// The counts in the form that the audit takes.
    pub fn seen(&self) -> Seen {
        Seen { sent: self.sent, answered: self.answered.clone(), failed: self.failed }
    }
}

/// The state that all connections of an attack share.
struct Camp {
    attack: Attack,
    way: Way,
    dials: Semaphore,
    report: RefCell<Report>,
    shed: RefCell<Histogram<u64>>,
    idle: RefCell<Vec<Caller>>,
    lanes: Semaphore,
}

/// Attacks until a line arrives on stdin.
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
    drop(work); // closes all open connections before the report is printed
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
    /// Whether the attack is established: every connection was opened, or was rejected at least once.
    fn stands(&self, count: usize) -> bool {
        let report = self.report.borrow();
        report.opened.max(report.standing + report.turned_away) >= count as u64
    }

    fn note(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.borrow_mut());
    }
}

/// One attacking connection: connect, attack, be closed, reconnect.
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
    }; // ends when the gateway closes the connection
    camp.note(|report| {
        report.standing -= 1;
        report.ended += 1;
    });
    Ok(())
}

/// Begins a request or a handshake and continues it slowly; ends when the gateway closes the connection.
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

/// Writes frames as fast as the gateway reads them, and reads and discards its responses.
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

/// Sends `rate` commands per second, independent of the responses (open loop).
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

    /// Whether the attack consists only of too many commands.
    pub fn is_overload(self) -> bool {
        matches!(self, Self::Overload | Self::OverloadWithinLimit)
    }

    /// The bytes at the beginning of a slow attack, and the bytes that follow slowly.
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

/// Commands per second that the gateway can serve with `in_flight` commands in flight.
pub fn capacity(in_flight: usize) -> usize {
    in_flight * 1000 / usize::try_from(SLOW.as_millis()).expect("a short time")
}

//! The well-behaved department: a constant number of commands per second, independent of the responses (open loop).
//!
//! Guarantees:
//! - Latency is measured from the time at which a command is due. It includes waiting for a free connection and for a
//!   slow gateway (no coordinated omission).
//! - Every command is counted as sent before it is sent, and as answered or failed afterwards.
//! - Most commands use kept connections. Some use a new connection each, which shows whether new connections are
//!   accepted.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::time::{Instant, MissedTickBehavior};

use super::call::{Answer, Caller, Way};
use crate::torture::journal::Seen;

/// Commands per second.
pub const RATE: u64 = 200;

/// Every 20th command has a connection of its own.
const NEW_EACH: u64 = 20;

/// The largest number of kept connections.
const KEPT: usize = 32;

/// The longest latency that the histogram resolves, in microseconds.
const LATENCY_LIMIT: u64 = 120_000_000;

/// The number of errors that a part quotes.
const FAULTS_QUOTED: usize = 5;

const PATH: &str = "/signals/v1/snapshots/7";

/// Counts, latencies and errors of the department.
#[derive(Debug)]
struct Book {
    seen: Seen,
    latency: Histogram<u64>,
    faults: Vec<String>,
}

/// One part of the run: latencies in microseconds, and errors.
#[derive(Clone, Debug, Default)]
pub struct Part {
    pub p99: u64,
    pub max: u64,
    pub faults: Vec<String>,
}

/// The department, running on its own thread.
#[derive(Debug)]
pub struct Good {
    book: Arc<Mutex<Book>>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Good {
    /// Starts the calls. With `dials`, some commands use new connections.
    pub fn start(way: Way, dials: bool) -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, LATENCY_LIMIT, 3)?;
        let book = Arc::new(Mutex::new(Book { seen: Seen::default(), latency, faults: Vec::new() }));
        let is_over = Arc::new(AtomicBool::new(false));
        let (book_of_thread, is_over_of_thread) = (Arc::clone(&book), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let office = Office { way, dials, book: book_of_thread, kept: RefCell::default() };
            tokio::task::LocalSet::new().block_on(&runtime, call(Rc::new(office), &is_over_of_thread))
        });
        Ok(Self { book, is_over, thread })
    }

    /// The part since the last call of this method; the next part begins here.
    pub fn part(&self) -> Part {
        let mut book = lock(&self.book);
        let (p99, max) = (book.latency.value_at_quantile(0.99), book.latency.max());
        book.latency.reset();
        Part { p99, max, faults: std::mem::take(&mut book.faults) }
    }

    /// Waits for all commands in flight and returns the counts of the whole run.
    pub fn end(self) -> Result<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the good department's thread panicked"))??;
        Ok(lock(&self.book).seen.clone())
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Office {
    way: Way,
    dials: bool,
    book: Arc<Mutex<Book>>,
    kept: RefCell<Vec<Caller>>,
}

async fn call(office: Rc<Office>, is_over: &AtomicBool) -> Result<()> {
    for n in 0..KEPT {
        let caller = office.way.caller(n).await?;
        office.kept.borrow_mut().push(caller);
    }
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst); // a late tick is not dropped
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0_u64.. {
        let due = ticks.tick().await;
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        under_way.spawn_local(command(Rc::clone(&office), number, due));
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    Ok(())
}

async fn command(office: Rc<Office>, number: u64, due: Instant) {
    let is_new = office.dials && number.is_multiple_of(NEW_EACH);
    let kept = if is_new { None } else { office.kept.borrow_mut().pop() };
    let outcome = exchange(&office, kept, number).await;
    let mut book = lock(&office.book);
    match outcome {
        Ok((caller, answer)) => {
            *book.seen.answered.entry(answer.status).or_default() += 1;
            let latency = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
            book.latency.saturating_record(latency);
            if answer.status != 200 {
                quote(&mut book, format!("status {}", answer.status));
            }
            let mut kept = office.kept.borrow_mut();
            if !answer.is_last && kept.len() < KEPT {
                kept.push(caller);
            }
        }
        Err(fault) => {
            book.seen.failed += 1;
            quote(&mut book, format!("{fault:#}"));
        }
    }
}

fn quote(book: &mut Book, fault: String) {
    if book.faults.len() < FAULTS_QUOTED {
        book.faults.push(fault);
    }
}

async fn exchange(office: &Office, kept: Option<Caller>, number: u64) -> Result<(Caller, Answer)> {
    lock(&office.book).seen.sent += 1; // counted even without a connection, because the command was due
    let mut caller = match kept {
        Some(caller) => caller,
        None => office.way.caller(usize::try_from(number)?).await?,
    };
    let answer = caller.command(PATH).await?;
    Ok((caller, answer))
}

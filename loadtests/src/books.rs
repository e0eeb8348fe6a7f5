//! `loadtests books`: compares the counts of client, upstream, book and `/metrics`, and fails if they differ.
//!
//! - Half of the commands use HTTP/1.1 and half HTTP/2, at the same time.
//! - Each department sends a different number of commands.
//! - The run measures no time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::account::{Account, Balance, add, total};
use crate::driver::{Drive, Protocol};
use crate::process::LOOK_AGAIN;
use crate::proxy::{Durability, Kind, Proxy, Setup};
use crate::workshop::Workshop;
use crate::{ledger, metrics};

/// The longest permitted delay of the book, which is folded every second.
const FOLD_LIMIT: Duration = Duration::from_secs(5);

/// Concurrent streams on each HTTP/2 connection.
const STREAMS: usize = 4;

/// The options of a run.
#[derive(Clone, Debug, clap::Args)]
pub struct Books {
    /// The gateway's program
    #[arg(long)]
    pub tallygate: PathBuf,
    /// Commands, all departments together
    #[arg(long, default_value_t = 100_000)]
    pub commands: u64,
    /// Connections, all departments together; half of them HTTP/2
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// The gateway's worker threads
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// The failure that a command's count survives, once its response has been sent
    #[arg(long, value_enum, default_value_t = Durability::Process)]
    pub durability: Durability,
}

/// Drives the commands, compares the accounts and prints them; returns an error on any difference.
pub fn books(options: &Books) -> Result<()> {
    let workshop = Workshop::open(None)?;
    let setup = Setup {
        kind: Kind::Tallygate,
        program: options.tallygate.clone(),
        core: None,
        workers: options.workers,
        durability: options.durability,
    };
    let gateway = Proxy::start(&setup, &workshop)?;
    let client = drive_both(options, &workshop, &gateway)?;
    let balance = balance(&workshop, &gateway, client)?;
    println!("{balance}");
    if !balance.is_equal() {
        let _ = gateway.stop(); // the difference is the error to report
        bail!("the books do not balance; everything is kept in {}", workshop.keep().display());
    }
    println!("the books balance");
    gateway.stop()
}

/// Drives both halves at once; returns the clients' account.
fn drive_both(options: &Books, workshop: &Workshop, gateway: &Proxy) -> Result<Account> {
    let plan = |protocol, commands| Drive {
        address: gateway.address(),
        pki: workshop.pki().folder().to_owned(),
        protocol,
        connections: options.connections / 2,
        streams: STREAMS,
        commands,
        warmup: 0,
        hold: false,
        seconds: 300,
    };
    let half = options.commands / 2;
    let mut h1 = workshop.driver(&plan(Protocol::H1, half))?;
    let mut h2 = workshop.driver(&plan(Protocol::H2, options.commands - half))?;
    let (h1, h2) = (h1.report()?, h2.report()?);
    for fault in h1.faults.iter().chain(&h2.faults) {
        eprintln!("a command failed: {fault}");
    }
    let mut client = h1.account;
    add(&mut client, &h2.account);
    ensure!(
        total(&client) == options.commands,
        "the drivers sent {} commands, not {}",
        total(&client),
        options.commands
    );
    Ok(client)
}

/// All four accounts, taken as soon as the book has caught up.
fn balance(workshop: &Workshop, gateway: &Proxy, client: Account) -> Result<Balance> {
    let book = book_when_folded(gateway, &client)?;
    Ok(Balance::of_client(client)
        .and("upstream", workshop.upstream().counts()?)
        .and("usage_hourly", book)
        .and("/metrics", metrics::account(gateway.admin())?))
}

/// The book's account as soon as it equals `expected`, or the account at the end of the time limit.
pub fn book_when_folded(gateway: &Proxy, expected: &Account) -> Result<Account> {
    let begin = Instant::now();
    loop {
        let book = ledger::account(&gateway.ledger());
        let as_expected = book.as_ref().is_ok_and(|book| book == expected);
        if as_expected || begin.elapsed() > FOLD_LIMIT {
            return book;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

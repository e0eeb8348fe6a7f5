//! Drivers that load a gateway with real client certificates and balance its books.
//!
//! Reading order:
//! - The runs are [`books`] (is every command counted in every place?), [`torture`] (also after the gateway is
//!   killed?), [`siege`] (also under attack?) and [`compare`] (what does one command cost?).
//! - A run starts [`driver`], [`upstream`] and [`proxy`] through a [`workshop`].
//! - [`account`] compares the counts.
//!
//! `README.md` describes how to run the tests and how to read their results.

#![forbid(unsafe_code)]

mod account;
mod books;
mod compare;
mod cpu;
mod driver;
mod http;
mod ledger;
mod machine;
mod metering;
mod metrics;
mod pki;
mod process;
mod province;
mod proxy;
mod series;
mod siege;
mod torture;
mod upstream;
mod workshop;
mod year;
mod year_book;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Loads a gateway with real client certificates and balances its books.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Compares client, upstream, ledger and metrics after many commands
    Books(books::Books),
    /// Measures CPU per command beside HAProxy and nginx
    Compare(compare::Compare),
    /// Measures the cost of counting, and of waiting for the disk
    Metering(metering::Metering),
    /// Starts, calls, scrapes and reloads a gateway with a province of 30,000 departments
    Province(province::Options),
    /// Counts a city's year of commands through meter, windows and ledger
    Year(year::Options),
    /// Builds a year's book in bulk, and measures its size and the monthly report of it
    YearBook(year_book::Options),
    /// Measures the memory of a gateway that counts many series, and of concurrent scrapes
    Series(series::Options),
    /// Drives commands through a proxy and prints the outcomes, as JSON
    Drive(driver::Drive),
    /// Serves as a cheap subsystem that counts its callers; prints its addresses as JSON
    Upstream(upstream::Upstream),
    /// Kills the gateway repeatedly under load and audits the ledger after each kill
    Torture(torture::Torture),
    /// Calls the gateway as eight departments and logs every response; a part of `torture`
    Callers(torture::Callers),
    /// Runs every known attack against the gateway while a well-behaved department calls it
    Siege(siege::Siege),
    /// Runs one attack against the gateway until stopped; a part of `siege`
    Besiege(siege::Besiege),
    /// Writes throw-away certificates for a server and eight departments
    Pki {
        /// The folder to create
        folder: PathBuf,
    },
}

/// The exit codes are the gateway's: 0 success, 1 failed check, 2 usage error (clap's).
fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("failed: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Books(options) => books::books(&options),
        Command::Compare(options) => compare::compare(&options),
        Command::Metering(options) => metering::metering(&options),
        Command::Province(options) => province::province(&options),
        Command::Year(options) => year::year(&options),
        Command::YearBook(options) => year_book::year_book(&options),
        Command::Series(options) => series::series(&options),
        Command::Drive(plan) => block_on(driver::drive(plan)),
        Command::Upstream(options) => block_on(upstream::serve(options)),
        Command::Torture(options) => torture::torture(&options),
        Command::Callers(options) => block_on(torture::call(options)),
        Command::Siege(options) => siege::siege(&options),
        Command::Besiege(options) => block_on(siege::besiege(options)),
        Command::Pki { folder } => pki::Pki::make(&folder).map(drop),
    }
}

/// A runtime with one thread: driver and upstream share a core and must be cheap.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

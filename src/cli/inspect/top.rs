//! `tallygate top`: what a running gateway does now, on a terminal until a key ends it, or once into a pipe.
//!
//! Guarantees:
//! - The first reading must succeed. Later, a gateway that gives no answer is named above its last numbers, and asked
//!   again.
//! - A key or a signal ends the view at once, also while a request is under way.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::runtime::Builder;

use crate::cli::OutputFormat;
use crate::cli::admin_client::{AdminClient, AdminError};
use crate::clock::Clock;

use super::live_screen::{LiveScreen, ViewerAction, screen_size};
use super::overview::Overview;
use super::overview_text::{LineTone, OverviewLine, ScreenSize, overview_lines};
use super::reading::{Reading, read_gateway};

/// Arguments of `tallygate top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The admin listener of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: String,
    /// Seconds between two readings; rates are of this time
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Prints one overview, of one interval, and ends; so does a pipe
    #[arg(long)]
    once: bool,
    /// Output format; JSON is printed once
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
}

/// A gateway that is watched, and the last two readings of it.
struct Watch<'a> {
    client: &'a AdminClient,
    earlier: Reading,
    later: Reading,
    /// Why the last request failed.
    failure: Option<String>,
}

/// Shows a gateway, or prints one overview.
pub fn top(args: &TopArgs, clock: &Clock, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let client = AdminClient::parse(&args.admin)?;
    let interval = Duration::from_secs(args.interval);
    let runtime = Builder::new_current_thread().enable_all().build().context("starting the client")?;
    let is_live = io::stdout().is_terminal() && !args.once && args.format == OutputFormat::Table;
    if is_live {
        runtime.block_on(watch(&client, clock, interval))?;
        return Ok(ExitCode::SUCCESS);
    }
    let overview = runtime.block_on(one_overview(&client, clock, interval))?;
    match args.format {
        OutputFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, &overview)?;
            writeln!(out)?;
        }
        OutputFormat::Table => {
            for line in overview_lines(&overview, None) {
                writeln!(out, "{}", line.text)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn one_overview(client: &AdminClient, clock: &Clock, interval: Duration) -> Result<Overview, AdminError> {
    let earlier = read_gateway(client, clock).await?;
    tokio::time::sleep(interval).await;
    let later = read_gateway(client, clock).await?;
    Ok(Overview::new(client.authority(), &earlier, &later))
}

/// Shows overviews until the viewer ends it.
async fn watch(client: &AdminClient, clock: &Clock, interval: Duration) -> anyhow::Result<()> {
    let first = read_gateway(client, clock).await?; // a failure leaves the terminal as it is
    let mut watch = Watch { client, earlier: first.clone(), later: first, failure: None };
    let mut screen = LiveScreen::open().context("preparing the terminal")?;
    loop {
        let mut next = std::pin::pin!(next_reading(client, clock, interval));
        let reading = loop {
            screen.draw(&watch.lines(screen_size())).context("drawing on the terminal")?;
            tokio::select! {
                reading = next.as_mut() => break reading,
                // Another key draws again, and does not put the next reading off.
                action = screen.action() => if action == ViewerAction::Quit { return Ok(()) },
            }
        };
        watch.take(reading);
    }
}

async fn next_reading(client: &AdminClient, clock: &Clock, interval: Duration) -> Result<Reading, AdminError> {
    tokio::time::sleep(interval).await;
    read_gateway(client, clock).await
}

impl Watch<'_> {
    fn take(&mut self, reading: Result<Reading, AdminError>) {
        match reading {
            Ok(reading) => {
                self.earlier = std::mem::replace(&mut self.later, reading);
                self.failure = None;
            }
            Err(error) => self.failure = Some(error.to_string()),
        }
    }

    fn lines(&self, size: ScreenSize) -> Vec<OverviewLine> {
        let overview = Overview::new(self.client.authority(), &self.earlier, &self.later);
        let Some(failure) = &self.failure else { return overview_lines(&overview, Some(size)) };
        let alarm = OverviewLine { text: format!("NO ANSWER, trying again: {failure}"), tone: LineTone::Alarm };
        let below = ScreenSize { rows: size.rows.saturating_sub(1), ..size };
        std::iter::once(alarm).chain(overview_lines(&overview, Some(below))).collect()
    }
}

//! The logistics company's warehouse: 3,000 box movements a day, growing to 60,000 a day.
//!
//! Its days are accelerated: one day takes [`DAY`] of real time.

use std::time::Duration;

use fastrand::Rng;
use tallygate::lifecycle::DrainWatcher;
use tokio::time::Instant;

use super::desk::{Call, Desk, Office, Speaks};
use crate::city::{MOVEMENT_RECORD, STOCK_READ, rest};
use crate::subsystems::Movement;

const DAY: Duration = Duration::from_secs(300);
const FIRST_DAY: u64 = 3_000;
const LAST_DAY: u64 = 60_000;
const PLACES: [&str; 5] = ["gate", "shelf-a", "shelf-b", "packing", "lorry"];
/// Number of movements for each read of the stock.
const MOVEMENTS_PER_LOOK: u64 = 50;

pub(super) fn open(office: &Office, closing: &DrainWatcher, growth: Duration) -> anyhow::Result<()> {
    let desk = Desk::new(office, "logistics-company", Speaks::Http1)?;
    tokio::spawn(move_boxes(desk, closing.clone(), growth));
    Ok(())
}

async fn move_boxes(mut desk: Desk, mut closing: DrainWatcher, growth: Duration) {
    let mut rng = Rng::with_seed(60_000);
    let opened = Instant::now();
    let mut due = opened;
    for parcel in 1.. {
        due = (due + pause(opened.elapsed(), growth)).max(opened); // late movements are not dropped
        if !rest(&mut closing, due.saturating_duration_since(Instant::now())).await {
            return;
        }
        let Ok(text) = serde_json::to_vec(&movement(parcel, &mut rng)) else { continue };
        desk.ask(Call::post(MOVEMENT_RECORD, "/v1/movements", text)).await;
        if parcel % MOVEMENTS_PER_LOOK == 0 {
            desk.ask(Call::get(STOCK_READ, "/v1/stock")).await;
        }
    }
}

fn movement(parcel: u64, rng: &mut Rng) -> Movement {
    let from = rng.usize(..PLACES.len());
    let to = (from + rng.usize(1..PLACES.len())) % PLACES.len();
    Movement { parcel, from: PLACES[from].to_owned(), to: PLACES[to].to_owned() }
}

/// The time between two movements when the warehouse has been open for `elapsed`.
fn pause(elapsed: Duration, growth: Duration) -> Duration {
    DAY / u32::try_from(movements_per_day(elapsed, growth)).unwrap_or(u32::MAX)
}

/// Grows linearly over `growth` and is constant afterwards.
fn movements_per_day(elapsed: Duration, growth: Duration) -> u64 {
    let growth = growth.as_millis().max(1);
    let grown = u128::from(LAST_DAY - FIRST_DAY) * elapsed.as_millis().min(growth) / growth;
    FIRST_DAY + u64::try_from(grown).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warehouse_grows_at_most_twentyfold() {
        let growth = Duration::from_secs(60);
        for (seconds, expected) in [(0, 3_000), (30, 31_500), (60, 60_000), (600, 60_000)] {
            assert_eq!(movements_per_day(Duration::from_secs(seconds), growth), expected);
        }
    }
}

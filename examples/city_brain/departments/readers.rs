//! Departments that mostly read signals and parking, some of them beyond their grants and limits.

use std::time::Duration;

use fastrand::Rng;
use tallygate::lifecycle::DrainWatcher;

use super::desk::{Call, Desk, Office, Speaks};
use crate::city::{JUNCTION_PRIORITY, JUNCTION_READ, LOT_LIST, LOT_READ, SNAPSHOT_READ, rest};

/// The calls of a department and their interval.
struct Habit {
    department: &'static str,
    speaks: Speaks,
    every: Duration,
    call: fn(&mut Rng) -> Call,
}

const fn habit(department: &'static str, speaks: Speaks, every_ms: u64, call: fn(&mut Rng) -> Call) -> Habit {
    Habit { department, speaks, every: Duration::from_millis(every_ms), call }
}

const HABITS: [Habit; 8] = [
    habit("traffic-police", Speaks::Http1, 250, junction),
    habit("public-transport", Speaks::Http2, 100, junction),
    habit("public-transport", Speaks::Http1, 400, lot),
    habit("ambulance-service", Speaks::Http1, 200, junction),
    habit("ambulance-service", Speaks::Http1, 1_000, priority),
    habit("tourism-office", Speaks::Http1, 200, lots), // the limit is 3 per second: rate_limited
    habit("tourism-office", Speaks::Http1, 3_000, picture), // has no grant: forbidden
    habit("visitor", Speaks::Http1, 2_000, lots),      // no department has this caller: unauthenticated
];

pub(super) fn open(office: &Office, closing: &DrainWatcher) -> anyhow::Result<()> {
    for (seed, habit) in (1_u64..).zip(HABITS) {
        let desk = Desk::new(office, habit.department, habit.speaks)?;
        tokio::spawn(follow(habit, desk, Rng::with_seed(seed), closing.clone()));
    }
    Ok(())
}

async fn follow(habit: Habit, mut desk: Desk, mut rng: Rng, mut closing: DrainWatcher) {
    while rest(&mut closing, habit.every).await {
        desk.ask((habit.call)(&mut rng)).await;
    }
}

fn junction(rng: &mut Rng) -> Call {
    Call::get(JUNCTION_READ, format!("/v1/junctions/{}", rng.u8(1..=64)))
}

fn priority(rng: &mut Rng) -> Call {
    Call::post(JUNCTION_PRIORITY, format!("/v1/junctions/{}/priority", rng.u8(1..=64)), "")
}

/// Requests lot 13 from time to time, which does not exist: a `client_error`.
fn lot(rng: &mut Rng) -> Call {
    Call::get(LOT_READ, format!("/v1/lots/{}", rng.u8(1..=13)))
}

fn lots(_: &mut Rng) -> Call {
    Call::get(LOT_LIST, "/v1/lots")
}

fn picture(rng: &mut Rng) -> Call {
    Call::get(SNAPSHOT_READ, format!("/v1/snapshots/{}", rng.u8(..)))
}

//! Seeded simulation: ten thousand short histories of a ledger, each compared with a small model.
//!
//! A schedule is drawn from its seed. Its steps are:
//! - commands that begin, pass bytes and end in every way;
//! - hours and months that turn over, and clocks that are set;
//! - disks that run full or lose a sync;
//! - gateways that close, crash, lose power, or crash again during recovery.
//!
//! Everything happens on one thread and in one order, so the result of a seed is deterministic. A failure names its
//! seed, its step, and the command to run it again. Seeds that have failed once are in [`REGRESSIONS`] and always run
//! first.

mod books;
mod disk;
mod model;
mod schedule;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fastrand::Rng;

use world::SimulatedWorld;

/// The number of schedules in a run.
const SCHEDULES: u64 = 10_000;
/// The number of concurrent schedules.
const THREADS: usize = 2;

/// Seeds that have found a defect, each with a description of the defect.
const REGRESSIONS: &[(u64, &str)] = &[(845, "power failed between the two pages of a late end")];

/// The number of failures after which a run stops.
const FAILURES: usize = 20;

#[test]
fn ten_thousand_random_histories_agree_with_the_model() {
    let seeds = seeds();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let failed = || failures.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || {
        let folder = folder();
        while failed().len() < FAILURES {
            let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(failure) = simulate(*seed, folder.path()) {
                failed().push((*seed, failure));
            }
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(run))));
    let failed: Vec<u64> = failed().iter().map(|(seed, _)| *seed).collect();
    let first = failures.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().next();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}; the first: {}", first.unwrap_or_default().1);
}

/// Returns the seed in `TALLYGATE_SEED` if it is set; otherwise the regressions, and a number of other seeds.
fn seeds() -> Vec<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = variable("TALLYGATE_SEED") {
        return vec![seed];
    }
    let others = 1..=variable("TALLYGATE_SCHEDULES").unwrap_or(SCHEDULES);
    REGRESSIONS.iter().map(|(seed, _)| *seed).chain(others).collect()
}

/// Returns a folder in memory if possible: a sync to a real disk takes a hundred times as long.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn simulate(seed: u64, folder: &Path) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let steps = schedule::steps(&mut rng);
    let taken = AtomicUsize::new(0);
    let run = AssertUnwindSafe(|| {
        let mut world = SimulatedWorld::new(folder, rng);
        for step in &steps {
            taken.fetch_add(1, Ordering::Relaxed);
            world.take(*step);
        }
        world.finish();
    });
    catch_unwind(run).map_err(|panic| {
        let taken = taken.load(Ordering::Relaxed);
        let history: Vec<_> = steps.iter().take(taken).map(|step| format!("  {step:?}")).collect();
        format!(
            "seed {seed} failed at step {taken} of {}: {}\n{}\nrun it again with TALLYGATE_SEED={seed} cargo test --lib \
             ledger::tests::simulation, and add it to REGRESSIONS",
            steps.len(),
            panic_message(&*panic),
            history.join("\n")
        )
    })
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

//! Time, through one door.
//!
//! Guarantees: nobody else in the crate reads a clock. [`Clock::System`] is the machine's; [`Clock::Manual`] stands still
//! until a test moves it, so no test sleeps to wait for time. Timers of tokio and hyper stay with the machine: they
//! bound waits, they never decide what is counted where. A thread that decides something lets its monotonic time
//! [stand still](Still) meanwhile, so that every step sees the same moment and the machine is asked once.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::model::Window;

/// A point on the monotonic clock: the nanoseconds since the clock was made, for 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The time from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds since the clock was made.
    pub fn nanoseconds(self) -> u64 {
        self.0
    }
}

impl From<Duration> for MonotonicTime {
    fn from(since: Duration) -> Self {
        Self(since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(since.subsec_nanos())))
    }
}

thread_local! {
    /// The machine's moment at which this thread stands still.
    static STANDING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// While it lives, the machine's monotonic time stands still for its thread. Never held over an `.await`.
#[derive(Debug)]
#[must_use = "time goes on when it is dropped"]
pub struct FrozenTime {
    instant: Instant,
    _of_its_thread: PhantomData<Rc<()>>,
}

impl FrozenTime {
    /// Stops time for this thread.
    pub fn freeze() -> Self {
        let instant = Instant::now();
        STANDING.set(Some(instant));
        Self { instant, _of_its_thread: PhantomData }
    }

    /// The machine's moment, for timers.
    pub fn instant(&self) -> Instant {
        self.instant
    }
}

impl Drop for FrozenTime {
    fn drop(&mut self) {
        STANDING.set(None);
    }
}

/// Where time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's clocks.
    System {
        /// When this clock was made.
        origin: Instant,
    },
    /// A clock that a test moves.
    Manual(Arc<ManualClock>),
}

/// The state of a manual clock.
#[derive(Debug)]
pub struct ManualClock {
    monotonic_ns: AtomicU64,
    wall_ns: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self::System { origin: Instant::now() }
    }

    /// A clock that stands at `wall` until it is moved.
    pub fn manual(wall: Timestamp) -> Self {
        let wall_ns = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX);
        Self::Manual(Arc::new(ManualClock { monotonic_ns: AtomicU64::new(0), wall_ns: AtomicI64::new(wall_ns) }))
    }

    /// Now, on the clock that never goes back.
    pub fn monotonic(&self) -> MonotonicTime {
        match self {
            Self::System { origin } => thread_instant().saturating_duration_since(*origin).into(),
            Self::Manual(manual) => MonotonicTime(manual.monotonic_ns.load(Ordering::Acquire)),
        }
    }

    /// Now, in Unix seconds, as the city's clocks show it.
    pub fn unix_seconds(&self) -> i64 {
        match self {
            Self::System { .. } => system_unix_seconds(),
            Self::Manual(manual) => manual.wall_ns.load(Ordering::Acquire).div_euclid(1_000_000_000),
        }
    }

    /// Now, as a timestamp.
    pub fn wall(&self) -> Timestamp {
        match self {
            Self::System { .. } => Timestamp::now(),
            Self::Manual(manual) => {
                Timestamp::from_nanosecond(i128::from(manual.wall_ns.load(Ordering::Acquire))).unwrap_or_default()
            }
        }
    }

    /// The window that is open now.
    pub fn window(&self) -> Window {
        Window::of_unix_seconds(self.unix_seconds())
    }

    /// Moves a manual clock forward, both of its hands; does nothing to the machine's.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(manual) = self {
            let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            manual.monotonic_ns.fetch_add(ns, Ordering::AcqRel);
            manual.wall_ns.fetch_add(i64::try_from(ns).unwrap_or(i64::MAX), Ordering::AcqRel);
        }
    }

    /// Sets the wall hand of a manual clock, as a clock step does; does nothing to the machine's.
    pub fn step_wall(&self, to: Timestamp) {
        if let Self::Manual(manual) = self {
            manual.wall_ns.store(i64::try_from(to.as_nanosecond()).unwrap_or(i64::MAX), Ordering::Release);
        }
    }
}

fn thread_instant() -> Instant {
    STANDING.get().unwrap_or_else(Instant::now)
}

fn system_unix_seconds() -> i64 {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(_) => 0, // a machine before 1970 counts into the first window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_for_one_thread_and_goes_on() {
        let clock = Clock::system();
        let still = FrozenTime::freeze();
        let seen = clock.monotonic();
        while Instant::now() <= still.instant() {}
        assert_eq!(clock.monotonic(), seen);
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| clock.monotonic()).join().expect("a moment"));
        assert!(elsewhere > seen, "another thread's time goes on");
        drop(still);
        assert!(clock.monotonic() > seen);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual("2026-11-24T03:59:59Z".parse().expect("a time"));
        let (window, before) = (clock.window(), clock.monotonic());
        assert_eq!(clock.monotonic(), before);
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.window(), window.next());
        assert_eq!(clock.monotonic().since(before), Duration::from_secs(1));
        clock.step_wall("2026-11-24T03:00:00Z".parse().expect("a time"));
        assert_eq!(clock.window(), window);
        assert_eq!(clock.monotonic().since(before), Duration::from_secs(1));
    }
}

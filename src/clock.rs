//! The clock: the only source of time in the crate.
//!
//! Guarantees:
//!
//! - No other module reads a clock. [`Clock::System`] reads the system clocks. [`Clock::Manual`] stands still until a
//!   test moves it, so no test sleeps for time.
//! - Timers of tokio and hyper use the system clock. They bound waits; they never decide which window a count belongs
//!   to.
//! - A thread that makes a decision [freezes](FrozenTime) its monotonic time meanwhile: every step sees the same
//!   moment, and the system clock is read once.

use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;

use crate::model::Window;

/// A point on the monotonic clock: the nanoseconds since the creation of the clock. 64 bits last for 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicTime(u64);

impl MonotonicTime {
    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds since the creation of the clock.
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
    /// The moment at which the time of this thread is frozen.
    static STANDING: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Freezes the system's monotonic time for the current thread until it is dropped. Never held across an `.await`.
#[derive(Debug)]
#[must_use = "the clock runs again when it is dropped"]
pub struct FrozenTime {
    instant: Instant,
    _of_its_thread: PhantomData<Rc<()>>,
}

impl FrozenTime {
    /// Freezes the time of this thread.
    pub fn freeze() -> Self {
        let instant = Instant::now();
        STANDING.set(Some(instant));
        Self { instant, _of_its_thread: PhantomData }
    }

    /// The frozen moment on the system clock, for timers.
    pub fn instant(&self) -> Instant {
        self.instant
    }
}

impl Drop for FrozenTime {
    fn drop(&mut self) {
        STANDING.set(None);
    }
}

/// A source of time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system clocks.
    System {
        /// The creation of this clock.
        origin: Instant,
        /// How far its wall time is behind that of the system, in whole seconds.
        behind: Duration,
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
    /// The system clocks.
    pub fn system() -> Self {
        Self::system_behind(Duration::ZERO)
    }

    /// The system clocks, but the wall time is behind that of the system, by whole seconds: for trials that need hours
    /// which are over.
    pub fn system_behind(behind: Duration) -> Self {
        Self::System { origin: Instant::now(), behind: Duration::from_secs(behind.as_secs()) }
    }

    /// A clock that stands at `wall` until it is moved.
    pub fn manual(wall: Timestamp) -> Self {
        let wall_ns = i64::try_from(wall.as_nanosecond()).unwrap_or(i64::MAX);
        Self::Manual(Arc::new(ManualClock { monotonic_ns: AtomicU64::new(0), wall_ns: AtomicI64::new(wall_ns) }))
    }

    /// The current time on the monotonic clock.
    pub fn monotonic(&self) -> MonotonicTime {
        match self {
            Self::System { origin, .. } => thread_instant().saturating_duration_since(*origin).into(),
            Self::Manual(manual) => MonotonicTime(manual.monotonic_ns.load(Ordering::Acquire)),
        }
    }

    /// The current wall clock time in Unix seconds.
    pub fn unix_seconds(&self) -> i64 {
        match self {
            Self::System { behind, .. } => system_unix_seconds() - i64::try_from(behind.as_secs()).unwrap_or(0),
            Self::Manual(manual) => manual.wall_ns.load(Ordering::Acquire).div_euclid(1_000_000_000),
        }
    }

    /// The current wall clock time as a timestamp.
    pub fn wall(&self) -> Timestamp {
        match self {
            Self::System { behind, .. } => Timestamp::now() - *behind,
            Self::Manual(manual) => {
                Timestamp::from_nanosecond(i128::from(manual.wall_ns.load(Ordering::Acquire))).unwrap_or_default()
            }
        }
    }

    /// The window that is open now.
    pub fn window(&self) -> Window {
        Window::of_unix_seconds(self.unix_seconds())
    }

    /// Advances both the monotonic and the wall time of a manual clock. No effect on the system clocks.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(manual) = self {
            let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            manual.monotonic_ns.fetch_add(ns, Ordering::AcqRel);
            manual.wall_ns.fetch_add(i64::try_from(ns).unwrap_or(i64::MAX), Ordering::AcqRel);
        }
    }

    /// Sets the wall time of a manual clock, as a clock step does. No effect on the system clocks.
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
        Err(_) => 0, // a time before 1970 counts into the first window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_time_stops_one_thread_and_resumes() {
        let clock = Clock::system();
        let still = FrozenTime::freeze();
        let seen = clock.monotonic();
        while Instant::now() <= still.instant() {}
        assert_eq!(clock.monotonic(), seen);
        let elsewhere = std::thread::scope(|scope| scope.spawn(|| clock.monotonic()).join().expect("a moment"));
        assert!(elsewhere > seen, "the time of another thread continues");
        drop(still);
        assert!(clock.monotonic() > seen);
    }

    #[test]
    fn manual_clock_moves_only_when_set() {
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

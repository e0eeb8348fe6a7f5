//! Timers that seldom fire (timeouts): watched by the worker's tick instead of one runtime timer each.
//!
//! Guarantees:
//! - A wait ends at its deadline, not at a tick. The tick only wakes the waits near their deadline, and each then sets
//!   a precise timer.
//! - The number of entries is the maximum number of concurrent waits so far, which the worker's capacity bounds.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::{Sleep as HyperSleep, Timer};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep, sleep_until};

/// The interval of the worker's tick.
pub(crate) const TICK_INTERVAL: Duration = Duration::from_millis(100);
/// Within this time of its deadline a wait has a precise timer. The time allows for several late ticks.
const PRECISE_WITHIN: Duration = Duration::from_millis(500);

/// The timers of one worker.
pub(crate) struct TickTimers {
    last_tick: Cell<Instant>,
    coarse: CoarseTimer,
    table: RefCell<TimerTable>,
}

#[derive(Default)]
struct TimerTable {
    watched: Vec<Option<WatchedTimer>>,
    free: Vec<usize>,
}

struct WatchedTimer {
    deadline: Instant,
    waker: Waker,
}

impl TickTimers {
    pub(crate) fn new() -> Self {
        Self { last_tick: Cell::new(Instant::now()), coarse: CoarseTimer::new(), table: RefCell::default() }
    }

    /// Advances the clock and wakes the waits near their deadline. Called every [`TICK_INTERVAL`].
    pub(crate) fn tick(&self) {
        let now = Instant::now();
        self.last_tick.set(now);
        self.coarse.advance_to(now.into_std());
        let places = self.table.borrow();
        for watched in places.watched.iter().flatten().filter(|watched| self.is_due_soon(watched.deadline)) {
            watched.waker.wake_by_ref();
        }
    }

    /// A timer that ends at `deadline`.
    pub(crate) fn timer_at(&self, deadline: Instant) -> TickTimer<'_> {
        TickTimer { timers: self, deadline, position: None, timer: None }
    }

    /// A timer for hyper that reads the clock of the tick.
    pub(crate) fn coarse_timer(&self) -> CoarseTimer {
        self.coarse.clone()
    }

    fn is_due_soon(&self, deadline: Instant) -> bool {
        deadline.saturating_duration_since(self.last_tick.get()) <= PRECISE_WITHIN
    }
}

/// One wait.
pub(crate) struct TickTimer<'a> {
    timers: &'a TickTimers,
    deadline: Instant,
    position: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TickTimer<'_> {
    /// Ready at the deadline.
    pub(crate) fn poll_elapsed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() && !self.timers.is_due_soon(self.deadline) {
            self.register_waker(context.waker());
            return Poll::Pending;
        }
        self.unregister();
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.deadline))).as_mut().poll(context)
    }

    fn register_waker(&mut self, waker: &Waker) {
        let mut places = self.timers.table.borrow_mut();
        let position = *self.position.get_or_insert_with(|| places.allocate());
        match &mut places.watched[position] {
            Some(watched) if watched.waker.will_wake(waker) => {}
            watched => *watched = Some(WatchedTimer { deadline: self.deadline, waker: waker.clone() }),
        }
    }

    fn unregister(&mut self) {
        if let Some(position) = self.position.take() {
            let mut places = self.timers.table.borrow_mut();
            places.watched[position] = None;
            places.free.push(position);
        }
    }
}

impl Drop for TickTimer<'_> {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl TimerTable {
    fn allocate(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.watched.push(None);
            self.watched.len() - 1
        })
    }
}

/// tokio's timer with a clock that advances once per tick and costs nothing to read. For keep-alive pings, which are 30
/// seconds apart.
#[derive(Clone)]
pub(crate) struct CoarseTimer {
    origin: std::time::Instant,
    ticked_ns: Arc<AtomicU64>,
    exact: TokioTimer,
}

impl CoarseTimer {
    fn new() -> Self {
        Self { origin: Instant::now().into_std(), ticked_ns: Arc::default(), exact: TokioTimer::new() }
    }

    fn advance_to(&self, now: std::time::Instant) {
        let since = now.saturating_duration_since(self.origin);
        self.ticked_ns.store(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Timer for CoarseTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn HyperSleep>> {
        self.exact.sleep(duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn HyperSleep>> {
        self.exact.sleep_until(deadline)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn HyperSleep>>, deadline: std::time::Instant) {
        self.exact.reset(sleep, deadline);
    }

    fn now(&self) -> std::time::Instant {
        self.origin + Duration::from_nanos(self.ticked_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn tick_for_ever(timers: &TickTimers) {
        let mut tick = tokio::time::interval(TICK_INTERVAL);
        loop {
            tick.tick().await;
            timers.tick();
        }
    }

    #[tokio::test]
    async fn wait_ends_at_its_deadline_by_a_precise_timer() {
        let timers = TickTimers::new();
        for wait in [Duration::ZERO, Duration::from_millis(3), PRECISE_WITHIN + TICK_INTERVAL] {
            let deadline = Instant::now() + wait;
            let mut timer = timers.timer_at(deadline);
            tokio::select! {
                () = poll_fn(|context| timer.poll_elapsed(context)) => {}
                () = tick_for_ever(&timers) => {}
            }
            assert!(Instant::now() >= deadline && timer.timer.is_some() && timer.position.is_none(), "{wait:?}");
        }
    }

    #[tokio::test]
    async fn timer_positions_are_reused() {
        let timers = TickTimers::new();
        for _ in 0..3 {
            let deadline = Instant::now() + 2 * PRECISE_WITHIN;
            let (mut one, mut other) = (timers.timer_at(deadline), timers.timer_at(deadline));
            let polled = poll_fn(|context| {
                Poll::Ready([one.poll_elapsed(context), other.poll_elapsed(context), one.poll_elapsed(context)])
            });
            assert!(polled.await.iter().all(Poll::is_pending));
        }
        let places = timers.table.borrow();
        assert_eq!((places.watched.len(), places.free.len()), (2, 2));
    }
}

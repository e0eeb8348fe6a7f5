//! Waits that hardly ever last to their end: watched from the worker's tick, instead of with a timer each.
//!
//! Guarantees: a wait ends at its deadline, not at a tick; the tick only tells who is near it to set a timer. There are as
//! many places as commands and connections have waited at once, which the worker's capacity bounds.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::rt::{Sleep as HyperSleep, Timer};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep, sleep_until};

/// How often the worker's tick comes.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// A deadline as near as this has a timer: long enough for some ticks to be late.
const NEAR: Duration = Duration::from_millis(500);

/// The waits of one worker.
pub(super) struct Alarms {
    ticked: Cell<Instant>,
    coarse: CoarseTimer,
    places: RefCell<Places>,
}

#[derive(Default)]
struct Places {
    watched: Vec<Option<Watched>>,
    free: Vec<usize>,
}

struct Watched {
    deadline: Instant,
    waker: Waker,
}

impl Alarms {
    pub(super) fn new() -> Self {
        Self { ticked: Cell::new(Instant::now()), coarse: CoarseTimer::new(), places: RefCell::default() }
    }

    /// To be called every [`TICK`].
    pub(super) fn tick(&self) {
        let now = Instant::now();
        self.ticked.set(now);
        self.coarse.set(now.into_std());
        let places = self.places.borrow();
        for watched in places.watched.iter().flatten().filter(|watched| self.is_near(watched.deadline)) {
            watched.waker.wake_by_ref();
        }
    }

    /// A wait until `deadline`.
    pub(super) fn alarm(&self, deadline: Instant) -> Alarm<'_> {
        Alarm { alarms: self, deadline, place: None, timer: None }
    }

    /// hyper's timer, for whom time may pass in ticks.
    pub(super) fn coarse(&self) -> CoarseTimer {
        self.coarse.clone()
    }

    fn is_near(&self, deadline: Instant) -> bool {
        deadline.saturating_duration_since(self.ticked.get()) <= NEAR
    }
}

/// One wait.
pub(super) struct Alarm<'a> {
    alarms: &'a Alarms,
    deadline: Instant,
    place: Option<usize>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm<'_> {
    /// Ready at the deadline.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() && !self.alarms.is_near(self.deadline) {
            self.watch(context.waker());
            return Poll::Pending;
        }
        self.leave();
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(self.deadline))).as_mut().poll(context)
    }

    fn watch(&mut self, waker: &Waker) {
        let mut places = self.alarms.places.borrow_mut();
        let place = *self.place.get_or_insert_with(|| places.take());
        match &mut places.watched[place] {
            Some(watched) if watched.waker.will_wake(waker) => {}
            watched => *watched = Some(Watched { deadline: self.deadline, waker: waker.clone() }),
        }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take() {
            let mut places = self.alarms.places.borrow_mut();
            places.watched[place] = None;
            places.free.push(place);
        }
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Places {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.watched.push(None);
            self.watched.len() - 1
        })
    }
}

/// tokio's timer with a clock that moves once a tick, and costs nothing to read: for pings, which are half a minute apart.
#[derive(Clone)]
pub(super) struct CoarseTimer {
    origin: std::time::Instant,
    ticked_ns: Arc<AtomicU64>,
    exact: TokioTimer,
}

impl CoarseTimer {
    fn new() -> Self {
        Self { origin: Instant::now().into_std(), ticked_ns: Arc::default(), exact: TokioTimer::new() }
    }

    fn set(&self, now: std::time::Instant) {
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

    async fn tick_for_ever(alarms: &Alarms) {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            alarms.tick();
        }
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline_by_a_timer_of_its_own() {
        let alarms = Alarms::new();
        for wait in [Duration::ZERO, Duration::from_millis(3), NEAR + TICK] {
            let deadline = Instant::now() + wait;
            let mut alarm = alarms.alarm(deadline);
            tokio::select! {
                () = poll_fn(|context| alarm.poll(context)) => {}
                () = tick_for_ever(&alarms) => {}
            }
            assert!(Instant::now() >= deadline && alarm.timer.is_some() && alarm.place.is_none(), "{wait:?}");
        }
    }

    #[tokio::test]
    async fn places_are_used_again() {
        let alarms = Alarms::new();
        for _ in 0..3 {
            let deadline = Instant::now() + 2 * NEAR;
            let (mut one, mut other) = (alarms.alarm(deadline), alarms.alarm(deadline));
            let polled = poll_fn(|context| Poll::Ready([one.poll(context), other.poll(context), one.poll(context)]));
            assert!(polled.await.iter().all(Poll::is_pending));
        }
        let places = alarms.places.borrow();
        assert_eq!((places.watched.len(), places.free.len()), (2, 2));
    }
}

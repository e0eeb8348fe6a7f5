//! A bounded map of limiters: one rate limit and one concurrency limit per key.
//!
//! Guarantees:
//!
//! - A limiter is created on first use, and its state is carried over from configuration to configuration.
//! - The map holds at most so many limiters as it was made for. A full map evicts idle limiters.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::TrafficLimits;
use crate::policy::PolicySnapshot;

use super::atomic_semaphore::AtomicSemaphore;
use super::token_bucket::TokenBucket;

/// The limiter of one key.
#[derive(Debug)]
pub(crate) struct KeyLimiter {
    pub(crate) limits: TrafficLimits,
    /// The rate limit.
    pub(crate) bucket: Option<Arc<TokenBucket>>,
    /// The concurrency limit. Permits are counted only while the configuration has a limit.
    pub(crate) semaphore: AtomicSemaphore,
}

/// The map is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LimitersFull;

impl KeyLimiter {
    fn new(limits: TrafficLimits, clock: &Clock) -> Self {
        let bucket = limits.rate.map(|rate| Arc::new(TokenBucket::full(rate, clock)));
        Self { limits, bucket, semaphore: AtomicSemaphore::default() }
    }

    /// Whether the limiter is idle: a new limiter in its place would admit the same commands.
    fn is_idle(&self) -> bool {
        self.semaphore.is_unused() && self.bucket.as_ref().is_none_or(|bucket| bucket.is_full())
    }

    /// The same limiter under new limits. Used tokens and permits stay used.
    fn carried_over(&self, limits: TrafficLimits, clock: &Clock) -> Self {
        let bucket = match (&self.bucket, limits.rate) {
            (_, None) => None,
            (None, Some(rate)) => Some(Arc::new(TokenBucket::full(rate, clock))),
            (Some(bucket), Some(rate)) if bucket.rate() == rate => Some(Arc::clone(bucket)),
            (Some(bucket), Some(rate)) => Some(Arc::new(bucket.carried_over(rate, clock))),
        };
        Self { limits, bucket, semaphore: self.semaphore.clone() }
    }
}

/// The shortest time between two sweeps of a full map for idle limiters.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Limiters by key.
#[derive(Debug)]
pub(crate) struct KeyedLimiters<K: Eq + Hash, S: BuildHasher + Clone = RandomState> {
    limiters: DashMap<K, Arc<KeyLimiter>, S>,
    max: usize,
    /// The time of the last sweep, in nanoseconds of the monotonic clock; 0 for never.
    last_sweep: AtomicU64,
}

impl<K: Eq + Hash + Copy, S: BuildHasher + Clone + Default> KeyedLimiters<K, S> {
    pub(crate) fn new() -> Self {
        Self::with_capacity(PolicySnapshot::LIMITERS_MAX.get() as usize)
    }

    /// A map of at most `max` limiters.
    pub(crate) fn with_capacity(max: usize) -> Self {
        let limiters = DashMap::with_hasher(S::default());
        Self { limiters, max, last_sweep: AtomicU64::new(0) }
    }

    /// The limiter of a key under these limits: the existing one, or a new one that carries over its state.
    pub(crate) fn limiter_for(
        &self,
        key: K,
        limits: TrafficLimits,
        clock: &Clock,
    ) -> Result<Arc<KeyLimiter>, LimitersFull> {
        if let Some(limiter) = self.limiters.get(&key).filter(|limiter| limiter.limits == limits) {
            return Ok(Arc::clone(&limiter));
        }
        self.renew(key, limits, clock)
    }

    #[cold]
    fn renew(&self, key: K, limits: TrafficLimits, clock: &Clock) -> Result<Arc<KeyLimiter>, LimitersFull> {
        let full = self.is_full() && !self.evict_idle(clock); // before `entry`, which locks its shard
        match self.limiters.entry(key) {
            Entry::Occupied(mut living) if living.get().limits != limits => {
                let carried = Arc::new(living.get().carried_over(limits, clock));
                living.insert(Arc::clone(&carried));
                Ok(carried)
            }
            Entry::Occupied(living) => Ok(Arc::clone(living.get())),
            Entry::Vacant(_) if full => Err(LimitersFull),
            Entry::Vacant(vacant) => {
                let limiter = Arc::new(KeyLimiter::new(limits, clock));
                vacant.insert(Arc::clone(&limiter));
                Ok(limiter)
            }
        }
    }

    fn is_full(&self) -> bool {
        self.limiters.len() >= self.max
    }

    /// Evicts idle limiters, which are equivalent to new ones. Returns whether the map has room now. The sweep visits
    /// the whole map, so one thread does it, at most once per [`SWEEP_INTERVAL`].
    fn evict_idle(&self, clock: &Clock) -> bool {
        let (last, now) = (self.last_sweep.load(Ordering::Acquire), clock.monotonic().nanoseconds().max(1));
        let is_early = last != 0 && u128::from(now.saturating_sub(last)) < SWEEP_INTERVAL.as_nanos();
        if is_early || self.last_sweep.compare_exchange(last, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return !self.is_full();
        }
        // The shard is locked, so no other thread can obtain a limiter meanwhile.
        self.limiters.retain(|_, limiter| Arc::strong_count(limiter) > 1 || !limiter.is_idle());
        !self.is_full()
    }

    /// Whether there is no limiter.
    pub(crate) fn is_empty(&self) -> bool {
        self.limiters.is_empty()
    }

    /// Removes the limiters of keys without limits, and carries the others over.
    pub(crate) fn enforce(&self, limits_of: impl Fn(&K) -> Option<TrafficLimits>, clock: &Clock) {
        self.limiters.retain(|key, limiter| match limits_of(key) {
            Some(limits) if limits == limiter.limits => true,
            Some(limits) => {
                *limiter = Arc::new(limiter.carried_over(limits, clock));
                true
            }
            None => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use jiff::Timestamp;

    use super::*;
    use crate::model::{RateLimit, RateUnit};

    fn limits() -> TrafficLimits {
        let one = NonZeroU32::MIN;
        TrafficLimits {
            rate: Some(RateLimit { count: one, unit: RateUnit::Second, burst: one }),
            concurrent: Some(one),
        }
    }

    #[test]
    fn only_limiters_at_rest_are_evicted() {
        let clock = Clock::manual("2026-11-24T03:59:59Z".parse::<Timestamp>().expect("a time"));
        let keyed: KeyedLimiters<u32> = KeyedLimiters::with_capacity(3);
        clock.advance(Duration::from_secs(2));
        let under = |key: u32| keyed.limiter_for(key, limits(), &clock);
        let drained = under(1).expect("room");
        drained.bucket.as_ref().expect("a rate").take_token().expect("a token");
        let busy = under(2).expect("room");
        assert!(busy.semaphore.try_acquire(NonZeroU32::MIN));
        let held = under(3).expect("room");
        drop(drained);
        assert!(under(4).is_err(), "one bucket is empty, one is in use, one is held");
        drop((busy, held));
        assert!(under(4).is_err(), "the table was just scanned");
        clock.advance(SWEEP_INTERVAL);
        assert!(under(4).is_ok());
        assert!(!under(2).expect("the limiter is kept").semaphore.is_unused(), "a taken token stays taken");
    }
}

//! The limiters of one kind: a rate and places per key, made on first use, carried from plan to plan, bounded. When there are
//! as many as may be, those at rest make room.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::fast::RandomState;

use crate::clock::Clock;
use crate::model::Limits;
use crate::policy::Snapshot;

use super::bucket::Bucket;
use super::places::Places;

/// What limits one key.
#[derive(Debug)]
pub(super) struct Limiter {
    pub(super) limits: Limits,
    /// How fast.
    pub(super) bucket: Option<Arc<Bucket>>,
    /// How many at once; counted only while the plan has a cap.
    pub(super) places: Places,
}

/// The map is full: see [`Snapshot::LIMITERS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Limiter {
    fn new(limits: Limits, clock: &Clock) -> Self {
        let bucket = limits.rate.map(|rate| Arc::new(Bucket::full(rate, clock)));
        Self { limits, bucket, places: Places::default() }
    }

    /// Whether a new limiter in its place would let through neither more nor less.
    fn is_at_rest(&self) -> bool {
        self.places.are_free() && self.bucket.as_ref().is_none_or(|bucket| bucket.is_whole())
    }

    /// Under new limits, what was used stays used.
    fn carried(&self, limits: Limits, clock: &Clock) -> Self {
        let bucket = match (&self.bucket, limits.rate) {
            (_, None) => None,
            (None, Some(rate)) => Some(Arc::new(Bucket::full(rate, clock))),
            (Some(bucket), Some(rate)) if bucket.rate() == rate => Some(Arc::clone(bucket)),
            (Some(bucket), Some(rate)) => Some(Arc::new(bucket.carried(rate, clock))),
        };
        Self { limits, bucket, places: self.places.clone() }
    }
}

/// How often at most a full map is looked through for limiters that are at rest.
const LOOK_THROUGH_EVERY: Duration = Duration::from_secs(1);

/// Limiters by key.
#[derive(Debug)]
pub(super) struct Keyed<K: Eq + Hash> {
    limiters: DashMap<K, Arc<Limiter>, RandomState>,
    max: usize,
    /// When the full map was looked through last, in nanoseconds of the monotonic clock; 0 for never.
    looked_through: AtomicU64,
}

impl<K: Eq + Hash + Copy> Keyed<K> {
    pub(super) fn new() -> Self {
        Self::with_room_for(Snapshot::LIMITERS_MAX.get() as usize)
    }

    /// For at most `max` limiters.
    pub(super) fn with_room_for(max: usize) -> Self {
        let limiters = DashMap::with_hasher(RandomState::default());
        Self { limiters, max, looked_through: AtomicU64::new(0) }
    }

    /// The limiter of a key under these limits: the living one, or a new one that carries on from it.
    pub(super) fn under(&self, key: K, limits: Limits, clock: &Clock) -> Result<Arc<Limiter>, Full> {
        if let Some(limiter) = self.limiters.get(&key).filter(|limiter| limiter.limits == limits) {
            return Ok(Arc::clone(&limiter));
        }
        self.renew(key, limits, clock)
    }

    #[cold]
    fn renew(&self, key: K, limits: Limits, clock: &Clock) -> Result<Arc<Limiter>, Full> {
        let full = self.is_full() && !self.make_room(clock); // before the entry: it locks its shard
        match self.limiters.entry(key) {
            Entry::Occupied(mut living) if living.get().limits != limits => {
                let carried = Arc::new(living.get().carried(limits, clock));
                living.insert(Arc::clone(&carried));
                Ok(carried)
            }
            Entry::Occupied(living) => Ok(Arc::clone(living.get())),
            Entry::Vacant(_) if full => Err(Full),
            Entry::Vacant(vacant) => {
                let limiter = Arc::new(Limiter::new(limits, clock));
                vacant.insert(Arc::clone(&limiter));
                Ok(limiter)
            }
        }
    }

    fn is_full(&self) -> bool {
        self.limiters.len() >= self.max
    }

    /// Drops limiters at rest, which say the same as new ones; whether there is room now. The work is in proportion to the
    /// map, so it is done at most once in [`LOOK_THROUGH_EVERY`], by one thread.
    fn make_room(&self, clock: &Clock) -> bool {
        let (last, now) = (self.looked_through.load(Ordering::Acquire), clock.monotonic().nanoseconds().max(1));
        let is_early = last != 0 && u128::from(now.saturating_sub(last)) < LOOK_THROUGH_EVERY.as_nanos();
        if is_early || self.looked_through.compare_exchange(last, now, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return !self.is_full();
        }
        // Nobody else can come to hold a limiter whose shard is locked.
        self.limiters.retain(|_, limiter| Arc::strong_count(limiter) > 1 || !limiter.is_at_rest());
        !self.is_full()
    }

    /// Drops the limiters of keys that have no limits any more, and carries the others over.
    pub(super) fn enforce(&self, limits_of: impl Fn(&K) -> Option<Limits>, clock: &Clock) {
        self.limiters.retain(|key, limiter| match limits_of(key) {
            Some(limits) if limits == limiter.limits => true,
            Some(limits) => {
                *limiter = Arc::new(limiter.carried(limits, clock));
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
    use crate::model::{Rate, RateUnit};

    fn limits() -> Limits {
        let one = NonZeroU32::MIN;
        Limits { rate: Some(Rate { count: one, unit: RateUnit::Second, burst: one }), concurrent: Some(one) }
    }

    #[test]
    fn limiters_at_rest_make_room_and_no_other_does() {
        let clock = Clock::manual("2026-11-24T03:59:59Z".parse::<Timestamp>().expect("a time"));
        let keyed = Keyed::with_room_for(3);
        clock.advance(Duration::from_secs(2));
        let under = |key: u32| keyed.under(key, limits(), &clock);
        let drained = under(1).expect("room");
        drained.bucket.as_ref().expect("a rate").take().expect("a token");
        let busy = under(2).expect("room");
        assert!(busy.places.take(NonZeroU32::MIN));
        let held = under(3).expect("room");
        drop(drained);
        assert!(under(4).is_err(), "one is drained, one busy, one held");
        drop((busy, held));
        assert!(under(4).is_err(), "it was looked through a moment ago");
        clock.advance(LOOK_THROUGH_EVERY);
        assert!(under(4).is_ok());
        assert!(!under(2).expect("it is still there").places.are_free(), "what is taken is not forgotten");
    }
}

//! The limiters of one kind: a rate and places per key, made on first use, carried from plan to plan, bounded.

use std::hash::Hash;
use std::sync::Arc;

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

/// Limiters by key.
#[derive(Debug)]
pub(super) struct Keyed<K: Eq + Hash>(DashMap<K, Arc<Limiter>, RandomState>);

impl<K: Eq + Hash + Copy> Keyed<K> {
    pub(super) fn new() -> Self {
        Self(DashMap::with_hasher(RandomState::default()))
    }

    /// The limiter of a key under these limits: the living one, or a new one that carries on from it.
    pub(super) fn under(&self, key: K, limits: Limits, clock: &Clock) -> Result<Arc<Limiter>, Full> {
        if let Some(limiter) = self.0.get(&key).filter(|limiter| limiter.limits == limits) {
            return Ok(Arc::clone(&limiter));
        }
        self.renew(key, limits, clock)
    }

    #[cold]
    fn renew(&self, key: K, limits: Limits, clock: &Clock) -> Result<Arc<Limiter>, Full> {
        let full = self.0.len() >= Snapshot::LIMITERS_MAX.get() as usize; // before the entry: it locks its shard
        match self.0.entry(key) {
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

    /// Drops the limiters of keys that have no limits any more, and carries the others over.
    pub(super) fn enforce(&self, limits_of: impl Fn(&K) -> Option<Limits>, clock: &Clock) {
        self.0.retain(|key, limiter| match limits_of(key) {
            Some(limits) if limits == limiter.limits => true,
            Some(limits) => {
                *limiter = Arc::new(limiter.carried(limits, clock));
                true
            }
            None => false,
        });
    }
}

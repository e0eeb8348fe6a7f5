//! A token bucket: governor's GCRA on the gateway's clock, with a state that can be read, carried over and returned.

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock as GovernorClock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::model::RateLimit;

/// A bucket of tokens that fills at a [`RateLimit`].
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: RateLimit,
    limiter: RateLimiter<NotKeyed, ArrivalState, GatewayClock, StateInformationMiddleware>,
    arrival: ArrivalState,
    /// At or after the limiter's own start, so that the tokens read from `arrival` are never too many.
    start: ClockInstant,
    clock: GatewayClock,
}

/// The bucket has no token left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BucketEmpty {
    /// The time until the next token.
    pub(crate) retry_after: Duration,
    /// For the response headers.
    pub(crate) info: RateLimitInfo,
}

/// The state of a department's tightest limit, for the response headers (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitInfo {
    /// `q`: commands per window.
    pub quota: u32,
    /// `w`: the window in seconds.
    pub window_seconds: u32,
    /// `r`: commands left now.
    pub remaining: u32,
    /// `t`: seconds until the bucket is full again.
    pub reset_seconds: u32,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn full(rate: RateLimit, clock: &Clock) -> Self {
        let arrival = ArrivalState::default();
        let clock = GatewayClock(clock.clone());
        let limiter = RateLimiter::new(quota_of(rate), arrival.clone(), clock.clone());
        Self { rate, limiter, arrival, start: clock.now(), clock }
    }

    /// A bucket of another rate with the same share of tokens left, rounded down.
    pub(crate) fn carried_over(&self, rate: RateLimit, clock: &Clock) -> Self {
        let bucket = Self::full(rate, clock);
        let (burst, wanted) = (u64::from(self.rate.burst.get()), u64::from(rate.burst.get()));
        let used = burst - u64::from(self.tokens_left());
        let drained = (used * wanted).div_ceil(burst).min(wanted);
        if let Some(drained) = u32::try_from(drained).ok().and_then(NonZeroU32::new) {
            let _ = bucket.limiter.check_n(drained); // a full bucket always holds up to its burst
        }
        bucket
    }

    /// The rate at which the bucket fills.
    pub(crate) fn rate(&self) -> RateLimit {
        self.rate
    }

    /// Takes a token. Returns the number of tokens left.
    pub(crate) fn take_token(&self) -> Result<u32, BucketEmpty> {
        match self.limiter.check() {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_until) => {
                let wait = not_until.wait_time_from(self.clock.now());
                Err(BucketEmpty { retry_after: wait, info: self.rate_limit_info(0) })
            }
        }
    }

    /// Returns a token that was taken for a command that another limit refused.
    pub(crate) fn return_token(&self) {
        self.arrival.0.fetch_sub(self.token_ns(), Ordering::AcqRel);
    }

    /// Tokens left now, rounded down.
    pub(crate) fn tokens_left(&self) -> u32 {
        let now = self.clock.now().duration_since(self.start).as_u64();
        let owed = self.arrival.0.load(Ordering::Acquire).saturating_sub(now);
        let used = owed.div_ceil(self.token_ns());
        self.rate.burst.get().saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// Whether the bucket is full.
    pub(crate) fn is_full(&self) -> bool {
        self.tokens_left() == self.rate.burst.get()
    }

    /// The time in which one token is refilled, in nanoseconds.
    fn token_ns(&self) -> u64 {
        token_time(self.rate).as_nanos() as u64
    }

    /// The state of the limit with `remaining` tokens left, for the response headers.
    pub(crate) fn rate_limit_info(&self, remaining: u32) -> RateLimitInfo {
        let (count, unit) = (u64::from(self.rate.count.get()), u64::from(self.rate.unit.seconds()));
        let burst = u64::from(self.rate.burst.get());
        let (quota, window) = if burst > count { (burst, (burst * unit).div_ceil(count)) } else { (count, unit) };
        let missing = burst.saturating_sub(u64::from(remaining));
        RateLimitInfo {
            quota: saturate_u32(quota),
            window_seconds: saturate_u32(window),
            remaining,
            reset_seconds: saturate_u32((missing * unit).div_ceil(count)),
        }
    }
}

fn saturate_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The time in which one token is refilled. At least a nanosecond, because `config` bounds the rate.
fn token_time(rate: RateLimit) -> Duration {
    let unit = Duration::from_secs(u64::from(rate.unit.seconds()));
    (unit / rate.count.get()).max(Duration::from_nanos(1))
}

fn quota_of(rate: RateLimit) -> Quota {
    Quota::with_period(token_time(rate)).expect("a token takes at least a nanosecond").allow_burst(rate.burst)
}

/// The whole state of GCRA: the theoretical arrival time of the next command, in nanoseconds since the limiter's start.
#[derive(Clone, Debug, Default)]
struct ArrivalState(Arc<AtomicU64>);

impl StateStore for ArrivalState {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let (outcome, after) = decide((before != 0).then(|| Nanos::from(before)))?;
            match self.0.compare_exchange_weak(before, after.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(now) => before = now,
            }
        }
    }
}

/// The gateway's clock as a clock of governor.
#[derive(Clone, Debug)]
struct GatewayClock(Clock);

/// Nanoseconds since the creation of the gateway's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ClockInstant(u64);

impl GovernorClock for GatewayClock {
    type Instant = ClockInstant;

    fn now(&self) -> ClockInstant {
        ClockInstant(self.0.monotonic().nanoseconds())
    }
}

impl Add<Nanos> for ClockInstant {
    type Output = Self;

    fn add(self, nanos: Nanos) -> Self {
        Self(self.0.saturating_add(nanos.as_u64()))
    }
}

impl Reference for ClockInstant {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, nanos: Nanos) -> Self {
        Self(self.0.checked_sub(nanos.as_u64()).unwrap_or(self.0))
    }
}

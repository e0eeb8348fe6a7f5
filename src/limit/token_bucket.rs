//! A token bucket: governor's GCRA and state on the gateway's clock. Tokens can also be read, carried over and
//! returned, which governor's limiter does not offer (`docs/decisions/governor.md`).

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as GovernorClock, Reference as _};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::model::RateLimit;

/// A bucket of tokens that fills at a [`RateLimit`].
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: RateLimit,
    limiter: RateLimiter<NotKeyed, SharedState, GatewayClock, StateInformationMiddleware>,
    state: SharedState,
    /// At or after the limiter's own start, so that the tokens read from `state` are never too many.
    start: Nanos,
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
        let state = SharedState::default();
        let limiter = RateLimiter::new(quota_of(rate), state.clone(), GatewayClock(clock.clone()));
        let start = limiter.clock().now();
        Self { rate, limiter, state, start }
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
                let wait = not_until.wait_time_from(self.limiter.clock().now());
                Err(BucketEmpty { retry_after: wait, info: self.rate_limit_info(0) })
            }
        }
    }

    /// Returns a token that was taken for a command that another limit refused.
    pub(crate) fn return_token(&self) {
        self.state.move_back(self.token_time());
    }

    /// Tokens left now, rounded down.
    pub(crate) fn tokens_left(&self) -> u32 {
        let now = self.limiter.clock().now().duration_since(self.start);
        let owed = self.state.arrival().duration_since(now);
        let used = owed.as_u64().div_ceil(self.token_time().as_u64());
        self.rate.burst.get().saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// Whether the bucket is full.
    pub(crate) fn is_full(&self) -> bool {
        self.tokens_left() == self.rate.burst.get()
    }

    /// The time in which one token is refilled.
    fn token_time(&self) -> Nanos {
        token_time(self.rate).into()
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

/// governor's state of one limiter, shared with the limiter: the theoretical arrival time of the next command (GCRA),
/// since the limiter's start.
#[derive(Clone, Debug, Default)]
struct SharedState(Arc<InMemoryState>);

impl SharedState {
    /// The arrival time; 0 if no command has come yet.
    fn arrival(&self) -> Nanos {
        let read = |arrival: Option<Nanos>| Err::<(Infallible, Nanos), _>(arrival.unwrap_or_default());
        let Err(arrival) = self.measure_and_replace(&NotKeyed::NonKey, read); // an error replaces nothing
        arrival
    }

    /// Makes the arrival time earlier, as if fewer commands had come.
    fn move_back(&self, by: Nanos) {
        let back = |arrival: Option<Nanos>| Ok(((), arrival.unwrap_or_default().saturating_sub(by)));
        let Ok::<_, Infallible>(()) = self.measure_and_replace(&NotKeyed::NonKey, back);
    }
}

impl StateStore for SharedState {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, decide)
    }
}

/// The gateway's clock as a clock of governor.
#[derive(Clone, Debug)]
struct GatewayClock(Clock);

impl GovernorClock for GatewayClock {
    /// Since the creation of the gateway's clock.
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.monotonic().nanoseconds().into()
    }
}

//! The limits of each client address: rates and commands in flight, by zone and address.
//!
//! Guarantees:
//! - At most [`AddressLimits::ADDRESSES_MAX`] limiters. Idle ones make room. While there is none, the addresses without
//!   a limiter share one for each zone, so a flood of addresses is limited as one address, and known ones keep theirs.
//! - A refused command has spent nothing.
//! - A rate admits what the leaky bucket of nginx (`limit_req … nodelay`) admits with a burst that is smaller by one.
//!
//! Leaves to others: the address of a client (`proxy`).

use std::collections::HashMap;
use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Clock;
use crate::model::{AddressLimits, Refused, TrafficLimits, counted_address};

use super::command_gate::{LimitRefusal, RETRY_CONCURRENT, rate_refusal};
use super::keyed_limiters::{KeyLimiter, KeyedLimiters, LimitersFull};

/// A zone by its number, a part of its limits, and an address.
type AddressKey = (u32, usize, IpAddr);

/// The limiters of all addresses. The hasher is the standard one (resistant to collisions), because callers choose
/// their addresses.
#[derive(Debug)]
pub(crate) struct AddressLimiters {
    own: KeyedLimiters<AddressKey, RandomState>,
    /// Those of addresses that found no room, by zone and part.
    shared: KeyedLimiters<(u32, usize)>,
}

/// Evidence that a command is within the limits of its client's address. Holds the place among the commands in flight
/// until dropped. Without [`AddressPermit::keep_tokens`] the drop returns the tokens as well.
#[derive(Debug, Default)]
pub struct AddressPermit {
    limiters: [Option<Arc<KeyLimiter>>; AddressLimits::PARTS],
    has_place: bool,
    taken_tokens: [bool; AddressLimits::PARTS],
}

impl AddressLimiters {
    pub(crate) fn new() -> Self {
        Self::with_capacity(AddressLimits::ADDRESSES_MAX)
    }

    fn with_capacity(max: usize) -> Self {
        Self { own: KeyedLimiters::with_capacity(max), shared: KeyedLimiters::new() }
    }

    /// Checks the limits of an address.
    pub(crate) fn admit(
        &self,
        limits: &AddressLimits,
        address: IpAddr,
        clock: &Clock,
    ) -> Result<AddressPermit, LimitRefusal> {
        let mut permit = AddressPermit::default();
        if limits.except.contains(address) {
            return Ok(permit);
        }
        let address = counted_address(address);
        for (part, one) in limits.limits.iter().enumerate().filter(|(_, one)| **one != TrafficLimits::default()) {
            let own = self.own.limiter_for((limits.number, part, address), *one, clock);
            let limiter = own.or_else(|LimitersFull| self.shared.limiter_for((limits.number, part), *one, clock));
            permit.limiters[part] = Some(limiter.map_err(|LimitersFull| refusal(Refused::Overloaded))?);
        }
        permit.take_place()?;
        permit.take_tokens()?;
        Ok(permit)
    }

    /// Whether there is no limiter.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }

    /// Removes the limiters of zones that are gone, and carries the others over.
    pub(crate) fn enforce(&self, zones: &HashMap<u32, [TrafficLimits; AddressLimits::PARTS]>, clock: &Clock) {
        let limits_of = |zone: &u32, part: usize| {
            let limits = zones.get(zone).map(|limits| limits[part]);
            limits.filter(|limits| *limits != TrafficLimits::default())
        };
        self.own.enforce(|(zone, part, _)| limits_of(zone, *part), clock);
        self.shared.enforce(|(zone, part)| limits_of(zone, *part), clock);
    }
}

fn refusal(refused: Refused) -> LimitRefusal {
    LimitRefusal { refused, retry_after: RETRY_CONCURRENT, rate_limit: None, quota: None }
}

impl AddressPermit {
    fn take_place(&mut self) -> Result<(), LimitRefusal> {
        let limiter = self.limiters[0].as_ref();
        let Some((limiter, cap)) = limiter.and_then(|limiter| Some((limiter, limiter.limits.concurrent?))) else {
            return Ok(());
        };
        self.has_place = limiter.semaphore.try_acquire(cap);
        if self.has_place { Ok(()) } else { Err(refusal(Refused::TooManyConcurrent)) }
    }

    fn take_tokens(&mut self) -> Result<(), LimitRefusal> {
        for (limiter, is_taken) in self.limiters.iter().zip(&mut self.taken_tokens) {
            let Some(bucket) = limiter.as_ref().and_then(|limiter| limiter.bucket.as_ref()) else { continue };
            bucket.take_token().map_err(|empty| LimitRefusal { rate_limit: None, ..rate_refusal(empty) })?;
            *is_taken = true;
        }
        Ok(())
    }

    /// Keeps the tokens taken, for a command that no other limit refuses.
    pub fn keep_tokens(&mut self) {
        self.taken_tokens = [false; AddressLimits::PARTS];
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        for (limiter, is_taken) in self.limiters.iter().zip(self.taken_tokens) {
            if let (Some(bucket), true) = (limiter.as_ref().and_then(|limiter| limiter.bucket.as_ref()), is_taken) {
                bucket.return_token();
            }
        }
        if let (Some(limiter), true) = (&self.limiters[0], self.has_place) {
            limiter.semaphore.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::model::{Name, NetworkRanges, RateLimit, RateUnit};

    fn clock() -> Clock {
        let clock = Clock::manual("2026-11-24T03:59:59Z".parse::<Timestamp>().expect("a time"));
        clock.advance(Duration::from_secs(2));
        clock
    }

    fn rate(count: u32, unit: RateUnit, burst: u32) -> TrafficLimits {
        let number = |number| NonZeroU32::new(number).expect("not 0");
        TrafficLimits { rate: Some(RateLimit { count: number(count), unit, burst: number(burst) }), concurrent: None }
    }

    fn limits(parts: [TrafficLimits; 2]) -> AddressLimits {
        let zone = Name::parse("zone").expect("a name");
        AddressLimits { zone, number: 1, limits: parts, except: NetworkRanges::default(), is_unavailable: true }
    }

    /// Sends a command, and returns whether it is admitted.
    fn send(limiters: &AddressLimiters, limits: &AddressLimits, address: &str, clock: &Clock) -> bool {
        let permit = limiters.admit(limits, address.parse().expect("an address"), clock);
        permit.map(|mut permit| permit.keep_tokens()).is_ok()
    }

    #[test]
    fn each_address_has_its_burst_and_then_its_rate() {
        let (limiters, clock) = (AddressLimiters::new(), clock());
        let limits = limits([rate(2, RateUnit::Second, 3), TrafficLimits::default()]);
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
            let admitted = (0..10).filter(|_| send(&limiters, &limits, address, &clock)).count();
            assert_eq!(admitted, 3, "{address}");
        }
        assert!(!send(&limiters, &limits, "2001:db8::ffff:2", &clock), "the same /64");
        clock.advance(Duration::from_secs(1));
        let admitted = (0..10).filter(|_| send(&limiters, &limits, "192.0.2.1", &clock)).count();
        assert_eq!(admitted, 2);
    }

    #[test]
    fn a_refused_command_takes_no_token_of_the_other_rate() {
        let (limiters, clock) = (AddressLimiters::new(), clock());
        let limits = limits([rate(1, RateUnit::Second, 5), rate(1, RateUnit::Minute, 2)]);
        let admitted = (0..10).filter(|_| send(&limiters, &limits, "192.0.2.1", &clock)).count();
        assert_eq!(admitted, 2);
        clock.advance(Duration::from_secs(60));
        assert!(send(&limiters, &limits, "192.0.2.1", &clock));
    }

    #[test]
    fn places_are_held_until_the_permit_is_dropped() {
        let (limiters, clock) = (AddressLimiters::new(), clock());
        let two = TrafficLimits { rate: None, concurrent: NonZeroU32::new(2) };
        let limits = limits([two, TrafficLimits::default()]);
        let admit = || limiters.admit(&limits, "192.0.2.1".parse().expect("an address"), &clock);
        let held = (admit().expect("a place"), admit().expect("a place"));
        assert_eq!(admit().map(|_| ()).map_err(|refusal| refusal.refused), Err(Refused::TooManyConcurrent));
        drop(held.0);
        assert!(admit().is_ok());
    }

    #[test]
    fn a_permit_that_another_limit_refuses_returns_its_tokens() {
        let (limiters, clock) = (AddressLimiters::new(), clock());
        let limits = limits([rate(1, RateUnit::Hour, 1), TrafficLimits::default()]);
        drop(limiters.admit(&limits, "192.0.2.1".parse().expect("an address"), &clock).expect("a token"));
        assert!(send(&limiters, &limits, "192.0.2.1", &clock));
        assert!(!send(&limiters, &limits, "192.0.2.1", &clock));
    }

    #[test]
    fn exempt_addresses_have_no_limits() {
        let (limiters, clock) = (AddressLimiters::new(), clock());
        let mut limits = limits([rate(1, RateUnit::Hour, 1), TrafficLimits::default()]);
        limits.except.add_range("192.0.2.0/24").expect("a range");
        assert!((0..10).all(|_| send(&limiters, &limits, "192.0.2.1", &clock)));
        assert_eq!((0..10).filter(|_| send(&limiters, &limits, "198.51.100.1", &clock)).count(), 1);
    }

    #[test]
    fn addresses_beyond_a_full_table_share_one_limiter() {
        let (limiters, clock) = (AddressLimiters::with_capacity(2), clock());
        let limits = limits([rate(1, RateUnit::Second, 2), TrafficLimits::default()]);
        for address in ["192.0.2.1", "192.0.2.2"] {
            assert!(send(&limiters, &limits, address, &clock));
        }
        let others = ["192.0.2.3", "192.0.2.4", "192.0.2.5"];
        let admitted = others.into_iter().filter(|address| send(&limiters, &limits, address, &clock)).count();
        assert_eq!(admitted, 2, "as one address");
        assert!(send(&limiters, &limits, "192.0.2.1", &clock), "a known address keeps its own");
        clock.advance(Duration::from_secs(2));
        assert!(send(&limiters, &limits, "192.0.2.3", &clock), "idle limiters make room");
        assert!(send(&limiters, &limits, "192.0.2.3", &clock));
    }
}

//! Rate limits, concurrency limits, bandwidth limits and quotas: the values that `config` reads and `limit` enforces.

use std::num::{NonZeroU32, NonZeroU64};

use super::name::Name;
use super::network_ranges::NetworkRanges;
use super::period::PeriodLength;

/// A rate limit: a number of commands per unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Commands per unit.
    pub count: NonZeroU32,
    /// The unit.
    pub unit: RateUnit,
    /// The most commands in a burst after an idle period.
    pub burst: NonZeroU32,
}

/// The unit of a [`RateLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// `N/s`
    Second,
    /// `N/m`
    Minute,
    /// `N/h`
    Hour,
}

impl RateUnit {
    /// The length of the unit in seconds.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// The limits of one department, of one command of a department, or of the whole gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficLimits {
    /// The rate limit.
    pub rate: Option<RateLimit>,
    /// The most commands in flight.
    pub concurrent: Option<NonZeroU32>,
}

/// The limits of each client address. Commands with the same zone share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// The name of the limits.
    pub zone: Name,
    /// The stable number of the name.
    pub number: u32,
    /// Each of them holds; the limit of commands in flight is in the first one.
    pub limits: [TrafficLimits; Self::PARTS],
    /// The addresses without limits.
    pub except: NetworkRanges,
    /// Whether a refusal has the status 503, as in nginx, instead of 429.
    pub is_unavailable: bool,
}

impl AddressLimits {
    /// The most rates.
    pub const PARTS: usize = 2;
    /// The most addresses, over all zones, that have limiters of their own. A full table takes up new ones once others
    /// are idle; until then they share one limiter in each zone.
    pub const ADDRESSES_MAX: usize = 65_536;
}

/// The bandwidth limit of one response: the rate at which its body is sent to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandwidthLimit {
    /// Bytes per second.
    pub rate: NonZeroU64,
    /// The bytes at the beginning of a body that are sent without limit.
    pub after: u64,
}

/// The most units or commands of a department in a calendar day or month. The ledger holds the use, so a quota survives
/// restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// What is counted, and for how long.
    pub kind: QuotaKind,
    /// Units or commands per period.
    pub amount: NonZeroU64,
    /// The percentages of use at which operators are warned, ascending.
    pub warn: Vec<u8>,
    /// The action beyond the quota.
    pub exceeded: QuotaAction,
}

/// What a quota counts, and for how long. A department has at most one quota of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QuotaKind {
    /// The period, in the configured offset.
    pub per: PeriodLength,
    /// What is counted.
    pub measure: QuotaMeasure,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaMeasure {
    /// Units. A command of which nothing reached a subsystem costs none.
    Units,
    /// Admitted commands, whatever became of them.
    Commands,
}

impl QuotaKind {
    /// The number of kinds.
    pub const COUNT: usize = 4;

    /// All kinds, in the order in which they are checked: a month before a day, so that `Retry-After` is that of the
    /// longer period.
    pub const ALL: [Self; Self::COUNT] = [
        Self { per: PeriodLength::Month, measure: QuotaMeasure::Units },
        Self { per: PeriodLength::Month, measure: QuotaMeasure::Commands },
        Self { per: PeriodLength::Day, measure: QuotaMeasure::Units },
        Self { per: PeriodLength::Day, measure: QuotaMeasure::Commands },
    ];

    /// The position in [`QuotaKind::ALL`].
    pub const fn index(self) -> usize {
        let of_period = match self.per {
            PeriodLength::Month => 0,
            PeriodLength::Day => 2,
        };
        match self.measure {
            QuotaMeasure::Units => of_period,
            QuotaMeasure::Commands => of_period + 1,
        }
    }
}

impl QuotaMeasure {
    /// The word of the configuration and of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Units => "units",
            Self::Commands => "commands",
        }
    }
}

/// The action on a command beyond the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaAction {
    /// The command is refused with `quota_exceeded`.
    Refuse,
    /// The command is forwarded, counted, and shown.
    Allow,
}

#[cfg(test)]
mod tests {
    use super::QuotaKind;

    #[test]
    fn index_is_the_position() {
        assert_eq!(QuotaKind::ALL.map(QuotaKind::index), [0, 1, 2, 3]);
    }
}

//! How fast, how many at once, how much in a month: the plans that `config` reads and `limit` carries out.

use std::num::{NonZeroU32, NonZeroU64};

/// A speed: so many per unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Commands per unit.
    pub count: NonZeroU32,
    /// The unit.
    pub unit: RateUnit,
    /// How many may come at once after a rest.
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
    /// Its length in seconds.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// What limits one department, one command of it, or the whole gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficLimits {
    /// How fast.
    pub rate: Option<RateLimit>,
    /// How many in flight at once.
    pub concurrent: Option<NonZeroU32>,
}

/// How much a department may use in a calendar month. Remembers, survives restarts (the ledger holds the use).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonthlyQuota {
    /// Units per calendar month in the configured offset.
    pub units: NonZeroU64,
    /// Percentages of use at which operators are warned, ascending.
    pub warn: Vec<u8>,
    /// What happens beyond.
    pub exceeded: QuotaAction,
}

/// What happens to a command beyond the quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaAction {
    /// Refused with `quota_exceeded`.
    Refuse,
    /// Let through, counted, and shown.
    Allow,
}

//! The mean, the least and the greatest of the same hours of past weeks.
//!
//! Guarantees: an hour without a past hour of the same hour of the week has those of the same hour of the day, and
//! without any of these all hours.

use crate::model::Window;

use super::HOURS_OF_WEEK;

/// Means are in millionths.
pub(super) const MILLION: u128 = 1_000_000;

/// Past hours, by the hours to come that they stand for.
#[derive(Debug)]
pub(super) struct HourMeans {
    of_week: Vec<SameHours>,
    of_day: Vec<SameHours>,
    all: SameHours,
}

/// Past hours that stand for an hour to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SameHours {
    sum: u64,
    count: u64,
    pub(super) least: u64,
    pub(super) greatest: u64,
}

impl HourMeans {
    /// The means of past hours and their use.
    pub(super) fn of(hours: impl Iterator<Item = (Window, u64)>) -> Self {
        let mut means = Self {
            of_week: vec![SameHours::default(); HOURS_OF_WEEK as usize],
            of_day: vec![SameHours::default(); 24],
            all: SameHours::default(),
        };
        for (window, used) in hours {
            means.of_week[(window.0 % HOURS_OF_WEEK) as usize].add(used);
            means.of_day[(window.0 % 24) as usize].add(used);
            means.all.add(used);
        }
        means
    }

    /// The past hours that stand for an hour; `None` if there is none at all.
    pub(super) fn same_hour(&self, window: Window) -> Option<SameHours> {
        let of_week = self.of_week[(window.0 % HOURS_OF_WEEK) as usize];
        let of_day = self.of_day[(window.0 % 24) as usize];
        [of_week, of_day, self.all].into_iter().find(|same| same.count > 0)
    }
}

impl SameHours {
    fn add(&mut self, used: u64) {
        self.least = if self.count == 0 { used } else { self.least.min(used) };
        self.greatest = self.greatest.max(used);
        self.sum = self.sum.saturating_add(used);
        self.count += 1;
    }

    /// The mean, rounded down to a millionth.
    pub(super) fn mean_millionths(self) -> u128 {
        u128::from(self.sum) * MILLION / u128::from(self.count.max(1))
    }
}

//! What only the composition root knows, as plain data for a scrape.

use jiff::Timestamp;

use crate::config::{ConfigProblem, PendingSetting};
use crate::identity::ExpiringItem;
use crate::model::{CalendarOffset, Month, Name, TrafficLimits, Window};

use super::config_changes::ConfigChanges;

/// What a scrape shows beside the ledger and the measurements; made fresh for each.
#[derive(Clone, Debug)]
pub struct RuntimeView {
    /// This moment.
    pub now: Timestamp,
    /// The window that is open now: it tells the current month.
    pub window: Window,
    /// The ledger's calendar.
    pub calendar: CalendarOffset,
    /// Series of commands before departments fold into `other` (`capacity.series_max`).
    pub series_max: usize,
    /// The use of every quota.
    pub quotas: Vec<QuotaUse>,
    /// The limits of departments that have any; at most as many departments as `series_max`.
    pub limits: Vec<DepartmentLimits>,
    /// What expires when.
    pub expiries: Vec<ExpiringItem>,
    /// Listeners that believe revocation lists which have expired.
    pub accepts_expired_crl: Vec<Name>,
    /// Which configuration is live, which was rejected.
    pub config: ConfigStatus,
}

impl RuntimeView {
    /// The calendar months of which usage is shown: the previous one and the current one.
    #[must_use]
    pub fn shown_months(&self) -> [Month; 2] {
        let current = self.calendar.month_of(self.window);
        [current.previous(), current]
    }
}

/// How much of its quota a department has used in the current month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// Who.
    pub department: Name,
    /// Units used.
    pub used: u64,
    /// Units per month.
    pub granted: u64,
    /// The highest threshold that was reached in the month, in percent; 100 as well once a command was refused, 0 below the first.
    pub warned_percent: u8,
}

/// What limits a department, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartmentLimits {
    /// Who.
    pub department: Name,
    /// How fast, and how many at once.
    pub limits: TrafficLimits,
    /// Units per month.
    pub quota: Option<u64>,
}

impl QuotaUse {
    /// At most `max` departments: those that have used the largest part of their quota, in the order of their names. A province
    /// has 30,000, and whoever watches quotas looks for those that are near their end.
    #[must_use]
    pub fn closest_to_limit(mut all: Vec<Self>, max: usize) -> Vec<Self> {
        if all.len() > max {
            // used / granted in whole numbers, the larger first
            let part = |one: &Self| u128::from(one.used) * u128::from(u64::MAX) / u128::from(one.granted.max(1));
            all.sort_by_cached_key(|one| (std::cmp::Reverse(part(one)), one.department.clone()));
            all.truncate(max);
            all.sort_by(|one, other| one.department.cmp(&other.department));
        }
        all
    }
}

/// Which configuration is live, and which one was last rejected. Holds no part of the document, so no secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConfigStatus {
    /// What traffic runs on.
    pub live: LiveConfig,
    /// What is weaker than it would be by default, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weakened: Vec<String>,
    /// The settings that are read once, at start, and that the live configuration says otherwise: they wait for a restart.
    pub restart_needed: Vec<PendingSetting>,
    /// What the last reload changed that changed anything; none before the first.
    pub changes: Option<ConfigChanges>,
    /// The last attempt, if it was rejected; none after a reload that went well.
    pub rejected: Option<RejectedConfig>,
}

/// The configuration that traffic runs on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LiveConfig {
    /// See [`crate::policy::Snapshot::version`].
    pub version: String,
    /// Since when.
    pub since: Timestamp,
}

/// A configuration that was not made live.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RejectedConfig {
    /// Its version where the file could be read, otherwise `unreadable`.
    pub version: String,
    /// When.
    pub at: Timestamp,
    /// Why: every problem.
    pub problems: Vec<ConfigProblem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_nearest_to_the_end_of_their_quota_are_shown() {
        let of = |name: &str, used, granted| QuotaUse {
            department: Name::parse(name).expect("a name"),
            used,
            granted,
            warned_percent: 0,
        };
        let all = vec![of("a", 1, 10), of("d", 9, 10), of("c", 0, 10), of("b", 50, 100)];
        let names = |max| {
            QuotaUse::closest_to_limit(all.clone(), max)
                .iter()
                .map(|one| one.department.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(2), ["b", "d"]);
        assert_eq!(names(3), ["a", "b", "d"]);
        assert_eq!(QuotaUse::closest_to_limit(all.clone(), 4), all);
    }
}

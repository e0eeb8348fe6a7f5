//! The data that only the composition root has, as plain values for a scrape.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::{ConfigProblem, ExcludedSource, PendingSetting};
use crate::identity::ExpiringItem;
use crate::model::{CalendarOffset, Month, Name, QuotaKind, TrafficLimits, Window};

use super::cluster_view::{ClusterView, ServedLastGood};
use super::config_changes::ConfigChanges;

/// The input of a scrape beside the ledger and the measurements. A view is built for each scrape.
#[derive(Clone, Debug)]
pub struct RuntimeView {
    /// The time of the scrape.
    pub now: Timestamp,
    /// The accounting window that is open now. It determines the current month.
    pub window: Window,
    /// The calendar of the ledger.
    pub calendar: CalendarOffset,
    /// The limit of series of commands. Beyond it, departments are folded into `other` (`capacity.series_max`).
    pub series_max: usize,
    /// The usage of every quota.
    pub quotas: Vec<QuotaUse>,
    /// The limits of departments that have any, for at most `series_max` departments.
    pub limits: Vec<DepartmentLimits>,
    /// The expiry of certificates and other items that expire.
    pub expiries: Vec<ExpiringItem>,
    /// Listeners that accept revocation lists (CRLs) that have expired.
    pub accepts_expired_crl: Vec<Name>,
    /// The live configuration and the last rejected one.
    pub config: ConfigStatus,
    /// The Kubernetes controller; `None` without one.
    pub cluster: Option<ClusterView>,
}

impl RuntimeView {
    /// The calendar months whose usage is shown: the previous one and the current one.
    #[must_use]
    pub fn shown_months(&self) -> [Month; 2] {
        let current = self.calendar.month_of(self.window);
        [current.previous(), current]
    }
}

/// The share of a quota that a department has used in the current day or month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUse {
    /// The department.
    pub department: Name,
    /// What the quota counts, and for how long.
    pub kind: QuotaKind,
    /// Units or commands used.
    pub used: u64,
    /// Units or commands granted per period.
    pub granted: u64,
    /// The highest threshold reached in the period, in percent. It is also 100 once a command was refused, and 0 below
    /// the first threshold.
    pub warned_percent: u8,
}

/// The configured limits of a department.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepartmentLimits {
    /// The department.
    pub department: Name,
    /// The limits of rate and concurrency.
    pub limits: TrafficLimits,
}

impl QuotaUse {
    /// At most `max` quotas: those with the largest used part, sorted by the names of their departments. A province has
    /// 30,000 departments, and an operator who watches quotas looks for those close to their limit.
    #[must_use]
    pub fn closest_to_limit(mut all: Vec<Self>, max: usize) -> Vec<Self> {
        if all.len() > max {
            // used / granted in whole numbers, the largest first
            let part = |one: &Self| u128::from(one.used) * u128::from(u64::MAX) / u128::from(one.granted.max(1));
            all.sort_by_cached_key(|one| (std::cmp::Reverse(part(one)), one.department.clone(), one.kind.index()));
            all.truncate(max);
            all.sort_by(|one, other| (&one.department, one.kind.index()).cmp(&(&other.department, other.kind.index())));
        }
        all
    }
}

/// The live configuration and the last rejected one. Of the document it holds settings, names and paths, and no secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConfigStatus {
    /// The configuration that serves traffic.
    pub live: LiveConfig,
    /// Settings that are weaker than their defaults, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weakened: Vec<String>,
    /// Settings that are read only at start and whose value differs in the live configuration. They take effect after a
    /// restart.
    pub restart_needed: Vec<PendingSetting>,
    /// The sources that the live configuration leaves out, because each of them has problems of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<ExcludedSource>,
    /// The changes of the last reload that changed something; `None` before the first.
    pub changes: Option<ConfigChanges>,
    /// The last reload, if it was rejected; `None` after a successful reload.
    pub rejected: Option<RejectedConfig>,
    /// The last good configuration of the disk, while it is served because the cluster's own is not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good: Option<ServedLastGood>,
}

/// The configuration that serves traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct LiveConfig {
    /// See [`crate::policy::PolicySnapshot::version`].
    pub version: String,
    /// The time at which it became live.
    pub since: Timestamp,
    /// The main file.
    pub source: PathBuf,
    /// How many items it has, of all files.
    pub contains: ConfigCounts,
    /// The settings of the gateway that are in effect, defaults included, by their keys. Keys and certificates are
    /// shown as the paths of their files.
    pub settings: Arc<BTreeMap<String, String>>,
}

/// The numbers of items of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConfigCounts {
    /// Departments.
    pub departments: usize,
    /// Subsystems.
    pub subsystems: usize,
    /// Commands of all subsystems.
    pub commands: usize,
    /// Backends, those of subsystems included.
    pub backends: usize,
    /// Departments and commands that a grant allows.
    pub granted: usize,
}

/// A configuration that was rejected.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RejectedConfig {
    /// Its version if the file could be read, otherwise `unreadable`.
    pub version: String,
    /// The time of the rejection.
    pub at: Timestamp,
    /// All problems that were found.
    pub problems: Vec<ConfigProblem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departments_nearest_to_their_quota_are_shown() {
        let of = |name: &str, used, granted| QuotaUse {
            department: Name::parse(name).expect("a name"),
            kind: QuotaKind::ALL[0],
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

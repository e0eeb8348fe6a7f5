//! What only the composition root knows, as plain data for a scrape.

use jiff::Timestamp;

use crate::config::Problem;
use crate::identity::Expiry;
use crate::model::{CalendarOffset, Name, Window};

/// What a scrape shows beside the ledger and the measurements; made fresh for each.
#[derive(Clone, Debug)]
pub struct View {
    /// This moment.
    pub now: Timestamp,
    /// The window that is open now: it tells the current month.
    pub window: Window,
    /// The ledger's calendar.
    pub calendar: CalendarOffset,
    /// Series of commands before departments fold into `other` (`capacity.series`).
    pub series: usize,
    /// The use of every quota.
    pub quotas: Vec<QuotaUse>,
    /// What expires when.
    pub expiries: Vec<Expiry>,
    /// Listeners that believe revocation lists which have expired.
    pub believing: Vec<Name>,
    /// Which configuration is live, which was rejected.
    pub config: ConfigStatus,
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
}

/// Which configuration is live, and which one was last rejected. Holds no part of the document, so no secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConfigStatus {
    /// What traffic runs on.
    pub live: LiveConfig,
    /// What is weaker than it would be by default, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weakened: Vec<String>,
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
    pub problems: Vec<Problem>,
}

//! How fast and how much: rates (GCRA by governor), commands at once, and monthly quotas.
//!
//! Guarantees: narrowest first, so that a refusal by a wider limit costs a narrower one at most the one token that
//! `docs/limits.md` documents; every map is bounded; a reload never refills a bucket. Decides; counts nothing.

use std::time::Duration;

use crate::clock::Clock;
use crate::model::{Refused, Window};
use crate::policy::{Command, DepartmentPolicy, Snapshot};

/// The limiters of a gateway, shared by its workers; they outlive every configuration.
#[derive(Debug)]
pub struct Limiters {}

/// Evidence that every limit let a command pass. Holds the department's place among its concurrent commands until dropped.
#[derive(Debug)]
pub struct Pass {}

/// A limit's "no".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which kind of limit.
    pub refused: Refused,
    /// When it is worth trying again.
    pub retry_after: Duration,
    /// For the `RateLimit` headers.
    pub budget: Option<Budget>,
}

/// What a limited department is told about its tightest limit (draft-ietf-httpapi-ratelimit-headers-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `q`: commands per window.
    pub quota: u32,
    /// `w`: the window in seconds.
    pub window_seconds: u32,
    /// `r`: commands left now.
    pub remaining: u32,
    /// `t`: seconds until the budget is whole again.
    pub reset_seconds: u32,
}

impl Limiters {
    /// No limiters yet.
    pub fn new(_clock: Clock) -> Self {
        todo!()
    }

    /// Makes the limits those of `snapshot`. What was used under the previous ones stays used.
    pub fn enforce(&self, _snapshot: &Snapshot) {
        todo!()
    }

    /// Tells a department's use of its quota so far: called at start for each department with what the ledger holds.
    pub fn set_quota_used(&self, _department: u32, _month: crate::model::Month, _units: u64) {
        todo!()
    }

    /// Used and granted units of every department with a quota, for metrics: (department number, used, quota).
    pub fn quotas(&self, _window: Window) -> Vec<(u32, u64, u64)> {
        todo!()
    }

    /// Asks every limit, narrowest first.
    pub fn admit(
        &self,
        _snapshot: &Snapshot,
        _department: &DepartmentPolicy,
        _command: &Command,
        _window: Window,
    ) -> Result<Pass, Limited> {
        todo!()
    }
}

impl Pass {
    /// What to tell the department.
    pub fn budget(&self) -> Option<Budget> {
        todo!()
    }

    /// The command was admitted: its units are used. Without this call, dropping the pass gives them back.
    pub fn keep_units(&mut self) {
        todo!()
    }
}

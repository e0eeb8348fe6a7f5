//! The compiled configuration that traffic runs on.

use super::subsystem::Command;
use super::subsystem::DepartmentPolicy;
use super::subsystem::GrantRule;
use super::subsystem::Subsystem;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use http::Method;

use crate::model::{CallerId, Name, RateLimit};

use super::RouteTable;
use super::grant::GrantTable;

/// Everything traffic needs to know, compiled once per configuration and never changed after.
#[derive(Debug)]
pub struct PolicySnapshot {
    /// The first 12 hex digits of the document's SHA-256: names the configuration in metrics and `/config`.
    pub version: String,
    /// The limit on the whole gateway.
    pub total_rate: Option<RateLimit>,
    /// All departments, in the order of the document.
    pub departments: Vec<Arc<DepartmentPolicy>>,
    /// All subsystems, in the order of the document.
    pub subsystems: Vec<Arc<Subsystem>>,
    /// Which department claims an identity.
    pub(crate) callers: HashMap<CallerId, Arc<DepartmentPolicy>>,
    /// Which command a request is.
    pub(crate) routes: RouteTable,
    /// Who may run what.
    pub(crate) grants: GrantTable,
}

/// Why no department can be named for a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerUnclaimed {
    /// No department claims any of its identities.
    Nobody,
    /// Two departments claim identities of one certificate.
    Several(Name, Name),
    /// The department that claims them is disabled.
    Disabled(Name),
}

impl PolicySnapshot {
    /// The one department that claims these identities.
    pub fn department_of(&self, identities: &[CallerId]) -> Result<&Arc<DepartmentPolicy>, CallerUnclaimed> {
        let mut claimed = identities.iter().filter_map(|identity| self.callers.get(identity));
        let first = claimed.next().ok_or(CallerUnclaimed::Nobody)?;
        match claimed.find(|other| other.department.id != first.department.id) {
            Some(other) => Err(CallerUnclaimed::Several(first.department.id.clone(), other.department.id.clone())),
            None if first.disabled => Err(CallerUnclaimed::Disabled(first.department.id.clone())),
            None => Ok(first),
        }
    }

    /// Which of these identities a department claims: the name that a caller has in this city.
    pub fn claimed_identity<'a>(&self, identities: &'a [CallerId]) -> Option<&'a CallerId> {
        identities.iter().find(|identity| self.is_claimed(identity))
    }

    /// Whether a department claims this identity.
    pub fn is_claimed(&self, identity: &CallerId) -> bool {
        self.callers.contains_key(identity)
    }

    /// What a request is: see [`super::RouteMatch`].
    pub fn find_route(&self, host: &str, method: &Method, path: &str) -> super::RouteMatch<'_> {
        self.routes.find_route(self, host, method, path)
    }

    /// The methods of the commands at a path, where [`PolicySnapshot::find_route`] finds none for the method that was asked for. In byte
    /// order; empty, if the path is none of a command.
    pub fn methods_at(&self, host: &str, path: &str) -> Vec<&str> {
        self.routes.methods_at(host, path)
    }

    /// Whether this department may run this command, and by which rule.
    pub fn find_grant(&self, department: &DepartmentPolicy, command: &Command) -> Option<super::Grant> {
        self.grants.find_grant(department, command)
    }

    /// The departments that no rule lets run anything, disabled ones left out, and how many are not disabled at all.
    pub fn departments_without_grant(&self) -> (Vec<&DepartmentPolicy>, usize) {
        let granted = self.grants.departments();
        let enabled = || self.departments.iter().filter(|policy| !policy.disabled);
        let without = enabled().filter(|policy| !granted.contains(&policy.department.number));
        (without.map(|policy| &**policy).collect(), enabled().count())
    }

    /// The rules that allow nothing which an earlier rule does not allow.
    pub fn unused_rules(&self) -> impl Iterator<Item = &GrantRule> {
        self.grants.unused_rules()
    }

    /// The hosts a subsystem of this snapshot is called by, lower case; none means any.
    pub fn hosts_of(&self, subsystem: &Subsystem) -> Vec<&str> {
        self.routes.hosts_of(subsystem.index)
    }

    /// How many pairs of a department and a command are granted: so many series the ledger may count.
    pub fn granted_series(&self) -> usize {
        self.grants.len()
    }

    /// The rule behind a grant of this snapshot, as it was written.
    pub fn grant_rule(&self, grant: &super::Grant) -> &GrantRule {
        self.grants.rule(grant)
    }

    /// The default largest request body: 1 MiB, as nginx has it.
    pub const BODY_MAX_DEFAULT: u64 = 1024 * 1024;

    /// How many limiters of one kind may exist; beyond it a new key is refused.
    pub const LIMITERS_MAX: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
}

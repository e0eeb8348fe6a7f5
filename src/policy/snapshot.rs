//! The compiled configuration (policy snapshot) that serves traffic.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::{CallerId, Name, RateLimit, TrafficLimits};

use super::backend::Backend;
use super::grant::{GrantOrigin, GrantTable};
use super::route::RouteTable;
use super::subsystem::{Command, DepartmentPolicy, Subsystem};
use super::usage_page::UsagePage;

/// The compiled configuration: everything that the data path needs. Made once per configuration, then immutable.
///
/// A clone shares everything that is proportional to the size of the configuration, but for the list of backends. The
/// snapshot of another configuration shares the parts that are the same.
#[derive(Clone, Debug)]
pub struct PolicySnapshot {
    /// The first 12 hex digits of the document's SHA-256. Identifies the configuration in metrics and `/config`.
    pub version: String,
    /// The rate limit of the whole gateway.
    pub total_rate: Option<RateLimit>,
    /// All departments, in the order of the document.
    pub departments: Arc<[Arc<DepartmentPolicy>]>,
    /// All subsystems, in the order of the document.
    pub subsystems: Arc<[Arc<Subsystem>]>,
    /// All backends: those of the subsystems, then the others, both in the order of the document.
    pub backends: Vec<Arc<Backend>>,
    /// The position of each backend in `backends`, by its number.
    pub(crate) backend_positions: Arc<HashMap<u32, usize, RandomState>>,
    /// The department that claims each identity.
    pub(crate) callers: Arc<HashMap<CallerId, Arc<DepartmentPolicy>>>,
    /// The department of the callers without a certificate, by listener.
    pub(crate) anonymous: Arc<HashMap<Name, Arc<DepartmentPolicy>>>,
    /// The listeners whose department also has the callers with a certificate that no department claims.
    pub(crate) unclaimed: Arc<HashSet<Name>>,
    /// The ports at which callers reach listeners, as far as they are known.
    pub(crate) public_ports: Arc<HashMap<Name, u16>>,
    /// Whether some listener forwards fields about client certificates. Then those fields of callers are removed
    /// on all listeners.
    pub forwards_certificates: bool,
    /// The page on which departments read their own usage, if it is enabled.
    pub usage_page: Option<Arc<UsagePage>>,
    /// The routes from requests to commands.
    pub(crate) routes: Arc<RouteTable>,
    /// The grants of the departments.
    pub(crate) grants: Arc<GrantTable>,
}

/// The reason why a caller belongs to no department.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallerUnclaimed {
    /// No department claims any of its identities.
    NoDepartment,
    /// Two departments claim identities of one certificate.
    Several(Name, Name),
    /// The department that claims them is disabled.
    Disabled(Name),
}

/// Where a caller has connected. Beside its certificate, this decides which department it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct CallerOrigin<'a> {
    /// The listener.
    pub listener: &'a Name,
    /// The realm of the authorities that verify callers there; `None` is the realm without a name.
    pub realm: Option<&'a Name>,
    /// Whether a caller with a certificate that nobody claims has no department, whatever the listener says.
    pub refuses_unclaimed: bool,
}

impl<'a> CallerOrigin<'a> {
    /// A listener whose authorities belong to the realm without a name.
    pub fn listener(listener: &'a Name) -> Self {
        Self { listener, realm: None, refuses_unclaimed: false }
    }
}

/// The callers that a department claims.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallerClaim<'a> {
    /// Those with this identity in their certificate.
    Certificate(&'a CallerId),
    /// Those without a certificate on this listener.
    Listener(&'a Name),
}

impl PolicySnapshot {
    /// All claims, each with its department, in no order.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (CallerClaim<'_>, &Arc<DepartmentPolicy>)> {
        let certificates = self.callers.iter().map(|(id, policy)| (CallerClaim::Certificate(id), policy));
        certificates.chain(self.anonymous.iter().map(|(name, policy)| (CallerClaim::Listener(name), policy)))
    }

    /// The department with this claim.
    pub(crate) fn claimant(&self, claim: CallerClaim<'_>) -> Option<&Arc<DepartmentPolicy>> {
        match claim {
            CallerClaim::Certificate(identity) => self.callers.get(identity),
            CallerClaim::Listener(listener) => self.anonymous.get(listener),
        }
    }

    /// The one department that claims these identities in a realm; `None` is the realm without a name.
    pub fn department_of(
        &self,
        identities: &[CallerId],
        realm: Option<&Name>,
    ) -> Result<&Arc<DepartmentPolicy>, CallerUnclaimed> {
        let mut claimed = identities.iter().filter_map(|identity| self.claimant_in(identity, realm));
        let first = claimed.next().ok_or(CallerUnclaimed::NoDepartment)?;
        match claimed.find(|other| other.department.id != first.department.id) {
            Some(other) => Err(CallerUnclaimed::Several(first.department.id.clone(), other.department.id.clone())),
            None if first.disabled => Err(CallerUnclaimed::Disabled(first.department.id.clone())),
            None => Ok(first),
        }
    }

    fn claimant_in(&self, identity: &CallerId, realm: Option<&Name>) -> Option<&Arc<DepartmentPolicy>> {
        self.callers.get(identity).filter(|policy| policy.counts_in(realm))
    }

    /// The department of a caller with these identities in its certificate: the one that claims them, or that of the
    /// listener's unclaimed callers.
    pub fn certified_department(
        &self,
        origin: CallerOrigin<'_>,
        identities: &[CallerId],
    ) -> Result<&Arc<DepartmentPolicy>, CallerUnclaimed> {
        let takes_unclaimed = !origin.refuses_unclaimed && self.unclaimed.contains(origin.listener);
        match self.department_of(identities, origin.realm) {
            Err(CallerUnclaimed::NoDepartment) if takes_unclaimed => self.anonymous_department(origin.listener),
            claimed => claimed,
        }
    }

    /// The department of the callers that present no certificate on this listener.
    pub fn anonymous_department(&self, listener: &Name) -> Result<&Arc<DepartmentPolicy>, CallerUnclaimed> {
        let department = self.anonymous.get(listener).ok_or(CallerUnclaimed::NoDepartment)?;
        if department.disabled {
            return Err(CallerUnclaimed::Disabled(department.department.id.clone()));
        }
        Ok(department)
    }

    /// The one of these identities that a department claims in a realm: the name of the caller in this city.
    pub fn claimed_identity<'a>(&self, identities: &'a [CallerId], realm: Option<&Name>) -> Option<&'a CallerId> {
        identities.iter().find(|identity| self.claimant_in(identity, realm).is_some())
    }

    /// Whether a department claims this identity in any realm.
    pub fn is_claimed(&self, identity: &CallerId) -> bool {
        self.callers.contains_key(identity)
    }

    /// The route of a request: see [`super::RouteMatch`].
    pub fn find_route(&self, request: &super::RouteRequest<'_>) -> super::RouteMatch<'_> {
        self.routes.find_route(request)
    }

    /// What becomes of a TLS connection to a listener that names this server (SNI), or none.
    pub fn find_connection(&self, listener: &Name, server_name: Option<&str>) -> super::ConnectionMatch<'_> {
        self.routes.find_connection(listener, server_name)
    }

    /// The department of a connection that is passed through: the owner of its subsystem, or the department of the
    /// callers that present no certificate on this listener.
    pub fn passthrough_department(
        &self,
        listener: &Name,
        server_name: Option<&str>,
    ) -> Result<&Arc<DepartmentPolicy>, CallerUnclaimed> {
        let owner = match self.find_connection(listener, server_name) {
            super::ConnectionMatch::Command { subsystem, .. } => subsystem.owner.as_ref(),
            super::ConnectionMatch::Http | super::ConnectionMatch::None => None,
        };
        match owner {
            Some(owner) if owner.disabled => Err(CallerUnclaimed::Disabled(owner.department.id.clone())),
            Some(owner) => Ok(owner),
            None => self.anonymous_department(listener),
        }
    }

    /// The methods of the commands that accept a request but for its method, for a request to which
    /// [`PolicySnapshot::find_route`] finds no command. In byte order. Empty if there is no such command.
    pub fn methods_at(&self, request: &super::RouteRequest<'_>) -> Vec<&str> {
        self.routes.methods_at(request)
    }

    /// The subsystems whose commands may be those of a request, the most specific first: the last one is the only one
    /// without `otherCommands: next`.
    pub fn subsystems_at(&self, request: &super::RouteRequest<'_>) -> Vec<&Arc<Subsystem>> {
        self.routes.subsystems_at(request)
    }

    /// The grant for this department and command, with the rule that allows it; `None` if no rule does.
    pub fn find_grant(&self, department: &DepartmentPolicy, command: &Command) -> Option<super::Grant> {
        self.grants.find_grant(department, command)
    }

    /// The limits of a department on a command: those of the grant, or else those of the command.
    pub fn limits_on(&self, department: &DepartmentPolicy, command: &Command) -> TrafficLimits {
        let granted = self.granted_limits(department.department.number, command.key.number);
        granted.unwrap_or(command.limits)
    }

    /// The limits that a grant sets, by the numbers of department and command.
    pub(crate) fn granted_limits(&self, department: u32, command: u32) -> Option<TrafficLimits> {
        self.grants.limits_of(department, command)
    }

    /// The enabled departments that no rule allows to run anything, and the number of all enabled departments.
    pub fn departments_without_grant(&self) -> (Vec<&DepartmentPolicy>, usize) {
        let granted = self.grants.departments();
        let enabled = || self.departments.iter().filter(|policy| !policy.disabled);
        let without = enabled().filter(|policy| !granted.contains(&policy.department.number));
        (without.map(|policy| &**policy).collect(), enabled().count())
    }

    /// The rules that allow nothing beyond the rules before them, and set no limits.
    pub fn unused_rules(&self) -> Vec<GrantOrigin<'_>> {
        self.grants.unused_rules()
    }

    /// The backend with this number.
    pub fn backend(&self, number: u32) -> Option<&Arc<Backend>> {
        self.backends.get(*self.backend_positions.get(&number)?)
    }

    /// The port at which callers reach a listener, if it is known (`publicPort`).
    pub fn public_port(&self, listener: &Name) -> Option<u16> {
        self.public_ports.get(listener).copied()
    }

    /// The backends that no command forwards to and no mirror copies to, without those of the subsystems.
    pub fn unused_backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let commands = self.subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().chain(&subsystem.other));
        let used = commands.flat_map(|command| {
            command.backends.numbers().chain(command.mirrors().iter().map(|target| target.backend))
        });
        let used: HashSet<u32> = used.collect();
        self.backends.iter().filter(move |backend| !backend.is_own && !used.contains(&backend.number))
    }

    /// The number of granted pairs of a department and a command. It is the number of series that the ledger may count.
    pub fn granted_series(&self) -> usize {
        self.grants.len()
    }

    /// The rule behind a grant of this snapshot, as it was written; `None` if the grant is of another snapshot.
    pub fn grant_origin(&self, grant: &super::Grant) -> Option<GrantOrigin<'_>> {
        self.grants.origin(grant)
    }

    /// The default limit of a request body: 1 MiB, as in nginx.
    pub const BODY_MAX_DEFAULT: u64 = 1024 * 1024;

    /// The most limiters of one kind. At this limit a new key is refused.
    pub const LIMITERS_MAX: NonZeroU32 = NonZeroU32::new(100_000).expect("not zero");
}

//! Compiles a draft, in which each part is valid by itself, into a [`PolicySnapshot`], in which the parts are
//! consistent.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{CallerId, Name, RateLimit};

use super::backend::Backend;
use super::grant::{GrantRule, GrantTable};
use super::policy_conflict::PolicyConflict;
use super::route::{ListenerRouting, RouteTable};
use super::snapshot::PolicySnapshot;
use super::subsystem::{DepartmentPolicy, Subsystem};
use super::usage_page::UsagePage;

/// The parts of a [`PolicySnapshot`] before the consistency checks. Made by `config`.
#[derive(Debug)]
pub struct SnapshotDraft {
    /// See [`PolicySnapshot::version`].
    pub version: String,
    /// See [`PolicySnapshot::total_rate`].
    pub total_rate: Option<RateLimit>,
    /// See [`PolicySnapshot::departments`].
    pub departments: Arc<[Arc<DepartmentPolicy>]>,
    /// The department that claims each identity.
    pub callers: Arc<HashMap<CallerId, Arc<DepartmentPolicy>>>,
    /// The department of the callers without a certificate, by listener.
    pub anonymous: Arc<HashMap<Name, Arc<DepartmentPolicy>>>,
    /// The listeners whose department also has the callers with a certificate that no department claims.
    pub unclaimed: Arc<HashSet<Name>>,
    /// See [`PolicySnapshot::forwards_certificates`].
    pub forwards_certificates: bool,
    /// The listeners with their virtual hosts.
    pub listeners: Vec<ListenerRouting>,
    /// See [`PolicySnapshot::subsystems`].
    pub subsystems: Vec<Arc<Subsystem>>,
    /// See [`PolicySnapshot::backends`].
    pub backends: Vec<Arc<Backend>>,
    /// See [`PolicySnapshot::usage_page`].
    pub usage_page: Option<UsagePage>,
    /// The grants, in the order of the document.
    pub grants: Vec<Arc<GrantRule>>,
}

impl SnapshotDraft {
    /// Compiles the snapshot. It shares with the snapshot `before` what is the same.
    ///
    /// # Errors
    /// Every pair of parts that conflict.
    pub fn compile(self, before: Option<&PolicySnapshot>) -> Result<PolicySnapshot, Vec<PolicyConflict>> {
        let mut conflicts = Vec::new();
        let subsystems: Arc<[Arc<Subsystem>]> = self.subsystems.into();
        let routes = before.map(|before| &*before.routes);
        let routes = RouteTable::compile_routes(&subsystems, &self.listeners, routes, &mut conflicts);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let ports = self.listeners.iter().filter_map(|one| Some((one.listener.clone(), one.public_port?)));
        let positions = self.backends.iter().enumerate().map(|(position, backend)| (backend.number, position));
        Ok(PolicySnapshot {
            version: self.version,
            total_rate: self.total_rate,
            departments: self.departments,
            subsystems,
            backend_positions: Arc::new(positions.collect()),
            backends: self.backends,
            callers: self.callers,
            anonymous: self.anonymous,
            unclaimed: self.unclaimed,
            public_ports: Arc::new(ports.collect()),
            forwards_certificates: self.forwards_certificates,
            usage_page: self.usage_page.map(Arc::new),
            routes: Arc::new(routes),
            grants: Arc::new(GrantTable::compile(self.grants, before.map(|before| &*before.grants))),
        })
    }
}

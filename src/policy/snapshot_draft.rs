//! Compiles a draft, in which each part is valid by itself, into a [`PolicySnapshot`], in which the parts are
//! consistent.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{CallerId, Name, RateLimit};

use super::backend::Backend;
use super::grant::{GrantDraft, GrantTable};
use super::policy_conflict::PolicyConflict;
use super::route::{ListenerRouting, RouteScope, RouteTable};
use super::snapshot::PolicySnapshot;
use super::subsystem::{DepartmentPolicy, Subsystem};

/// The parts of a [`PolicySnapshot`] before the consistency checks. Made by `config`.
#[derive(Debug)]
pub struct SnapshotDraft {
    /// See [`PolicySnapshot::version`].
    pub version: String,
    /// See [`PolicySnapshot::total_rate`].
    pub total_rate: Option<RateLimit>,
    /// See [`PolicySnapshot::departments`].
    pub departments: Vec<Arc<DepartmentPolicy>>,
    /// The department that claims each identity.
    pub callers: HashMap<CallerId, Arc<DepartmentPolicy>>,
    /// The department of the callers without a certificate, by listener.
    pub anonymous: HashMap<Name, Arc<DepartmentPolicy>>,
    /// The listeners whose department also has the callers with a certificate that no department claims.
    pub unclaimed: HashSet<Name>,
    /// See [`PolicySnapshot::forwards_certificates`].
    pub forwards_certificates: bool,
    /// The listeners with their virtual hosts.
    pub listeners: Vec<ListenerRouting>,
    /// The subsystems with the listeners and hosts by which they are called. Position and [`Subsystem::index`] are the
    /// same.
    pub subsystems: Vec<(Arc<Subsystem>, RouteScope)>,
    /// See [`PolicySnapshot::backends`]. Position and [`Backend::index`] are the same.
    pub backends: Vec<Arc<Backend>>,
    /// The grants.
    pub grants: Vec<GrantDraft>,
}

impl SnapshotDraft {
    /// Compiles the snapshot.
    ///
    /// # Errors
    /// Every pair of parts that conflict.
    pub fn compile(self) -> Result<PolicySnapshot, Vec<PolicyConflict>> {
        let mut conflicts = Vec::new();
        let routes = RouteTable::compile_routes(&self.subsystems, &self.listeners, &mut conflicts);
        let grants = self.compile_grants(&mut conflicts);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let ports = self.listeners.iter().filter_map(|one| Some((one.listener.clone(), one.public_port?)));
        Ok(PolicySnapshot {
            version: self.version,
            total_rate: self.total_rate,
            departments: self.departments.into(),
            subsystems: self.subsystems.into_iter().map(|(subsystem, _)| subsystem).collect(),
            backends: self.backends,
            callers: Arc::new(self.callers),
            anonymous: Arc::new(self.anonymous),
            unclaimed: Arc::new(self.unclaimed),
            public_ports: Arc::new(ports.collect()),
            forwards_certificates: self.forwards_certificates,
            routes: Arc::new(routes),
            grants: Arc::new(grants),
        })
    }

    fn compile_grants(&self, conflicts: &mut Vec<PolicyConflict>) -> GrantTable {
        let mut table = GrantTable::new(self.subsystems.iter().map(|(subsystem, _)| &**subsystem));
        for grant in &self.grants {
            let Some((subsystem, _)) = self.subsystems.get(grant.subsystem) else { continue };
            for (position, glob) in &grant.commands {
                if !table.add_grant(grant, glob, subsystem) {
                    conflicts.push(PolicyConflict::UnmatchedGlob { grant: grant.index, glob: *position });
                }
            }
        }
        table
    }
}

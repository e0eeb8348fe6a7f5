//! From a draft, in which every part is right by itself, to a [`Snapshot`], in which they fit together.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{CallerId, Rate};

use super::grant::{CommandGlob, GrantTable};
use super::route::RouteTable;
use super::snapshot::{DepartmentPolicy, Snapshot, Subsystem};

/// The parts of a [`Snapshot`] before they are fitted together. Made by `config`.
#[derive(Debug)]
pub struct Draft {
    /// See [`Snapshot::version`].
    pub version: String,
    /// See [`Snapshot::total`].
    pub total: Option<Rate>,
    /// See [`Snapshot::departments`].
    pub departments: Vec<Arc<DepartmentPolicy>>,
    /// Which department claims an identity.
    pub callers: HashMap<CallerId, Arc<DepartmentPolicy>>,
    /// The subsystems with their hosts, lower case; no hosts means any. Position and [`Subsystem::index`] are the same.
    pub subsystems: Vec<(Arc<Subsystem>, Vec<String>)>,
    /// The grants.
    pub grants: Vec<GrantDraft>,
}

/// A rule of `grants` whose names are resolved.
#[derive(Clone, Debug)]
pub struct GrantDraft {
    /// Its position in the document.
    pub index: usize,
    /// The department's number.
    pub department: u32,
    /// The subsystem's index.
    pub subsystem: usize,
    /// Which commands, each glob with its position in the document.
    pub commands: Vec<(usize, Arc<CommandGlob>)>,
}

/// Parts of a draft that do not fit together, by their positions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// Two subsystems claim the same host and path prefix.
    SamePlace {
        /// The later subsystem.
        subsystem: usize,
        /// The earlier one.
        with: usize,
        /// The host both claim, or none for any host.
        host: Option<String>,
    },
    /// Two commands answer to the same requests, or no rule could tell which is meant.
    SameRoute {
        /// Their subsystem.
        subsystem: usize,
        /// The later command.
        command: usize,
        /// The earlier one, where it is known.
        with: Option<usize>,
    },
    /// A glob that matches no command of its subsystem.
    IdleGlob {
        /// The grant's position in the document.
        grant: usize,
        /// The glob's position in the grant.
        glob: usize,
    },
}

impl Draft {
    /// Fits the parts together, or names every pair that does not fit.
    pub fn compile(self) -> Result<Snapshot, Vec<Misfit>> {
        let mut misfits = Vec::new();
        let routes = RouteTable::compile(&self.subsystems, &mut misfits);
        let grants = self.compile_grants(&mut misfits);
        if !misfits.is_empty() {
            return Err(misfits);
        }
        Ok(Snapshot {
            version: self.version,
            total: self.total,
            departments: self.departments,
            subsystems: self.subsystems.into_iter().map(|(subsystem, _)| subsystem).collect(),
            callers: self.callers,
            routes,
            grants,
        })
    }

    fn compile_grants(&self, misfits: &mut Vec<Misfit>) -> GrantTable {
        let mut table = GrantTable::new(self.subsystems.iter().map(|(subsystem, _)| &**subsystem));
        for grant in &self.grants {
            let Some((subsystem, _)) = self.subsystems.get(grant.subsystem) else { continue };
            for (position, glob) in &grant.commands {
                if !table.add(grant, glob, subsystem) {
                    misfits.push(Misfit::IdleGlob { grant: grant.index, glob: *position });
                }
            }
        }
        table
    }
}

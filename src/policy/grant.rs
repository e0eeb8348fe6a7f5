//! Who may run what: default deny.

use super::snapshot::{Command, DepartmentPolicy, GrantRule};

/// Evidence that a department may run a command, and which rule said so. Only this file makes it.
#[derive(Debug)]
pub struct Grant {
    rule: usize,
}

impl Grant {
    /// The position in `grants` of the rule that allowed it.
    pub fn rule(&self) -> usize {
        self.rule
    }
}

/// The compiled grants.
#[derive(Debug)]
pub(super) struct GrantTable {}

impl GrantTable {
    pub(super) fn find(&self, _department: &DepartmentPolicy, _command: &Command) -> Option<Grant> {
        todo!()
    }
}
#[allow(dead_code)]
type Unused = GrantRule;

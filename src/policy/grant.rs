//! Who may run what: default deny.
//!
//! Guarantees: a [`Grant`] exists only because a rule of the document names the department, the subsystem and a glob
//! that matches the command; only this file makes it. All rules allow, so the first that matches is as good as any.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use globset::{Glob, GlobMatcher};

use super::draft::GrantDraft;
use super::snapshot::{Command, DepartmentPolicy, GrantRule, Subsystem};

/// Evidence that a department may run a command, and which rule said so. Only this file makes it.
#[derive(Debug)]
pub struct Grant {
    rule: usize,
    pattern: usize,
}

impl Grant {
    /// The position in `grants` of the rule that allowed it.
    pub fn rule(&self) -> usize {
        self.rule
    }
}

/// A glob on command ids: `*` any text, `?` one character, `[ab]` one of these, `{a,b}` one of those.
#[derive(Clone, Debug)]
pub struct CommandGlob {
    text: String,
    matcher: GlobMatcher,
}

impl CommandGlob {
    /// Reads a glob, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern must not be empty; \"*\" means every command".to_owned());
        }
        match Glob::new(text) {
            Ok(glob) => Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() }),
            Err(error) => Err(format!("{text:?} is not a pattern: {}", error.kind())),
        }
    }

    /// The glob as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn matches(&self, command: &Command) -> bool {
        self.matcher.is_match(command.key.command.as_str())
    }
}

/// The compiled grants: one entry per department and command that a rule allows.
#[derive(Debug, Default)]
pub(super) struct GrantTable {
    /// (department number, command number) -> position in `rules`.
    allowed: HashMap<(u32, u32), usize, RandomState>,
    rules: Vec<GrantRule>,
}

impl GrantTable {
    /// Adds one glob of a grant; whether it matched any command.
    pub(super) fn add(&mut self, grant: &GrantDraft, glob: &CommandGlob, subsystem: &Subsystem) -> bool {
        let position = self.rules.len();
        self.rules.push(GrantRule { index: grant.index, pattern: glob.text.clone() });
        let mut matched = false;
        for command in subsystem.commands.iter().chain(&subsystem.other).filter(|command| glob.matches(command)) {
            self.allowed.entry((grant.department, command.key.number)).or_insert(position);
            matched = true;
        }
        matched
    }

    /// How many pairs of a department and a command are allowed.
    pub(super) fn len(&self) -> usize {
        self.allowed.len()
    }

    pub(super) fn find(&self, department: &DepartmentPolicy, command: &Command) -> Option<Grant> {
        let pattern = *self.allowed.get(&(department.department.number, command.key.number))?;
        Some(Grant { rule: self.rules[pattern].index, pattern })
    }

    pub(super) fn rule(&self, grant: &Grant) -> &GrantRule {
        &self.rules[grant.pattern]
    }
}

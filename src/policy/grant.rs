//! Authorisation: the commands that each department may run. The default is to deny.
//!
//! Guarantees:
//! - A [`Grant`] exists only because a rule of the document names the department, the subsystem and a glob that matches
//!   the command. Only this file makes it.
//! - All rules allow, so the first matching rule decides as well as any other.
//!
//! Requires: the command belongs to the snapshot that is asked, because its index does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use globset::{Glob, GlobMatcher};

use crate::model::TrafficLimits;

use super::subsystem::{Command, DepartmentPolicy, GrantRule, Subsystem};

/// Evidence that a department may run a command, with the rule that allows it. Only this file makes it.
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

/// A glob on command ids: `*` matches any text, `?` one character, `[ab]` one of these characters, `{a,b}` one of these
/// texts.
#[derive(Clone, Debug)]
pub struct CommandGlob {
    text: String,
    matcher: GlobMatcher,
}

impl CommandGlob {
    /// Reads a glob.
    ///
    /// # Errors
    /// The fault in the text.
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

    /// Whether it matches the id of a command.
    pub fn matches_id(&self, command: &str) -> bool {
        self.matcher.is_match(command)
    }

    fn matches(&self, command: &Command) -> bool {
        self.matches_id(command.key.command.as_str())
    }
}

/// The compiled grants. Their size is proportional to the number of grants, not to the number of commands they allow: a
/// province has 30,000 departments, and each may run all commands of some subsystems.
#[derive(Debug, Default)]
pub(crate) struct GrantTable {
    /// The allowed commands by department number and subsystem index, in the order of the rules.
    allowed: HashMap<(u32, usize), Vec<AllowedCommands>, RandomState>,
    /// The subsystem of each command, by [`Command::index`].
    subsystems: Vec<usize>,
    /// The number of each command, by [`Command::index`].
    numbers: Vec<u32>,
    /// The commands that each glob matches in each subsystem, computed once.
    matches_by_glob: HashMap<(usize, String), Arc<[usize]>>,
    rules: Vec<GrantRule>,
    /// The limits of grants with limits: by department number and command number.
    limits: HashMap<(u32, u32), TrafficLimits, RandomState>,
}

/// One glob of one grant.
#[derive(Debug)]
struct AllowedCommands {
    /// Its position in `rules`.
    rule: usize,
    /// The indexes of the commands it matches, ascending.
    commands: Arc<[usize]>,
}

impl GrantTable {
    /// An empty table for the commands of these subsystems.
    pub(crate) fn new<'s>(subsystems: impl Iterator<Item = &'s Subsystem>) -> Self {
        let (mut known, mut numbers) = (Vec::new(), Vec::new());
        for subsystem in subsystems {
            for command in subsystem.commands.iter().chain(&subsystem.other) {
                known.resize(known.len().max(command.index + 1), usize::MAX);
                numbers.resize(known.len(), u32::MAX);
                known[command.index] = subsystem.index;
                numbers[command.index] = command.key.number;
            }
        }
        Self { subsystems: known, numbers, ..Self::default() }
    }

    /// Adds one glob of a grant. Returns whether it matches any command.
    pub(crate) fn add_grant(&mut self, grant: &GrantDraft, glob: &CommandGlob, subsystem: &Subsystem) -> bool {
        let rule = self.rules.len();
        let pattern = glob.text.clone();
        self.rules.push(GrantRule { index: grant.index, pattern, has_limits: grant.limits.is_some() });
        let commands = self.matching_commands(glob, subsystem);
        let matched = !commands.is_empty();
        if let Some(limits) = grant.limits {
            for command in commands.iter() {
                self.limits.entry((grant.department, self.numbers[*command])).or_insert(limits);
            }
        }
        if matched {
            self.allowed
                .entry((grant.department, subsystem.index))
                .or_default()
                .push(AllowedCommands { rule, commands });
        }
        matched
    }

    fn matching_commands(&mut self, glob: &CommandGlob, subsystem: &Subsystem) -> Arc<[usize]> {
        let found = self.matches_by_glob.entry((subsystem.index, glob.text.clone())).or_insert_with(|| {
            let commands = subsystem.commands.iter().chain(&subsystem.other).filter(|command| glob.matches(command));
            let mut indexes: Vec<usize> = commands.map(|command| command.index).collect();
            indexes.sort_unstable();
            indexes.into()
        });
        Arc::clone(found)
    }

    /// The number of allowed pairs of a department and a command.
    pub(crate) fn len(&self) -> usize {
        self.allowed_pairs().len()
    }

    pub(crate) fn find_grant(&self, department: &DepartmentPolicy, command: &Command) -> Option<Grant> {
        let subsystem = *self.subsystems.get(command.index)?;
        let allowed = self.allowed.get(&(department.department.number, subsystem))?;
        let first = allowed.iter().find(|allowed| allowed.commands.binary_search(&command.index).is_ok())?;
        Some(Grant { rule: self.rules[first.rule].index, pattern: first.rule })
    }

    /// The allowed pairs: (department number, command number).
    pub(crate) fn allowed_pairs(&self) -> HashSet<(u32, u32), RandomState> {
        let mut pairs = HashSet::default();
        for ((department, _), allowed) in &self.allowed {
            let commands = allowed.iter().flat_map(|allowed| allowed.commands.iter());
            pairs.extend(commands.map(|command| (*department, self.numbers[*command])));
        }
        pairs
    }

    /// The limits of a department on a command that a grant sets, by their numbers; `None` for the command's own.
    pub(crate) fn limits_of(&self, department: u32, command: u32) -> Option<TrafficLimits> {
        self.limits.get(&(department, command)).copied()
    }

    /// The pairs of a department and a command, by number, whose limits a grant sets.
    pub(crate) fn limited_pairs(&self) -> impl Iterator<Item = ((u32, u32), TrafficLimits)> {
        self.limits.iter().map(|(pair, limits)| (*pair, *limits))
    }

    /// The rules that allow nothing beyond the rules before them, and set no limits.
    pub(crate) fn unused_rules(&self) -> impl Iterator<Item = &GrantRule> {
        let mut effective: HashSet<usize> = HashSet::new();
        for allowed in self.allowed.values() {
            let mut seen: HashSet<usize> = HashSet::new();
            for AllowedCommands { rule, commands } in allowed {
                let news = commands.iter().filter(|command| seen.insert(**command)).count();
                if news > 0 {
                    effective.insert(*rule);
                }
            }
        }
        let rules = self.rules.iter().enumerate();
        rules.filter_map(move |(position, rule)| (!effective.contains(&position) && !rule.has_limits).then_some(rule))
    }

    /// The departments, by number, that may run at least one command.
    pub(crate) fn departments(&self) -> HashSet<u32> {
        self.allowed.keys().map(|(department, _)| *department).collect()
    }

    pub(crate) fn rule(&self, grant: &Grant) -> &GrantRule {
        &self.rules[grant.pattern]
    }
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
    /// The globs for the commands, each with its position in the document.
    pub commands: Vec<(usize, Arc<CommandGlob>)>,
    /// The limits of the department on each of the commands; `None` for those of the command.
    pub limits: Option<TrafficLimits>,
}

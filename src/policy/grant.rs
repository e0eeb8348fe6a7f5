//! Authorisation: the commands that each department may run. The default is to deny.
//!
//! Guarantees:
//! - A [`Grant`] exists only because a rule of the document names the department, the subsystem and a glob that matches
//!   the command. Only this file makes it. The usage page is the exception:
//!   each department may read its own.
//! - All rules allow, so the first matching rule decides as well as any other.
//! - A table shares the rules of the table before it that are the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use globset::{Glob, GlobMatcher};

use crate::model::TrafficLimits;

use super::shared_list::ListChanges;
use super::subsystem::{Command, DepartmentPolicy, Subsystem};

/// Evidence that a department may run a command, with the rule that allows it. Only this file makes it.
#[derive(Debug)]
pub struct Grant {
    pair: GrantedPair,
    /// The position among the rules of the pair.
    rule: usize,
    /// The position of the glob in the rule.
    glob: usize,
}

impl Grant {
    /// The permission of a department to read its own usage, which no rule gives.
    pub(crate) fn of_own_page(department: &DepartmentPolicy, command: &Command) -> Self {
        Self { pair: (department.department.number, command.subsystem), rule: 0, glob: 0 }
    }
}

/// The rule behind a grant as written, for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantOrigin<'a> {
    /// The position of the rule in `grants`.
    pub index: usize,
    /// The glob that matched.
    pub pattern: &'a str,
}

/// The numbers of a department and a subsystem.
type GrantedPair = (u32, u32);

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

/// A rule of `grants`: what one department may run in one subsystem.
#[derive(Debug)]
pub struct GrantRule {
    pair: GrantedPair,
    globs: Vec<GrantedGlob>,
    /// The limits of the department on each of the commands; `None` for those of the command.
    limits: Option<TrafficLimits>,
}

/// The commands of a subsystem that a glob matches.
#[derive(Clone, Debug)]
struct GrantedGlob {
    glob: Arc<CommandGlob>,
    /// The numbers of the commands, ascending.
    commands: Arc<[u32]>,
}

/// The commands that each glob matches in each subsystem, computed once: a province has 30,000 departments, and each
/// may run the same commands of some subsystems.
#[derive(Debug, Default)]
pub struct GlobMatches(HashMap<(u32, String), Arc<[u32]>>);

impl GlobMatches {
    fn commands(&mut self, glob: &CommandGlob, subsystem: &Subsystem) -> Arc<[u32]> {
        let found = self.0.entry((subsystem.number(), glob.text.clone())).or_insert_with(|| {
            let commands = subsystem.commands.iter().chain(&subsystem.other).filter(|command| glob.matches(command));
            let mut numbers: Vec<u32> = commands.map(|command| command.key.number).collect();
            numbers.sort_unstable();
            numbers.into()
        });
        Arc::clone(found)
    }
}

impl GrantRule {
    /// Compiles a rule for the department with this number.
    pub fn compile(
        (department, subsystem): (u32, &Subsystem),
        (globs, limits): (&[Arc<CommandGlob>], Option<TrafficLimits>),
        matches: &mut GlobMatches,
    ) -> Self {
        let mut granted = |glob: &Arc<CommandGlob>| GrantedGlob {
            glob: Arc::clone(glob),
            commands: matches.commands(glob, subsystem),
        };
        let globs = globs.iter().map(&mut granted).collect();
        Self { pair: (department, subsystem.number()), globs, limits }
    }

    /// The positions of the globs that match no command.
    pub fn unmatched(&self) -> impl Iterator<Item = usize> {
        self.globs.iter().enumerate().filter(|(_, glob)| glob.commands.is_empty()).map(|(position, _)| position)
    }

    /// The numbers of all commands it allows; some perhaps more than once.
    fn commands(&self) -> impl Iterator<Item = u32> {
        self.globs.iter().flat_map(|glob| glob.commands.iter().copied())
    }
}

/// The compiled grants. Their size is proportional to the number of grants, not to the number of commands they allow.
#[derive(Debug, Default)]
pub(crate) struct GrantTable {
    /// All rules, in the order of the document.
    rules: Vec<Arc<GrantRule>>,
    /// The rules of each department and subsystem, in the order of the document.
    allowed: AllowedRules,
    /// The limits of grants with limits: by department number and command number.
    limits: Arc<HashMap<(u32, u32), TrafficLimits, RandomState>>,
}

type AllowedRules = HashMap<GrantedPair, Arc<[Arc<GrantRule>]>, RandomState>;

impl GrantTable {
    /// Compiles the table of these rules. It shares with the table `before` what is the same.
    pub(crate) fn compile(rules: Vec<Arc<GrantRule>>, before: Option<&Self>) -> Self {
        let mut allowed = before.map(|before| before.allowed.clone()).unwrap_or_default();
        let known = before.map(|before| &before.rules[..]).unwrap_or_default();
        let changes = ListChanges::between(known, &rules);
        for (pair, rules) in changed_pairs(&changes, &allowed, &rules) {
            match rules.is_empty() {
                true => drop(allowed.remove(&pair)),
                false => drop(allowed.insert(pair, rules.into())),
            }
        }
        let limits = match before.filter(|_| changes.all().all(|rule| rule.limits.is_none())) {
            Some(before) => Arc::clone(&before.limits),
            None => Arc::new(limits_of_rules(&rules)),
        };
        Self { rules, allowed, limits }
    }

    /// The number of allowed pairs of a department and a command.
    pub(crate) fn len(&self) -> usize {
        self.pairs_beside(&Self::default()).len()
    }

    pub(crate) fn find_grant(&self, department: &DepartmentPolicy, command: &Command) -> Option<Grant> {
        let pair = (department.department.number, command.subsystem);
        let number = command.key.number;
        self.allowed.get(&pair)?.iter().enumerate().find_map(|(rule, granted)| {
            let glob = granted.globs.iter().position(|glob| glob.commands.binary_search(&number).is_ok())?;
            Some(Grant { pair, rule, glob })
        })
    }

    /// The allowed pairs (department number, command number) of the rules that `other` does not share.
    pub(crate) fn pairs_beside(&self, other: &Self) -> HashSet<(u32, u32), RandomState> {
        let is_shared = |pair: &GrantedPair, rules: &Arc<[Arc<GrantRule>]>| {
            other.allowed.get(pair).is_some_and(|same| Arc::ptr_eq(same, rules))
        };
        let mut pairs = HashSet::default();
        for (pair, rules) in self.allowed.iter().filter(|(pair, rules)| !is_shared(pair, rules)) {
            pairs.extend(rules.iter().flat_map(|rule| rule.commands()).map(|command| (pair.0, command)));
        }
        pairs
    }

    /// The limits of a department on a command that a grant sets, by their numbers; `None` for the command's own.
    pub(crate) fn limits_of(&self, department: u32, command: u32) -> Option<TrafficLimits> {
        self.limits.get(&(department, command)).copied()
    }

    /// The rules that allow nothing beyond the rules before them, and set no limits.
    pub(crate) fn unused_rules(&self) -> Vec<GrantOrigin<'_>> {
        let mut seen: HashSet<(u32, u32)> = HashSet::new();
        let mut unused = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for GrantedGlob { glob, commands } in &rule.globs {
                let news = commands.iter().filter(|command| seen.insert((rule.pair.0, **command))).count();
                if news == 0 && rule.limits.is_none() {
                    unused.push(GrantOrigin { index, pattern: &glob.text });
                }
            }
        }
        unused
    }

    /// The departments, by number, that may run at least one command.
    pub(crate) fn departments(&self) -> HashSet<u32> {
        let allowing = self.rules.iter().filter(|rule| rule.commands().next().is_some());
        allowing.map(|rule| rule.pair.0).collect()
    }

    /// The rule behind a grant of this table.
    pub(crate) fn origin(&self, grant: &Grant) -> Option<GrantOrigin<'_>> {
        let rule = self.allowed.get(&grant.pair)?.get(grant.rule)?;
        let index = self.rules.iter().position(|one| Arc::ptr_eq(one, rule))?;
        Some(GrantOrigin { index, pattern: &rule.globs.get(grant.glob)?.glob.text })
    }
}

/// The pairs with other rules than `before`, each with its rules in the order of the document. Only if a pair keeps a
/// rule are all rules looked at.
fn changed_pairs(
    changes: &ListChanges<'_, GrantRule>,
    before: &AllowedRules,
    rules: &[Arc<GrantRule>],
) -> HashMap<GrantedPair, Vec<Arc<GrantRule>>, RandomState> {
    let mut pairs: HashMap<GrantedPair, Vec<Arc<GrantRule>>, RandomState> =
        changes.removed.iter().map(|rule| (rule.pair, Vec::new())).collect();
    for rule in &changes.added {
        pairs.entry(rule.pair).or_default().push(Arc::clone(rule));
    }
    let removed: HashSet<*const GrantRule, RandomState> =
        changes.removed.iter().map(|rule| Arc::as_ptr(rule)).collect();
    let keeps_any = |pair: &GrantedPair| {
        before.get(pair).is_some_and(|rules| rules.iter().any(|rule| !removed.contains(&Arc::as_ptr(rule))))
    };
    if pairs.keys().any(keeps_any) {
        pairs.values_mut().for_each(Vec::clear);
        for rule in rules {
            pairs.entry(rule.pair).and_modify(|rules| rules.push(Arc::clone(rule)));
        }
    }
    pairs
}

/// The limits that rules set. The first rule that limits a command decides.
fn limits_of_rules(rules: &[Arc<GrantRule>]) -> HashMap<(u32, u32), TrafficLimits, RandomState> {
    let mut all = HashMap::default();
    for (rule, limits) in rules.iter().filter_map(|rule| Some((rule, rule.limits?))) {
        for command in rule.commands() {
            all.entry((rule.pair.0, command)).or_insert(limits);
        }
    }
    all
}

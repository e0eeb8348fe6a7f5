//! Compiles `grants`: the commands that departments may run.
//!
//! Names are looked up in maps and each glob is parsed once, so the time is proportional to the number of grants.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::document::GrantDocument;
use crate::policy::{CommandGlob, DepartmentPolicy, GlobMatches, GrantRule, Subsystem};

use super::compile_context::{PartList, PartSearch};
use super::doc_path::DocPath;
use super::limits::compile_limits;
use super::subsystems::CompiledSubsystems;

/// A compiled grant, with what it depends on beside its document.
#[derive(Clone, Debug)]
pub(crate) struct GrantPart {
    /// The number of its department.
    department: u32,
    /// Its subsystem.
    subsystem: Arc<Subsystem>,
    rule: Arc<GrantRule>,
}

impl GrantPart {
    pub(crate) fn rule(&self) -> &Arc<GrantRule> {
        &self.rule
    }

    /// Whether its names still mean the same department and the same subsystem.
    fn is_current(&self, known: &KnownNames<'_>) -> bool {
        let subsystem = known.compiled.with_number(self.subsystem.number());
        known.numbers.contains(&self.department) && subsystem.is_some_and(|one| Arc::ptr_eq(one, &self.subsystem))
    }
}

/// The names that grants may refer to, and the globs parsed so far.
pub(crate) struct KnownNames<'a> {
    departments: &'a [Arc<DepartmentPolicy>],
    /// The numbers of the departments.
    numbers: HashSet<u32, RandomState>,
    compiled: &'a CompiledSubsystems,
    department_ids: OnceCell<HashMap<&'a str, u32, RandomState>>,
    subsystem_ids: OnceCell<HashMap<&'a str, &'a Arc<Subsystem>, RandomState>>,
    globs: RefCell<HashMap<String, Result<Arc<CommandGlob>, String>>>,
}

impl<'a> KnownNames<'a> {
    pub(crate) fn new(departments: &'a [Arc<DepartmentPolicy>], compiled: &'a CompiledSubsystems) -> Self {
        Self {
            departments,
            numbers: departments.iter().map(|policy| policy.department.number).collect(),
            compiled,
            department_ids: OnceCell::new(),
            subsystem_ids: OnceCell::new(),
            globs: RefCell::default(),
        }
    }

    /// The number of each department. Of a duplicate id the first counts; the second has already been recorded as a
    /// problem.
    fn department_ids(&self) -> &HashMap<&'a str, u32, RandomState> {
        let department = |policy: &'a Arc<DepartmentPolicy>| (policy.department.id.as_str(), policy.department.number);
        self.department_ids.get_or_init(|| self.departments.iter().rev().map(department).collect())
    }

    /// The subsystem of each id, the first one of a duplicate id.
    fn subsystem_ids(&self) -> &HashMap<&'a str, &'a Arc<Subsystem>, RandomState> {
        let subsystem = |subsystem: &'a Arc<Subsystem>| (subsystem.id.as_str(), subsystem);
        self.subsystem_ids.get_or_init(|| self.compiled.all.iter().rev().map(subsystem).collect())
    }

    fn parse_glob(&self, text: &str) -> Result<Arc<CommandGlob>, String> {
        let mut globs = self.globs.borrow_mut();
        if let Some(glob) = globs.get(text) {
            return glob.clone();
        }
        let glob = CommandGlob::parse(text).map(Arc::new);
        globs.insert(text.to_owned(), glob.clone());
        glob
    }
}

/// Compiles the grants. Those of `before` that are current are used again.
pub(crate) fn compile_grants(
    grants: &[Arc<GrantDocument>],
    before: Option<&PartList<GrantDocument, GrantPart>>,
    known: &KnownNames<'_>,
    place: &DocPath<'_>,
) -> PartList<GrantDocument, GrantPart> {
    let (mut search, mut matches) = (PartSearch::new(before), GlobMatches::default());
    let mut compiled = PartList::with_capacity(grants.len());
    for (index, grant) in grants.iter().enumerate() {
        let part = match search.find(grant).filter(|part| part.is_current(known)) {
            Some(part) => Some(part.clone()),
            None => compile_grant(grant, (known, &mut matches), &place.item(index)),
        };
        if let Some(part) = part {
            compiled.push(grant, part);
        }
    }
    compiled
}

fn compile_grant(
    grant: &GrantDocument,
    (known, matches): (&KnownNames<'_>, &mut GlobMatches),
    place: &DocPath<'_>,
) -> Option<GrantPart> {
    if grant.commands.is_empty() {
        place.key("commands").problem("an empty list grants nothing; \"*\" grants every command");
    }
    let department = resolve_id("department", &grant.department, known.department_ids(), place);
    let subsystem = resolve_id("subsystem", &grant.subsystem, known.subsystem_ids(), place);
    let globs = compile_globs(grant, known, &place.key("commands"));
    let limits = grant.limits.as_ref().map(|limits| compile_limits(Some(limits), &place.key("limits")));
    let (department, subsystem) = (department?, subsystem?);
    let (positions, globs): (Vec<usize>, Vec<Arc<CommandGlob>>) = globs.into_iter().unzip();
    let rule = GrantRule::compile((department, subsystem), (&globs, limits), matches);
    for unmatched in rule.unmatched() {
        let message = format!("{:?} matches no command of {}", globs[unmatched].as_str(), grant.subsystem);
        place.key("commands").item(positions[unmatched]).problem(message);
    }
    Some(GrantPart { department, subsystem: Arc::clone(subsystem), rule: Arc::new(rule) })
}

/// Resolves an id, or records a problem.
fn resolve_id<T: Copy>(
    what: &str,
    written: &str,
    known: &HashMap<&str, T, RandomState>,
    place: &DocPath<'_>,
) -> Option<T> {
    let found = known.get(written).copied();
    if found.is_none() {
        report_unknown(what, written, known.keys().copied(), &place.key(what));
    }
    found
}

fn report_unknown<'k>(what: &str, written: &str, known: impl Iterator<Item = &'k str>, place: &DocPath<'_>) {
    let message = format!("there is no {what} {written:?}");
    let known = known.filter(|_| place.may_compare());
    match known.min_by_key(|known| (strsim::damerau_levenshtein(known, written), *known)) {
        Some(near) if strsim::damerau_levenshtein(near, written) * 3 <= written.len().max(3) => {
            place.problem_with_hint(message, format!("did you mean {near:?}?"));
        }
        _ => place.problem(message),
    }
}

fn compile_globs(grant: &GrantDocument, known: &KnownNames<'_>, place: &DocPath<'_>) -> Vec<(usize, Arc<CommandGlob>)> {
    let read =
        |(index, text): (usize, &String)| Some((index, place.item(index).value_or_problem(known.parse_glob(text))?));
    grant.commands.iter().enumerate().filter_map(read).collect()
}

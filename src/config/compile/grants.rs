//! Compiles `grants`: the commands that departments may run.
//!
//! Names are looked up in maps and each glob is parsed once, so the time is proportional to the number of grants.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::document::GrantDocument;
use crate::model::NameInterner;
use crate::policy::{CommandGlob, GlobMatches, GrantRule, Subsystem};

use super::commands::subsystem_key;
use super::compile_context::PartList;
use super::departments::KnownDepartments;
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
        (known.departments.are_as_before || known.numbers.contains(&self.department))
            && !known.compiled.gone.contains(&Arc::as_ptr(&self.subsystem))
    }
}

/// The names that grants may refer to, and the globs parsed so far.
pub(crate) struct KnownNames<'a> {
    interner: &'a NameInterner,
    departments: KnownDepartments<'a>,
    /// The numbers of the departments.
    numbers: HashSet<u32, RandomState>,
    compiled: &'a CompiledSubsystems,
    globs: RefCell<HashMap<String, Result<Arc<CommandGlob>, String>>>,
}

impl<'a> KnownNames<'a> {
    pub(crate) fn new(
        interner: &'a NameInterner,
        departments: KnownDepartments<'a>,
        compiled: &'a CompiledSubsystems,
    ) -> Self {
        let numbers = departments.all.iter().map(|policy| policy.department.number).collect();
        Self { interner, departments, numbers, compiled, globs: RefCell::default() }
    }

    /// The number of the department with this id.
    fn department(&self, id: &str) -> Option<u32> {
        self.interner.find(&NameInterner::department_key(id)).filter(|number| self.numbers.contains(number))
    }

    /// The subsystem with this id. Of a duplicate id the first counts; the second has already been recorded as a
    /// problem.
    fn subsystem(&self, id: &str) -> Option<&'a Arc<Subsystem>> {
        self.compiled.with_number(self.interner.find(&subsystem_key(id))?)
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
    let mut matches = GlobMatches::default();
    let is_current = |part: &GrantPart| part.is_current(known);
    let compile =
        |index: usize, grant: &Arc<GrantDocument>| compile_grant(grant, (known, &mut matches), &place.item(index));
    PartList::renewed(grants, before, is_current, compile).list
}

fn compile_grant(
    grant: &GrantDocument,
    (known, matches): (&KnownNames<'_>, &mut GlobMatches),
    place: &DocPath<'_>,
) -> Option<GrantPart> {
    if grant.commands.is_empty() {
        place.key("commands").problem("an empty list grants nothing; \"*\" grants every command");
    }
    let department = known.department(&grant.department);
    if department.is_none() {
        let ids = known.departments.all.iter().map(|policy| policy.department.id.as_str());
        report_unknown("department", &grant.department, ids, place);
    }
    let subsystem = known.subsystem(&grant.subsystem);
    if subsystem.is_none() {
        let ids = known.compiled.all.iter().map(|subsystem| subsystem.id.as_str());
        report_unknown("subsystem", &grant.subsystem, ids, place);
    }
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

/// Records that there is no such id.
fn report_unknown<'k>(what: &str, written: &str, known: impl Iterator<Item = &'k str>, place: &DocPath<'_>) {
    let (place, message) = (place.key(what), format!("there is no {what} {written:?}"));
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

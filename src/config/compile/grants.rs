//! Compiles `grants`: the commands that departments may run.
//!
//! Names are looked up in maps and each glob is parsed once, so the time is proportional to the number of grants.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::document::GrantDocument;
use crate::policy::{CommandGlob, DepartmentPolicy, GrantDraft, RouteScope, Subsystem};

use super::doc_path::DocPath;
use super::limits::compile_limits;

/// The names that grants may refer to, and the globs parsed so far.
#[derive(Debug)]
pub(crate) struct KnownNames<'a> {
    departments: HashMap<&'a str, u32>,
    subsystems: HashMap<&'a str, usize>,
    globs: RefCell<HashMap<String, Result<Arc<CommandGlob>, String>>>,
}

impl<'a> KnownNames<'a> {
    /// Builds the maps. Of a duplicate id the first counts; the second has already been recorded as a problem.
    pub(crate) fn new(
        departments: &'a [Arc<DepartmentPolicy>],
        subsystems: &'a [(Arc<Subsystem>, RouteScope)],
    ) -> Self {
        let department = |policy: &'a Arc<DepartmentPolicy>| (policy.department.id.as_str(), policy.department.number);
        let subsystem = |(subsystem, _): &'a (Arc<Subsystem>, RouteScope)| (subsystem.id.as_str(), subsystem.index);
        Self {
            departments: departments.iter().rev().map(department).collect(),
            subsystems: subsystems.iter().rev().map(subsystem).collect(),
            globs: RefCell::default(),
        }
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

pub(crate) fn compile_grants(
    grants: &[Arc<GrantDocument>],
    known: &KnownNames<'_>,
    place: &DocPath<'_>,
) -> Vec<GrantDraft> {
    grants
        .iter()
        .enumerate()
        .filter_map(|(index, grant)| compile_grant(grant, index, known, &place.item(index)))
        .collect()
}

fn compile_grant(
    grant: &GrantDocument,
    index: usize,
    known: &KnownNames<'_>,
    place: &DocPath<'_>,
) -> Option<GrantDraft> {
    if grant.commands.is_empty() {
        place.key("commands").problem("an empty list grants nothing; \"*\" grants every command");
    }
    let department = resolve_id("department", &grant.department, &known.departments, place);
    let subsystem = resolve_id("subsystem", &grant.subsystem, &known.subsystems, place);
    let commands = compile_globs(grant, known, &place.key("commands"));
    let limits = grant.limits.as_ref().map(|limits| compile_limits(Some(limits), &place.key("limits")));
    Some(GrantDraft { index, department: department?, subsystem: subsystem?, commands, limits })
}

/// Resolves an id, or records a problem.
fn resolve_id<T: Copy>(what: &str, written: &str, known: &HashMap<&str, T>, place: &DocPath<'_>) -> Option<T> {
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

//! `grants`: who may run what. Names are found in maps and each glob is read once, so that the time is in proportion to the
//! number of grants.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::config::document::Grant;
use crate::policy::{CommandGlob, DepartmentPolicy, GrantDraft, Subsystem};

use super::place::Place;

/// The names that grants may use, and the globs that were read.
#[derive(Debug)]
pub(super) struct Known<'a> {
    departments: HashMap<&'a str, u32>,
    subsystems: HashMap<&'a str, usize>,
    globs: RefCell<HashMap<String, Result<Arc<CommandGlob>, String>>>,
}

impl<'a> Known<'a> {
    /// Of ids that stand twice, the first counts; the second is a problem already.
    pub(super) fn new(
        departments: &'a [Arc<DepartmentPolicy>],
        subsystems: &'a [(Arc<Subsystem>, Vec<String>)],
    ) -> Self {
        let department = |policy: &'a Arc<DepartmentPolicy>| (policy.department.id.as_str(), policy.department.number);
        let subsystem = |(subsystem, _): &'a (Arc<Subsystem>, Vec<String>)| (subsystem.id.as_str(), subsystem.index);
        Self {
            departments: departments.iter().rev().map(department).collect(),
            subsystems: subsystems.iter().rev().map(subsystem).collect(),
            globs: RefCell::default(),
        }
    }

    fn glob(&self, text: &str) -> Result<Arc<CommandGlob>, String> {
        let mut globs = self.globs.borrow_mut();
        if let Some(glob) = globs.get(text) {
            return glob.clone();
        }
        let glob = CommandGlob::parse(text).map(Arc::new);
        globs.insert(text.to_owned(), glob.clone());
        glob
    }
}

pub(super) fn compile(grants: &[Arc<Grant>], known: &Known<'_>, place: &Place<'_>) -> Vec<GrantDraft> {
    grants.iter().enumerate().filter_map(|(index, grant)| one(grant, index, known, &place.item(index))).collect()
}

fn one(grant: &Grant, index: usize, known: &Known<'_>, place: &Place<'_>) -> Option<GrantDraft> {
    if grant.commands.is_empty() {
        place.key("commands").problem("an empty list grants nothing; \"*\" grants every command");
    }
    let department = named("department", &grant.department, &known.departments, place);
    let subsystem = named("subsystem", &grant.subsystem, &known.subsystems, place);
    let commands = globs(grant, known, &place.key("commands"));
    Some(GrantDraft { index, department: department?, subsystem: subsystem?, commands })
}

/// What an id stands for.
fn named<T: Copy>(what: &str, written: &str, known: &HashMap<&str, T>, place: &Place<'_>) -> Option<T> {
    let found = known.get(written).copied();
    if found.is_none() {
        unknown(what, written, known.keys().copied(), &place.key(what));
    }
    found
}

fn unknown<'k>(what: &str, written: &str, known: impl Iterator<Item = &'k str>, place: &Place<'_>) {
    let message = format!("there is no {what} {written:?}");
    let known = known.filter(|_| place.may_compare());
    match known.min_by_key(|known| (strsim::damerau_levenshtein(known, written), *known)) {
        Some(near) if strsim::damerau_levenshtein(near, written) * 3 <= written.len().max(3) => {
            place.problem_with_hint(message, format!("did you mean {near:?}?"));
        }
        _ => place.problem(message),
    }
}

fn globs(grant: &Grant, known: &Known<'_>, place: &Place<'_>) -> Vec<(usize, Arc<CommandGlob>)> {
    let read = |(index, text): (usize, &String)| Some((index, place.item(index).read(known.glob(text))?));
    grant.commands.iter().enumerate().filter_map(read).collect()
}

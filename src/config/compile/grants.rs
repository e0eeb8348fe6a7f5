//! `grants`: who may run what.

use std::sync::Arc;

use crate::config::document::Grant;
use crate::policy::{CommandGlob, DepartmentPolicy, GrantDraft, Subsystem};

use super::place::Place;

/// The names that grants may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) departments: &'a [Arc<DepartmentPolicy>],
    pub(super) subsystems: &'a [(Arc<Subsystem>, Vec<String>)],
}

pub(super) fn compile(grants: &[Grant], known: Known<'_>, place: &Place<'_>) -> Vec<GrantDraft> {
    grants.iter().enumerate().filter_map(|(index, grant)| one(grant, index, known, &place.item(index))).collect()
}

fn one(grant: &Grant, index: usize, known: Known<'_>, place: &Place<'_>) -> Option<GrantDraft> {
    if grant.commands.is_empty() {
        place.key("commands").problem("an empty list grants nothing; \"*\" grants every command");
    }
    let department = department(grant, known, &place.key("department"));
    let subsystem = subsystem(grant, known, &place.key("subsystem"));
    let commands = globs(grant, &place.key("commands"));
    Some(GrantDraft { index, department: department?, subsystem: subsystem?, commands })
}

fn department(grant: &Grant, known: Known<'_>, place: &Place<'_>) -> Option<u32> {
    let found = known.departments.iter().find(|policy| policy.department.id.as_str() == grant.department);
    if found.is_none() {
        let ids = known.departments.iter().map(|policy| policy.department.id.as_str());
        unknown("department", &grant.department, ids.collect(), place);
    }
    found.map(|policy| policy.department.number)
}

fn subsystem(grant: &Grant, known: Known<'_>, place: &Place<'_>) -> Option<usize> {
    let found = known.subsystems.iter().find(|(subsystem, _)| subsystem.id.as_str() == grant.subsystem);
    if found.is_none() {
        let ids = known.subsystems.iter().map(|(subsystem, _)| subsystem.id.as_str());
        unknown("subsystem", &grant.subsystem, ids.collect(), place);
    }
    found.map(|(subsystem, _)| subsystem.index)
}

fn unknown(what: &str, written: &str, known: Vec<&str>, place: &Place<'_>) {
    let message = format!("there is no {what} {written:?}");
    match known.into_iter().min_by_key(|known| strsim::damerau_levenshtein(known, written)) {
        Some(near) if strsim::damerau_levenshtein(near, written) * 3 <= written.len().max(3) => {
            place.problem_with_hint(message, format!("did you mean {near:?}?"));
        }
        _ => place.problem(message),
    }
}

fn globs(grant: &Grant, place: &Place<'_>) -> Vec<(usize, CommandGlob)> {
    let read = |(index, text): (usize, &String)| Some((index, place.item(index).read(CommandGlob::parse(text))?));
    grant.commands.iter().enumerate().filter_map(read).collect()
}

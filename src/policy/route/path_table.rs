//! The commands below one path prefix: from path, method and conditions to a command.
//!
//! Guarantees:
//! - Commands with templates and methods only are found by one walk in a radix tree (matchit), for each method one.
//! - With other conditions, candidates come in the order of their precedence, and the first that accepts the request is
//!   taken: exact path, template with the most literal segments from the left, longest prefix, regular expression; at
//!   one path a named method, more header conditions, more query conditions, the order of the document.
//! - Exact paths and prefixes are found by hash, however many there are. Only regular expressions are tried in turn.
//!
//! Leaves to others: hosts and the prefixes of subsystems (`host_table`).

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use http::Method;
use matchit::Router;

use crate::policy::policy_conflict::{MatchPlace, PolicyConflict};
use crate::policy::request_conditions::{AnchoredRegex, CommandMatch, PathMatch, RouteRequest};
use crate::policy::subsystem::{Command, Subsystem};

use super::prefix_index::PrefixIndex;
use super::segment_tree::SegmentTree;

/// The commands of the subsystems that share a prefix.
#[derive(Debug)]
pub(super) enum PathTable {
    /// Templates and methods only, of one subsystem.
    Plain(MethodRouters),
    /// All conditions.
    Conditional(ConditionalTable),
}

/// The place of a match in a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TablePlace {
    /// The position among the subsystems of the table.
    pub(super) subsystem: usize,
    /// The position of the command in the subsystem.
    pub(super) command: usize,
    /// The position of the match in the command.
    pub(super) position: usize,
}

/// One match of a command.
#[derive(Clone, Debug)]
pub(super) struct MatchCandidate {
    pub(super) place: TablePlace,
    command: Arc<Command>,
}

/// A subsystem with its position in the document, for conflicts.
pub(super) type PlacedSubsystem<'a> = (usize, &'a Arc<Subsystem>);

/// The candidates at one path, in the order of their precedence.
pub(super) type CandidateList = Vec<MatchCandidate>;

/// The routers for the commands of one subsystem.
#[derive(Debug)]
pub(super) struct MethodRouters {
    /// For each method that a command names: the router with its commands and those of any method.
    named: Vec<(Method, Router<TablePlace>)>,
    /// The router for all other methods.
    any: Router<TablePlace>,
}

/// The candidates of all kinds of paths.
#[derive(Debug, Default)]
pub(super) struct ConditionalTable {
    exact: HashMap<String, CandidateList, RandomState>,
    templates: SegmentTree,
    prefixes: PrefixIndex<CandidateList>,
    regexes: Vec<(AnchoredRegex, MatchCandidate)>,
}

impl PathTable {
    /// Compiles the table of the subsystems that share a prefix, which have been checked before. `routers` are those of
    /// a subsystem that shares none, if they are known.
    pub(super) fn compile(subsystems: &[Arc<Subsystem>], routers: Option<MethodRouters>) -> Self {
        let mut matches = subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().flat_map(|c| &c.matches));
        match subsystems {
            [only] if matches.all(CommandMatch::is_plain) => {
                Self::Plain(routers.unwrap_or_else(|| MethodRouters::compile((0, only), &mut Vec::new())))
            }
            _ => Self::Conditional(ConditionalTable::compile(subsystems)),
        }
    }

    /// The match of a request, whose path below the prefix is `below`.
    pub(super) fn find(&self, request: &RouteRequest<'_>, below: &str) -> Option<TablePlace> {
        match self {
            Self::Plain(routers) => routers.find(request.method, below),
            Self::Conditional(table) => {
                table.first_taken(below, &mut |candidate| candidate.matched().accepts(request)).map(|found| found.place)
            }
        }
    }

    /// Adds the methods of the commands at a path whose other conditions hold.
    pub(super) fn add_methods<'t>(&'t self, request: &RouteRequest<'_>, below: &str, methods: &mut Vec<&'t str>) {
        match self {
            Self::Plain(routers) => routers.add_methods(below, methods),
            Self::Conditional(table) => {
                table.first_taken(below, &mut |candidate: &'t MatchCandidate| {
                    let matched = candidate.matched();
                    methods.extend(
                        matched.method.as_ref().filter(|_| matched.conditions_hold(request)).map(Method::as_str),
                    );
                    false
                });
            }
        }
    }
}

impl MatchCandidate {
    fn matched(&self) -> &CommandMatch {
        &self.command.matches[self.place.position]
    }
}

impl MethodRouters {
    /// Compiles the templates of a subsystem, and reports those that no rule orders.
    fn compile(subsystem: PlacedSubsystem<'_>, conflicts: &mut Vec<PolicyConflict>) -> Self {
        let mut methods: Vec<&Method> = places_of(subsystem.1).filter_map(|(_, m)| m.method.as_ref()).collect();
        methods.sort_by_key(|method| method.as_str());
        methods.dedup();
        let any = router_for(subsystem, None, conflicts);
        let named = methods.into_iter().map(|m| (m.clone(), router_for(subsystem, Some(m), conflicts))).collect();
        Self { named, any }
    }

    fn find(&self, method: &Method, path: &str) -> Option<TablePlace> {
        let router = self.named.iter().find(|(named, _)| named == method).map_or(&self.any, |(_, router)| router);
        router.at(path).ok().map(|found| *found.value)
    }

    fn add_methods<'t>(&'t self, path: &str, methods: &mut Vec<&'t str>) {
        let at_path = self.named.iter().filter(|(_, router)| router.at(path).is_ok());
        methods.extend(at_path.map(|(method, _)| method.as_str()));
    }
}

/// The router of one method: first the matches that name the method, then those of any method whose template is still
/// free.
fn router_for(
    (index, subsystem): PlacedSubsystem<'_>,
    method: Option<&Method>,
    conflicts: &mut Vec<PolicyConflict>,
) -> Router<TablePlace> {
    let mut router = Router::new();
    let mut taken = HashSet::new();
    let (own, any): (Vec<_>, Vec<_>) = places_of(subsystem)
        .filter(|(_, matched)| matched.method.is_none() || matched.method.as_ref() == method)
        .partition(|(_, matched)| matched.method.is_some());
    for (place, matched) in own.into_iter().chain(any) {
        let PathMatch::Template(template) = &matched.path else { continue };
        let shape = template.normalized();
        if taken.contains(&shape) {
            continue; // a named method wins; a match that is equal is reported by `report_equal_matches`
        }
        match router.insert(shape.clone(), place) {
            Ok(()) => drop(taken.insert(shape)),
            Err(_) => push_once(conflicts, PolicyConflict::SameRoute { place: place.in_document(index), with: None }),
        }
    }
    router
}

impl TablePlace {
    /// The place in the document, where the subsystem is at this position.
    fn in_document(self, subsystem: usize) -> MatchPlace {
        MatchPlace { subsystem, command: self.command, position: self.position }
    }
}

/// The matches of a subsystem's commands, with their places in a table of this subsystem alone.
fn places_of(subsystem: &Subsystem) -> impl Iterator<Item = (TablePlace, &CommandMatch)> {
    subsystem.commands.iter().enumerate().flat_map(move |(command, compiled)| {
        let place = move |position| TablePlace { subsystem: 0, command, position };
        compiled.matches.iter().enumerate().map(move |(position, matched)| (place(position), matched))
    })
}

/// Reports the matches of one subsystem that accept the same requests, and templates that no rule orders. Also returns
/// the routers for a table of this subsystem alone.
pub(super) fn check_subsystem(subsystem: PlacedSubsystem<'_>, conflicts: &mut Vec<PolicyConflict>) -> MethodRouters {
    report_equal_matches(&[subsystem], conflicts);
    MethodRouters::compile(subsystem, conflicts)
}

/// Reports the matches of subsystems on one prefix that accept the same requests.
pub(super) fn report_equal_matches(subsystems: &[PlacedSubsystem<'_>], conflicts: &mut Vec<PolicyConflict>) {
    let mut known = HashMap::new();
    for (index, subsystem) in subsystems.iter().filter(|(_, subsystem)| !subsystem.is_shadowable) {
        for (place, matched) in places_of(subsystem) {
            let (place, same) = (place.in_document(*index), matched.canonical_text());
            match known.get(&same) {
                Some(with) => push_once(conflicts, PolicyConflict::SameRoute { place, with: Some(*with) }),
                None => drop(known.insert(same, place)),
            }
        }
    }
}

/// Adds a conflict once: commands of any method are in several routers, and subsystems on several hosts.
fn push_once(conflicts: &mut Vec<PolicyConflict>, conflict: PolicyConflict) {
    if !conflicts.contains(&conflict) {
        conflicts.push(conflict);
    }
}

impl ConditionalTable {
    fn compile(subsystems: &[Arc<Subsystem>]) -> Self {
        let mut table = Self::default();
        for (position, subsystem) in subsystems.iter().enumerate() {
            for (place, matched) in places_of(subsystem) {
                let place = TablePlace { subsystem: position, ..place };
                let command = Arc::clone(&subsystem.commands[place.command]);
                table.add(&matched.path, MatchCandidate { place, command });
            }
        }
        table.exact.values_mut().chain(table.prefixes.values_mut()).for_each(|list| list.sort_by_key(precedence));
        table.templates.lists_mut().for_each(|list| list.sort_by_key(precedence));
        table.regexes.sort_by_key(|(_, candidate)| precedence(candidate));
        table
    }

    fn add(&mut self, path: &PathMatch, candidate: MatchCandidate) {
        match path {
            PathMatch::Template(template) if template.has_parameters() => self.templates.insert(template, candidate),
            PathMatch::Template(template) => self.exact.entry(template.0.clone()).or_default().push(candidate),
            PathMatch::Prefix(prefix) => self.prefixes.entry(prefix).push(candidate),
            PathMatch::Regex(regex) => self.regexes.push((regex.clone(), candidate)),
        }
    }

    /// The first candidate at a path that `take` accepts.
    fn first_taken<'t>(
        &'t self,
        path: &str,
        take: &mut impl FnMut(&'t MatchCandidate) -> bool,
    ) -> Option<&'t MatchCandidate> {
        let exact = self.exact.get(path).and_then(|list| list.iter().find(|candidate| take(candidate)));
        if exact.is_some() {
            return exact;
        }
        if let Some(found) = self.templates.first_taken(path, take) {
            return Some(found);
        }
        let mut below = self.prefixes.prefixes_of(path).flat_map(|(list, _)| list);
        if let Some(found) = below.find(|candidate| take(candidate)) {
            return Some(found);
        }
        let mut fitting = self.regexes.iter().filter(|(regex, _)| regex.is_match(path.as_bytes()));
        fitting.find(|(_, candidate)| take(candidate)).map(|(_, candidate)| candidate)
    }
}

/// The precedence of candidates at one path; the smallest wins, then the first of the document.
fn precedence(candidate: &MatchCandidate) -> (Reverse<bool>, Reverse<usize>, Reverse<usize>) {
    let CommandMatch { method, headers, query, .. } = candidate.matched();
    (Reverse(method.is_some()), Reverse(headers.len()), Reverse(query.len()))
}

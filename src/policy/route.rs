//! Routing: from listener, host, method, path, header fields and query to a command.
//!
//! A listener and its virtual hosts decide which subsystems are visible (`listener_table`). Of these, the most specific
//! route wins:
//! - an exact host over a wildcard, a longer wildcard over a shorter, a wildcard over any host;
//! - the longest prefix of a subsystem;
//! - an exact path over a template, literal segments over parameters, a template over a path prefix, a longer path
//!   prefix over a shorter, a path prefix over a regular expression;
//! - a named method over any method, then more header conditions, then more query conditions, then the order of the
//!   document.
//!
//! TLS connections are routed by server name before any of this (`server_names`).
//!
//! Guarantees:
//! - Every request has one result, without allocation (exceptions: `request_conditions`).
//! - The commands at a host are compiled again only if other subsystems claim the host; all else is shared with the
//!   routes before.
//!
//! Leaves to `proxy`: the check, before routing, that a path is fit to be routed (dots, escapes, doubled slashes).
//! Paths are compared as they are.

mod host_table;
mod listener_table;
mod path_table;
mod prefix_index;
mod segment_tree;
mod server_names;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::fast::RandomState;

use self::host_table::HostTable;
pub use self::listener_table::{ANY_HOST, DownstreamProtocol, ListenerRouting, VirtualHost};
use self::listener_table::{ListenerTable, RouteSet};
use self::path_table::{MethodRouters, PathTable};
pub use self::server_names::ConnectionMatch;
use self::server_names::ServerNameTable;
use crate::model::Name;

use super::policy_conflict::PolicyConflict;
use super::request_conditions::RouteRequest;
use super::shared_list::ListChanges;
use super::subsystem::{Command, Subsystem};

/// The result of routing a request.
#[derive(Debug)]
pub enum RouteMatch<'a> {
    /// A command of a subsystem.
    Command {
        /// The subsystem.
        subsystem: &'a Arc<Subsystem>,
        /// The command.
        command: &'a Arc<Command>,
        /// The position of the match in [`Command::matches`]; `None` for `other` commands.
        matched: Option<usize>,
    },
    /// The request is below a subsystem's prefix but matches no command, and the subsystem has `otherCommands: refuse`.
    /// Or it matches a command with `refuse`.
    NoCommand {
        /// The subsystem.
        subsystem: &'a Arc<Subsystem>,
    },
    /// No subsystem has this host and path.
    NoSubsystem,
}

/// The compiled routes.
#[derive(Debug)]
pub struct RouteTable {
    listeners: ListenerTable,
    /// The routes of each set of visible subsystems.
    sets: Vec<Arc<VisibleRoutes>>,
    /// All subsystems, in the order of the document.
    subsystems: Arc<[Arc<Subsystem>]>,
}

/// The routes of the subsystems that are visible at a place.
#[derive(Debug)]
struct VisibleRoutes {
    /// The visible subsystems whose commands are requests, in the order of the document.
    members: Arc<[Arc<Subsystem>]>,
    hosts: HostTable<Arc<PrefixTable>>,
    server_names: ServerNameTable,
}

/// The commands at one prefix.
#[derive(Debug)]
struct PrefixTable {
    /// The subsystem with this prefix. If several share it, all of them pass unnamed requests on.
    subsystems: Vec<Arc<Subsystem>>,
    commands: PathTable,
}

/// A set of visible subsystems, as far as it differs from the set before it.
struct SetDraft<'a> {
    before: Option<&'a Arc<VisibleRoutes>>,
    members: Arc<[Arc<Subsystem>]>,
    changed: ChangedHosts,
    /// The claims of the changed hosts.
    claims: HostClaims<'a>,
    server_names: ServerNameTable,
}

/// The hosts that other subsystems claim than before.
#[derive(Default)]
struct ChangedHosts {
    names: HashSet<String, RandomState>,
    any_host: bool,
}

/// The subsystems of each host (`None` for any) and prefix, in the order of the document.
type HostClaims<'a> = HashMap<Option<&'a str>, HashMap<&'a str, Vec<usize>, RandomState>, RandomState>;

/// The tables of groups of subsystems, by their positions.
type GroupTables = HashMap<Vec<usize>, Arc<PrefixTable>, RandomState>;

impl RouteTable {
    /// Compiles the routes of subsystems. They share with the routes `before` what is the same: the commands at a host
    /// depend on the subsystems that claim the host, and on nothing else.
    pub(crate) fn compile_routes(
        subsystems: &Arc<[Arc<Subsystem>]>,
        listeners: &[ListenerRouting],
        before: Option<&Self>,
        conflicts: &mut Vec<PolicyConflict>,
    ) -> Self {
        let known = before.map(|before| (&before.listeners, &before.subsystems[..]));
        let (listeners, sets) = ListenerTable::build(subsystems, listeners, known);
        let before_sets = before.map(|before| &before.sets[..]).unwrap_or_default();
        let sets = sets.into_ordered();
        let drafts = sets.iter().enumerate();
        let drafts = drafts.map(|(at, set)| SetDraft::new(subsystems, set, before_sets.get(at), conflicts));
        let drafts: Vec<_> = drafts.collect();
        let mut routers = check_new_subsystems(subsystems, before, conflicts);
        let groups: BTreeSet<&Vec<usize>> = drafts.iter().flat_map(SetDraft::groups).map(|(.., group)| group).collect();
        let mut tables = GroupTables::default();
        for draft in &drafts {
            draft.find_known_tables(subsystems, &mut tables);
        }
        for group in groups {
            if !tables.contains_key(group) {
                tables.insert(group.clone(), compile_table(subsystems, group, &mut routers, conflicts));
            }
        }
        let sets = drafts.into_iter().map(|draft| draft.compile(&tables)).collect();
        Self { listeners, sets, subsystems: Arc::clone(subsystems) }
    }

    /// What becomes of a TLS connection to a listener that names this server, or none.
    pub(crate) fn find_connection(&self, listener: &Name, server_name: Option<&str>) -> ConnectionMatch<'_> {
        let set = self.listeners.set_of(listener, server_name.unwrap_or_default());
        self.sets[set].server_names.find(server_name)
    }

    fn hosts_at(&self, request: &RouteRequest<'_>) -> &HostTable<Arc<PrefixTable>> {
        &self.sets[self.listeners.set_of(request.listener, request.host)].hosts
    }

    pub(crate) fn find_route(&self, request: &RouteRequest<'_>) -> RouteMatch<'_> {
        let found = self.hosts_at(request).visit_values(request.host, request.path, |table, below| {
            if let Some(place) = table.commands.find(request, below) {
                let subsystem = &table.subsystems[place.subsystem];
                let command = &subsystem.commands[place.command];
                if command.is_refused {
                    return ControlFlow::Break(RouteMatch::NoCommand { subsystem });
                }
                return ControlFlow::Break(RouteMatch::Command { subsystem, command, matched: Some(place.position) });
            }
            let subsystem = &table.subsystems[0];
            match &subsystem.other {
                Some(command) => ControlFlow::Break(RouteMatch::Command { subsystem, command, matched: None }),
                None if subsystem.passes_on => ControlFlow::Continue(()),
                None => ControlFlow::Break(RouteMatch::NoCommand { subsystem }),
            }
        });
        found.unwrap_or(RouteMatch::NoSubsystem)
    }

    /// The methods that commands name which accept the request otherwise, in byte order.
    pub(crate) fn methods_at(&self, request: &RouteRequest<'_>) -> Vec<&str> {
        let mut methods = Vec::new();
        self.hosts_at(request).visit_values(request.host, request.path, |table, below| {
            table.commands.add_methods(request, below, &mut methods);
            match table.subsystems[0].passes_on {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    /// The subsystems whose commands may be those of a request, the most specific first.
    pub(crate) fn subsystems_at(&self, request: &RouteRequest<'_>) -> Vec<&Arc<Subsystem>> {
        let mut found = Vec::new();
        self.hosts_at(request).visit_values(request.host, request.path, |table, _| {
            found.extend(&table.subsystems);
            match found.last().is_some_and(|subsystem: &&Arc<Subsystem>| subsystem.passes_on) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        found
    }
}

impl<'a> SetDraft<'a> {
    /// A draft of a set. Of equal claims, all but the first are conflicts.
    fn new(
        subsystems: &'a Arc<[Arc<Subsystem>]>,
        set: &RouteSet,
        before: Option<&'a Arc<VisibleRoutes>>,
        conflicts: &mut Vec<PolicyConflict>,
    ) -> Self {
        let server_names = ServerNameTable::compile(subsystems, set, conflicts);
        let is_request = |index: &usize| !set.any_connections || subsystems[*index].tls_mode.is_none();
        let of_requests = |index: &usize| !set.has_no_http && is_request(index);
        let positions: Vec<usize> = set.members.iter().copied().filter(of_requests).collect();
        let members = match positions.len() == subsystems.len() {
            true => Arc::clone(subsystems),
            false => positions.iter().map(|index| Arc::clone(&subsystems[*index])).collect(),
        };
        let changes = ListChanges::between(before.map(|before| &before.members[..]).unwrap_or_default(), &members);
        let changed = ChangedHosts::new(&changes);
        let claims = claim_prefixes(subsystems, (&positions, &changed), conflicts);
        Self { before, members, changed, claims, server_names }
    }

    /// The groups of subsystems, each with a host and a prefix that it claims.
    fn groups(&self) -> impl Iterator<Item = (Option<&'a str>, &'a str, &Vec<usize>)> {
        let prefixes = self.claims.iter();
        prefixes.flat_map(|(host, prefixes)| prefixes.iter().map(|(prefix, group)| (*host, *prefix, group)))
    }

    /// Finds the groups that have claimed the same host and prefix before.
    fn find_known_tables(&self, subsystems: &[Arc<Subsystem>], tables: &mut GroupTables) {
        let Some(before) = self.before else { return };
        for (host, prefix, group) in self.groups() {
            let known = before.hosts.value_at(host, prefix).filter(|known| known.is_of(subsystems, group));
            if let Some(known) = known {
                tables.insert(group.clone(), Arc::clone(known));
            }
        }
    }

    /// Compiles the set with the tables of all its groups.
    fn compile(self, tables: &GroupTables) -> Arc<VisibleRoutes> {
        let Self { before, members, changed, claims, server_names } = self;
        if let Some(before) =
            before.filter(|before| changed.is_empty() && server_names.is_as_empty_as(&before.server_names))
        {
            return Arc::clone(before);
        }
        let removed = changed.hosts().filter(|host| !claims.contains_key(host)).map(|host| (host, Vec::new()));
        let table_of = |group: &Vec<usize>| tables.get(group).map(Arc::clone);
        let changes = claims.iter().map(|(host, prefixes)| {
            let prefixes = prefixes.iter().filter_map(|(prefix, group)| Some((*prefix, table_of(group)?)));
            (*host, prefixes.collect())
        });
        let changes = changes.chain(removed);
        let hosts = match before {
            Some(before) => before.hosts.with_changes(changes),
            None => HostTable::build(changes),
        };
        Arc::new(VisibleRoutes { members, hosts, server_names })
    }
}

impl ChangedHosts {
    fn new(changes: &ListChanges<'_, Subsystem>) -> Self {
        let mut changed = Self::default();
        for host in changes.all().flat_map(|subsystem| subsystem.scope.claimed_hosts()) {
            match host {
                Some(host) if changed.names.contains(host) => {}
                Some(host) => drop(changed.names.insert(host.to_owned())),
                None => changed.any_host = true,
            }
        }
        changed
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.any_host
    }

    fn contains(&self, host: Option<&str>) -> bool {
        host.map_or(self.any_host, |host| self.names.contains(host))
    }

    fn hosts(&self) -> impl Iterator<Item = Option<&str>> {
        let any = self.any_host.then_some(None);
        self.names.iter().map(|host| Some(host.as_str())).chain(any)
    }
}

impl PrefixTable {
    /// Whether these are the subsystems of the table, by their positions.
    fn is_of(&self, subsystems: &[Arc<Subsystem>], group: &[usize]) -> bool {
        let same = |(known, position): (&Arc<Subsystem>, &usize)| Arc::ptr_eq(known, &subsystems[*position]);
        self.subsystems.len() == group.len() && self.subsystems.iter().zip(group).all(same)
    }
}

/// Checks the subsystems that the routes before do not have. Also returns their routers, by their positions.
fn check_new_subsystems(
    subsystems: &[Arc<Subsystem>],
    before: Option<&RouteTable>,
    conflicts: &mut Vec<PolicyConflict>,
) -> HashMap<usize, MethodRouters, RandomState> {
    let before = before.map(|before| &before.subsystems[..]).unwrap_or_default();
    let added = ListChanges::between(before, subsystems).added;
    let added: HashSet<*const Subsystem, RandomState> = added.into_iter().map(Arc::as_ptr).collect();
    let new = subsystems.iter().enumerate().filter(|(_, subsystem)| added.contains(&Arc::as_ptr(subsystem)));
    new.map(|(position, subsystem)| (position, path_table::check_subsystem((position, subsystem), conflicts))).collect()
}

fn compile_table(
    subsystems: &[Arc<Subsystem>],
    group: &[usize],
    routers: &mut HashMap<usize, MethodRouters, RandomState>,
    conflicts: &mut Vec<PolicyConflict>,
) -> Arc<PrefixTable> {
    let placed: Vec<_> = group.iter().map(|index| (*index, &subsystems[*index])).collect();
    let routers = match group {
        [only] => routers.remove(only), // it is checked
        _ => {
            path_table::report_equal_matches(&placed, conflicts);
            None
        }
    };
    let members: Vec<_> = placed.into_iter().map(|(_, subsystem)| Arc::clone(subsystem)).collect();
    let commands = PathTable::compile(&members, routers);
    Arc::new(PrefixTable { subsystems: members, commands })
}

/// The subsystems of each changed host and prefix, among those at these positions. Only subsystems that pass unnamed
/// requests on may share a prefix: of others, all but the first are conflicts.
fn claim_prefixes<'a>(
    subsystems: &'a [Arc<Subsystem>],
    (positions, changed): (&[usize], &ChangedHosts),
    conflicts: &mut Vec<PolicyConflict>,
) -> HostClaims<'a> {
    let mut claims = HostClaims::default();
    if changed.is_empty() {
        return claims;
    }
    for index in positions {
        let subsystem = &subsystems[*index];
        for host in subsystem.scope.claimed_hosts().filter(|host| changed.contains(*host)) {
            let holders = claims.entry(host).or_default().entry(subsystem.prefix.as_str()).or_default();
            match holders.first() {
                Some(with) if !(subsystem.passes_on && subsystems[*with].passes_on) => {
                    let host = host.map(str::to_owned);
                    let conflict = PolicyConflict::SameSubsystemPath { subsystem: *index, with: *with, host };
                    if !conflicts.contains(&conflict) {
                        conflicts.push(conflict); // once, although several listeners see both
                    }
                }
                _ => holders.push(*index),
            }
        }
    }
    claims
}

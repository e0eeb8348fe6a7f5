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
//! Guarantees: every request has one result, without allocation (exceptions: `request_conditions`).
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

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use self::host_table::HostTable;
pub use self::listener_table::{ANY_HOST, DownstreamProtocol, ListenerRouting, ListenerScope, RouteScope, VirtualHost};
use self::listener_table::{ListenerTable, RouteSet, ScopedSubsystem};
use self::path_table::{MethodRouters, PathTable};
pub use self::server_names::ConnectionMatch;
use self::server_names::ServerNameTable;
use crate::model::Name;

use super::policy_conflict::PolicyConflict;
use super::request_conditions::RouteRequest;
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
    /// The hosts of each set of visible subsystems.
    sets: Vec<HostTable>,
    /// The server names of each set of visible subsystems.
    server_names: Vec<ServerNameTable>,
    tables: Vec<PrefixTable>,
    /// The listeners and hosts of each subsystem, by its index; both lists in order.
    scopes: Vec<RouteScope>,
}

/// The commands at one prefix.
#[derive(Debug)]
struct PrefixTable {
    /// The subsystem with this prefix. If several share it, all of them pass unnamed requests on.
    subsystems: Vec<usize>,
    commands: PathTable,
}

/// The subsystems of each host (`None` for any) and prefix, in the order of the document.
type HostClaims<'a> = HashMap<Option<&'a str>, HashMap<&'a str, Vec<usize>>>;

impl RouteTable {
    /// Compiles the routes of subsystems, each with the listeners and hosts by which it is called.
    pub(crate) fn compile_routes(
        subsystems: &[(Arc<Subsystem>, RouteScope)],
        listeners: &[ListenerRouting],
        conflicts: &mut Vec<PolicyConflict>,
    ) -> Self {
        let scopes: Vec<ScopedSubsystem<'_>> = subsystems
            .iter()
            .map(|(subsystem, scope)| ScopedSubsystem { scope, has_connections: subsystem.tls_mode.is_some() })
            .collect();
        let (listeners, sets) = ListenerTable::build(&scopes, listeners);
        let sets = sets.into_ordered();
        let server_names = sets.iter().map(|set| ServerNameTable::compile(subsystems, set, conflicts)).collect();
        let claims: Vec<HostClaims<'_>> = sets.iter().map(|set| claim_prefixes(subsystems, set, conflicts)).collect();
        let routers = subsystems.iter().map(|(subsystem, _)| {
            path_table::report_equal_matches(&[subsystem], conflicts);
            Some(MethodRouters::compile(subsystem, conflicts))
        });
        let mut routers: Vec<_> = routers.collect();
        let prefixes = claims.iter().flat_map(HashMap::values);
        let groups: BTreeSet<&[usize]> = prefixes.flat_map(HashMap::values).map(Vec::as_slice).collect();
        let positions: HashMap<&[usize], usize> = groups.iter().enumerate().map(|(at, group)| (*group, at)).collect();
        let tables = groups.iter().map(|group| {
            let members: Vec<_> = group.iter().map(|index| &subsystems[*index].0).collect();
            path_table::report_equal_matches(&members, conflicts);
            let routers = if members.len() == 1 { routers[group[0]].take() } else { None };
            let commands = PathTable::compile(&members, routers);
            PrefixTable { subsystems: group.to_vec(), commands }
        });
        let tables = tables.collect();
        let sets = claims.iter().map(|claims| build_hosts(claims, &positions)).collect();
        let scopes = subsystems.iter().map(|(_, scope)| sorted(scope)).collect();
        Self { listeners, sets, server_names, tables, scopes }
    }

    /// What becomes of a TLS connection to a listener that names this server, or none.
    pub(crate) fn find_connection<'a>(
        &self,
        subsystems: &'a [Arc<Subsystem>],
        listener: &Name,
        server_name: Option<&str>,
    ) -> ConnectionMatch<'a> {
        let set = self.listeners.set_of(listener, server_name.unwrap_or_default());
        self.server_names[set].find(subsystems, server_name)
    }

    fn hosts_at(&self, request: &RouteRequest<'_>) -> &HostTable {
        &self.sets[self.listeners.set_of(request.listener, request.host)]
    }

    pub(crate) fn find_route<'a>(
        &'a self,
        subsystems: &'a [Arc<Subsystem>],
        request: &RouteRequest<'_>,
    ) -> RouteMatch<'a> {
        let found = self.hosts_at(request).visit_tables(request.host, request.path, |position, below| {
            let table = &self.tables[position];
            if let Some(place) = table.commands.find(request, below) {
                let subsystem = &subsystems[place.subsystem];
                let command = &subsystem.commands[place.command];
                if command.is_refused {
                    return ControlFlow::Break(RouteMatch::NoCommand { subsystem });
                }
                return ControlFlow::Break(RouteMatch::Command { subsystem, command, matched: Some(place.position) });
            }
            let subsystem = &subsystems[table.subsystems[0]];
            match &subsystem.other {
                Some(command) => ControlFlow::Break(RouteMatch::Command { subsystem, command, matched: None }),
                None if subsystem.passes_on => ControlFlow::Continue(()),
                None => ControlFlow::Break(RouteMatch::NoCommand { subsystem }),
            }
        });
        found.unwrap_or(RouteMatch::NoSubsystem)
    }

    /// The methods that commands name which accept the request otherwise, in byte order.
    pub(crate) fn methods_at(&self, subsystems: &[Arc<Subsystem>], request: &RouteRequest<'_>) -> Vec<&str> {
        let mut methods = Vec::new();
        self.hosts_at(request).visit_tables(request.host, request.path, |position, below| {
            let table = &self.tables[position];
            table.commands.add_methods(request, below, &mut methods);
            match subsystems[table.subsystems[0]].passes_on {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    /// The subsystems whose commands may be those of a request, the most specific first.
    pub(crate) fn subsystems_at<'a>(
        &self,
        subsystems: &'a [Arc<Subsystem>],
        request: &RouteRequest<'_>,
    ) -> Vec<&'a Arc<Subsystem>> {
        let mut found = Vec::new();
        self.hosts_at(request).visit_tables(request.host, request.path, |position, _| {
            found.extend(self.tables[position].subsystems.iter().map(|index| &subsystems[*index]));
            match found.last().is_some_and(|subsystem| subsystem.passes_on) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        });
        found
    }

    /// The hosts of the subsystem with this index, lower case and in byte order; empty means any host.
    pub(crate) fn hosts_of(&self, subsystem: usize) -> Vec<&str> {
        self.scopes[subsystem].hosts.iter().map(String::as_str).collect()
    }

    /// The listeners and hosts of the subsystem with this index; both lists in order.
    pub(crate) fn scope_of(&self, subsystem: usize) -> &RouteScope {
        &self.scopes[subsystem]
    }
}

fn build_hosts(claims: &HostClaims<'_>, positions: &HashMap<&[usize], usize>) -> HostTable {
    HostTable::build(claims.iter().map(|(host, prefixes)| {
        let prefixes = prefixes.iter().map(|(prefix, group)| ((*prefix).to_owned(), positions[group.as_slice()]));
        (host.map(str::to_owned), prefixes.collect())
    }))
}

/// The subsystems of each host and prefix among those of a set. Only subsystems that pass unnamed requests on may share
/// a prefix.
fn claim_prefixes<'a>(
    subsystems: &'a [(Arc<Subsystem>, RouteScope)],
    set: &RouteSet,
    conflicts: &mut Vec<PolicyConflict>,
) -> HostClaims<'a> {
    let mut claims = HostClaims::new();
    let of_requests = |one: &Subsystem| one.tls_mode.is_none() && !set.has_no_http;
    let of_requests = set.members.iter().map(|index| &subsystems[*index]).filter(|(one, _)| of_requests(one));
    for (subsystem, scope) in of_requests {
        for host in scope.claimed_hosts() {
            let holders = claims.entry(host).or_default().entry(subsystem.prefix.as_str()).or_default();
            match holders.first() {
                Some(with) if !(subsystem.passes_on && subsystems[*with].0.passes_on) => {
                    let host = host.map(str::to_owned);
                    let conflict = PolicyConflict::SameSubsystemPath { subsystem: subsystem.index, with: *with, host };
                    if !conflicts.contains(&conflict) {
                        conflicts.push(conflict); // once, although several listeners see both
                    }
                }
                _ => holders.push(subsystem.index),
            }
        }
    }
    claims
}

fn sorted(scope: &RouteScope) -> RouteScope {
    let mut scope = scope.clone();
    scope.hosts.sort();
    scope.listeners.sort();
    scope
}

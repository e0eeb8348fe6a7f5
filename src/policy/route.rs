//! Routing: from host, method and path to a command.
//!
//! The most specific route wins:
//! - a named host over any host;
//! - the longest prefix;
//! - literal segments over parameters;
//! - a named method over any method.
//!
//! Guarantees: every request has one result, without allocation.
//!
//! Leaves to `proxy`: the check, before routing, that a path is fit to be routed (dots, escapes, doubled slashes).
//! Paths are compared as they are.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use matchit::Router;

use super::policy_conflict::PolicyConflict;
use super::snapshot::PolicySnapshot;
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
    },
    /// The request is below a subsystem's prefix but matches no command, and the subsystem has `otherCommands: refuse`.
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
    /// Named hosts, lower case, in byte order, each with its subsystems.
    hosts: Vec<(String, PrefixTable)>,
    /// The subsystems that take any host.
    any_host: PrefixTable,
    /// The commands of each subsystem, by its index.
    commands: Vec<CommandRouter>,
}

/// Prefixes, each with the index of its subsystem, the longest first.
type PrefixTable = Vec<(String, usize)>;

/// The routers for the commands of one subsystem.
#[derive(Debug)]
struct CommandRouter {
    /// For each method that a command names: the router with its commands and those of any method.
    named: Vec<(Method, Router<usize>)>,
    /// The router for all other methods.
    any: Router<usize>,
}

impl RouteTable {
    pub(crate) fn compile_routes(
        subsystems: &[(Arc<Subsystem>, Vec<String>)],
        conflicts: &mut Vec<PolicyConflict>,
    ) -> Self {
        let mut places: HashMap<Option<&str>, PrefixTable> = HashMap::new();
        for (subsystem, hosts) in subsystems {
            for host in claimed_hosts(hosts) {
                claim_prefix(places.entry(host).or_default(), host, subsystem, conflicts);
            }
        }
        places.values_mut().for_each(|prefixes| prefixes.sort_by_key(|(prefix, _)| Reverse(prefix.len())));
        let any_host = places.remove(&None).unwrap_or_default();
        let mut hosts: Vec<_> =
            places.into_iter().filter_map(|(host, prefixes)| Some((host?.to_owned(), prefixes))).collect();
        hosts.sort_by(|(a, _), (b, _)| a.cmp(b));
        let commands =
            subsystems.iter().map(|(subsystem, _)| CommandRouter::compile_router(subsystem, conflicts)).collect();
        Self { hosts, any_host, commands }
    }

    pub(crate) fn find_route<'a>(
        &'a self,
        snapshot: &'a PolicySnapshot,
        host: &str,
        method: &Method,
        path: &str,
    ) -> RouteMatch<'a> {
        let Some((index, below)) = self.subsystem_of(host, path) else { return RouteMatch::NoSubsystem };
        let subsystem = &snapshot.subsystems[index];
        let named = self.commands[index].find_command(method, below).map(|position| &subsystem.commands[position]);
        match named.or(subsystem.other.as_ref()) {
            Some(command) => RouteMatch::Command { subsystem, command },
            None => RouteMatch::NoCommand { subsystem },
        }
    }

    /// The methods that commands at this path name, in byte order.
    pub(crate) fn methods_at(&self, host: &str, path: &str) -> Vec<&str> {
        let Some((index, below)) = self.subsystem_of(host, path) else { return Vec::new() };
        let routers = self.commands[index].named.iter();
        routers.filter(|(_, router)| router.at(below).is_ok()).map(|(method, _)| method.as_str()).collect()
    }

    /// The hosts of the subsystem with this index, lower case and in byte order; empty means any host.
    pub(crate) fn hosts_of(&self, subsystem: usize) -> Vec<&str> {
        let claims = |(_, prefixes): &&(String, PrefixTable)| prefixes.iter().any(|(_, index)| *index == subsystem);
        self.hosts.iter().filter(claims).map(|(host, _)| host.as_str()).collect()
    }

    /// The index of the subsystem with this host and path, and the path below its prefix.
    fn subsystem_of<'p>(&self, host: &str, path: &'p str) -> Option<(usize, &'p str)> {
        let host = bare_host(host);
        let named = self.hosts.binary_search_by(|(known, _)| compare_lower(known, host)).ok();
        named
            .and_then(|position| longest_prefix(&self.hosts[position].1, path))
            .or_else(|| longest_prefix(&self.any_host, path))
    }
}

impl CommandRouter {
    fn compile_router(subsystem: &Subsystem, conflicts: &mut Vec<PolicyConflict>) -> Self {
        let mut methods: Vec<&Method> = subsystem.commands.iter().filter_map(|c| c.method.as_ref()).collect();
        methods.sort_by_key(|method| method.as_str());
        methods.dedup();
        let any = router_for(subsystem, None, conflicts);
        let named = methods.into_iter().map(|m| (m.clone(), router_for(subsystem, Some(m), conflicts))).collect();
        Self { named, any }
    }

    fn find_command(&self, method: &Method, path: &str) -> Option<usize> {
        let router = self.named.iter().find(|(named, _)| named == method).map_or(&self.any, |(_, router)| router);
        router.at(path).ok().map(|found| *found.value)
    }
}

/// The router of one method: first the commands that name the method, then the commands of any method whose template is
/// still free.
fn router_for(subsystem: &Subsystem, method: Option<&Method>, conflicts: &mut Vec<PolicyConflict>) -> Router<usize> {
    let mut router = Router::new();
    let mut taken: HashMap<String, usize> = HashMap::new();
    let (own, any): (Vec<_>, Vec<_>) = subsystem
        .commands
        .iter()
        .enumerate()
        .filter(|(_, command)| command.method.is_none() || command.method.as_ref() == method)
        .partition(|(_, command)| command.method.is_some());
    for (position, command) in own.into_iter().chain(any) {
        let Some(shape) = command.path.as_ref().map(super::PathTemplate::normalized) else { continue };
        let earlier = taken.get(&shape).copied();
        match earlier {
            Some(earlier) if subsystem.commands[earlier].method != command.method => continue, // a named method wins
            Some(_) => push_once(
                conflicts,
                PolicyConflict::SameRoute { subsystem: subsystem.index, command: position, with: earlier },
            ),
            None if router.insert(shape.clone(), position).is_err() => {
                push_once(
                    conflicts,
                    PolicyConflict::SameRoute { subsystem: subsystem.index, command: position, with: None },
                );
            }
            None => drop(taken.insert(shape, position)),
        }
    }
    router
}

/// Adds a conflict once: commands of any method are in several routers, and their conflicts would repeat.
fn push_once(conflicts: &mut Vec<PolicyConflict>, conflict: PolicyConflict) {
    if !conflicts.contains(&conflict) {
        conflicts.push(conflict);
    }
}

fn claimed_hosts(hosts: &[String]) -> Vec<Option<&str>> {
    if hosts.is_empty() { vec![None] } else { hosts.iter().map(|host| Some(host.as_str())).collect() }
}

fn claim_prefix(
    prefixes: &mut PrefixTable,
    host: Option<&str>,
    subsystem: &Subsystem,
    conflicts: &mut Vec<PolicyConflict>,
) {
    match prefixes.iter().find(|(prefix, _)| *prefix == subsystem.prefix) {
        Some((_, with)) => conflicts.push(PolicyConflict::SameSubsystemPath {
            subsystem: subsystem.index,
            with: *with,
            host: host.map(str::to_owned),
        }),
        None => prefixes.push((subsystem.prefix.clone(), subsystem.index)),
    }
}

fn longest_prefix<'p>(prefixes: &PrefixTable, path: &'p str) -> Option<(usize, &'p str)> {
    prefixes.iter().find_map(|(prefix, index)| Some((*index, path_below(prefix, path)?)))
}

/// The path below a prefix; `None` unless the prefix ends at the end of a segment.
fn path_below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    match path.strip_prefix(prefix)? {
        "" => Some("/"),
        rest if rest.starts_with('/') => Some(rest),
        _ => None,
    }
}

/// A host without its port and without the trailing dot of a fully qualified name.
fn bare_host(authority: &str) -> &str {
    let address_end = if authority.starts_with('[') { authority.find(']') } else { None };
    let host_end = address_end.map(|bracket| bracket + 1).or_else(|| authority.bytes().position(|byte| byte == b':'));
    let host = &authority[..host_end.unwrap_or(authority.len())];
    host.strip_suffix('.').unwrap_or(host)
}

/// Compares a lower-case name with a name in any case.
fn compare_lower(known: &str, host: &str) -> Ordering {
    if known == host {
        return Ordering::Equal; // most callers write it in lower case
    }
    known.bytes().cmp(host.bytes().map(|byte| byte.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ends_at_a_segment_boundary() {
        for (prefix, path, expected) in [
            ("/cameras", "/cameras/v1", Some("/v1")),
            ("/cameras", "/cameras", Some("/")),
            ("/cameras", "/cameras/", Some("/")),
            ("/cameras", "/camerasx", None),
            ("/cameras", "/signals", None),
            ("", "/anything", Some("/anything")),
            ("", "*", None),
        ] {
            assert_eq!(path_below(prefix, path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn host_is_compared_without_port_and_trailing_dot() {
        for (authority, host) in [
            ("city.example", "city.example"),
            ("city.example:8443", "city.example"),
            ("city.example.:8443", "city.example"),
            ("[::1]:8443", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(bare_host(authority), host, "{authority}");
        }
    }

    #[test]
    fn hosts_are_compared_case_insensitively() {
        assert_eq!(compare_lower("city.example", "City.EXAMPLE"), Ordering::Equal);
        assert_eq!(compare_lower("a.example", "B.example"), Ordering::Less);
    }
}

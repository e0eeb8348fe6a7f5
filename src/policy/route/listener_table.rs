//! From a listener and a host to the set of routes that is visible there.
//!
//! A virtual host isolates the hosts that it matches: for such a host only those subsystems count that belong to the
//! virtual host, to its listener as a whole, or to all listeners.
//!
//! Guarantees:
//! - The most specific virtual host of a listener wins, as among the hosts of subsystems (`host_table`).
//! - A lookup allocates nothing, and takes no time if no subsystem is bound to a listener and no listener has virtual
//!   hosts.
//!
//! Leaves to others: the routes of a set (`host_table`, `path_table`).

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use super::host_table::HostTable;
use crate::model::Name;

/// The listeners and hosts by which a subsystem is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteScope {
    /// Names, `*.suffix` or `**.suffix`, in lower case; empty for any host.
    pub hosts: Vec<String>,
    /// The places at which the subsystem is called; empty for all listeners.
    pub listeners: Vec<ListenerScope>,
}

/// A listener, or one of its virtual hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerScope {
    /// The listener.
    pub listener: Name,
    /// The virtual host; `None` for the whole listener.
    pub virtual_host: Option<Name>,
}

/// The properties of a listener that the policy uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRouting {
    /// The listener.
    pub listener: Name,
    /// The virtual hosts, each with its host: a name, `*.suffix` or `**.suffix`, in lower case, or [`ANY_HOST`].
    pub hosts: Vec<(Name, String)>,
    /// The port at which callers reach it, if that is known.
    pub public_port: Option<u16>,
}

/// The host of a virtual host that matches every host which no other one matches.
pub const ANY_HOST: &str = "*";

/// The listeners, each with its sets of routes. A set is named by its position.
#[derive(Debug, Default)]
pub(super) struct ListenerTable(HashMap<Name, ListenerRoutes>);

/// The sets of routes of one listener.
#[derive(Debug)]
struct ListenerRoutes {
    virtual_hosts: HostTable,
    /// The set of the hosts that no virtual host matches.
    other_hosts: usize,
}

/// The sets of routes, each with the positions of its subsystems.
#[derive(Debug, Default)]
pub(super) struct RouteSets(BTreeMap<Vec<usize>, usize>);

impl RouteSets {
    fn position(&mut self, members: Vec<usize>) -> usize {
        let next = self.0.len();
        *self.0.entry(members).or_insert(next)
    }

    /// The sets in the order of their positions.
    pub(super) fn into_ordered(self) -> Vec<Vec<usize>> {
        let mut ordered: Vec<_> = self.0.into_iter().collect();
        ordered.sort_unstable_by_key(|(_, position)| *position);
        ordered.into_iter().map(|(members, _)| members).collect()
    }
}

impl ListenerTable {
    /// Builds the table. The first set, at position 0, is that of listeners without any binding.
    pub(super) fn build(scopes: &[&RouteScope], listeners: &[ListenerRouting]) -> (Self, RouteSets) {
        let mut sets = RouteSets::default();
        sets.position(visible_subsystems(scopes, None));
        let any_bound = scopes.iter().any(|scope| !scope.listeners.is_empty());
        let mut table = HashMap::new();
        for ListenerRouting { listener, hosts, .. } in listeners {
            if hosts.is_empty() && !any_bound {
                continue; // the first set
            }
            let other_hosts = sets.position(visible_subsystems(scopes, Some((listener, None))));
            let virtual_hosts = hosts.iter().map(|(name, host)| {
                let set = sets.position(visible_subsystems(scopes, Some((listener, Some(name)))));
                (Some(host.clone()).filter(|host| host != ANY_HOST), vec![(String::new(), set)])
            });
            let virtual_hosts = HostTable::build(virtual_hosts.collect::<Vec<_>>());
            table.insert(listener.clone(), ListenerRoutes { virtual_hosts, other_hosts });
        }
        (Self(table), sets)
    }

    /// The position of the set that holds the routes of a listener and a host.
    pub(super) fn set_of(&self, listener: &Name, host: &str) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        let Some(routes) = self.0.get(listener) else { return 0 };
        let matched = routes.virtual_hosts.visit_tables(host, "/", |set, _| ControlFlow::Break(set));
        matched.unwrap_or(routes.other_hosts)
    }
}

/// The positions of the subsystems that are visible at a place.
fn visible_subsystems(scopes: &[&RouteScope], place: Option<(&Name, Option<&Name>)>) -> Vec<usize> {
    let is_visible = |scope: &RouteScope| match place {
        _ if scope.listeners.is_empty() => true,
        None => false,
        Some((listener, virtual_host)) => scope.listeners.iter().any(|bound| {
            bound.listener == *listener && (bound.virtual_host.is_none() || bound.virtual_host.as_ref() == virtual_host)
        }),
    };
    scopes.iter().enumerate().filter(|(_, scope)| is_visible(scope)).map(|(index, _)| index).collect()
}

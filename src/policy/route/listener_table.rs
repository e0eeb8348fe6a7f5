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
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::host_table::HostTable;
use crate::model::Name;
use crate::policy::subsystem::{ListenerScope, Subsystem};

/// What callers may send to a listener, or to a virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DownstreamProtocol {
    /// HTTP over TLS, and the TLS connections of subsystems with a [`ConnectionMode`](crate::policy::ConnectionMode).
    #[default]
    Https,
    /// HTTP without TLS.
    Http,
    /// The TLS connections of subsystems with a [`ConnectionMode`](crate::policy::ConnectionMode) only: no HTTP.
    Tls,
}

/// The properties of a listener that the policy uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerRouting {
    /// The listener.
    pub listener: Name,
    /// The protocol of the hosts that no virtual host matches.
    pub protocol: DownstreamProtocol,
    /// The virtual hosts.
    pub hosts: Vec<VirtualHost>,
    /// The port at which callers reach it, if that is known.
    pub public_port: Option<u16>,
}

/// A part of a listener: the hosts that it matches most specifically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHost {
    /// Its name, unique on the listener.
    pub name: Name,
    /// A name, `*.suffix` or `**.suffix`, in lower case, or [`ANY_HOST`].
    pub host: String,
    /// The protocol of its hosts.
    pub protocol: DownstreamProtocol,
}

/// The host of a virtual host that matches every host which no other one matches.
pub const ANY_HOST: &str = "*";

/// The listeners, each with its sets of routes. A set is named by its position.
#[derive(Debug, Default)]
pub(super) struct ListenerTable(HashMap<Name, ListenerRoutes>);

/// The sets of routes of one listener.
#[derive(Debug)]
struct ListenerRoutes {
    virtual_hosts: HostTable<usize>,
    /// The set of the hosts that no virtual host matches.
    other_hosts: usize,
}

/// The sets of routes, each with its position.
#[derive(Debug, Default)]
pub(super) struct RouteSets(BTreeMap<RouteSet, usize>);

/// The routes that are visible at a place.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteSet {
    /// The positions of the subsystems.
    pub(super) members: Vec<usize>,
    /// Whether the place takes TLS connections of subsystems only: no HTTP.
    pub(super) has_no_http: bool,
}

impl RouteSets {
    fn position(&mut self, members: Vec<usize>, protocol: DownstreamProtocol) -> usize {
        let next = self.0.len();
        let set = RouteSet { members, has_no_http: protocol == DownstreamProtocol::Tls };
        *self.0.entry(set).or_insert(next)
    }

    /// The sets in the order of their positions.
    pub(super) fn into_ordered(self) -> Vec<RouteSet> {
        let mut ordered: Vec<_> = self.0.into_iter().collect();
        ordered.sort_unstable_by_key(|(_, position)| *position);
        ordered.into_iter().map(|(set, _)| set).collect()
    }
}

/// A listener, or one of its virtual hosts, with the positions of the subsystems that are visible there.
struct VisiblePlace<'a> {
    virtual_host: Option<&'a Name>,
    protocol: DownstreamProtocol,
    members: Vec<usize>,
}

/// The places of one listener: all hosts that no virtual host matches, then the virtual hosts.
type ListenerPlaces<'a> = Vec<VisiblePlace<'a>>;

impl ListenerTable {
    /// Builds the table. The first set, at position 0, is that of listeners without any binding.
    pub(super) fn build(subsystems: &[Arc<Subsystem>], listeners: &[ListenerRouting]) -> (Self, RouteSets) {
        let mut sets = RouteSets::default();
        let is_unbound = |(_, one): &(usize, &Arc<Subsystem>)| one.scope.listeners.is_empty();
        let everywhere: Vec<usize> = subsystems.iter().enumerate().filter(is_unbound).map(|(index, _)| index).collect();
        let any_bound = everywhere.len() < subsystems.len();
        sets.position(everywhere, DownstreamProtocol::default());
        let any_connections = subsystems.iter().any(|one| one.tls_mode.is_some());
        let is_special = |protocol| match protocol {
            DownstreamProtocol::Https => false,
            DownstreamProtocol::Http => any_connections,
            DownstreamProtocol::Tls => true,
        };
        // Other listeners have the first set.
        let own_sets = listeners.iter().filter(|one| !one.hosts.is_empty() || any_bound || is_special(one.protocol));
        let own_sets: Vec<&ListenerRouting> = own_sets.collect();
        let places = visible_places(subsystems, &own_sets);
        let mut table = HashMap::new();
        for (ListenerRouting { listener, hosts, .. }, places) in own_sets.into_iter().zip(places) {
            let positions = places.into_iter().map(|place| sets.position(place.members, place.protocol));
            let positions: Vec<usize> = positions.collect();
            let [other_hosts, virtual_hosts @ ..] = &positions[..] else { continue };
            let virtual_hosts = hosts.iter().zip(virtual_hosts).map(|(VirtualHost { host, .. }, set)| {
                (Some(host.as_str()).filter(|host| *host != ANY_HOST), vec![("", *set)])
            });
            let virtual_hosts = HostTable::build(virtual_hosts);
            table.insert(listener.clone(), ListenerRoutes { virtual_hosts, other_hosts: *other_hosts });
        }
        (Self(table), sets)
    }

    /// The position of the set that holds the routes of a listener and a host.
    pub(super) fn set_of(&self, listener: &Name, host: &str) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        let Some(routes) = self.0.get(listener) else { return 0 };
        let matched = routes.virtual_hosts.visit_values(host, "/", |set, _| ControlFlow::Break(*set));
        matched.unwrap_or(routes.other_hosts)
    }
}

/// The places of these listeners, with the subsystems that are visible there: those that are bound to the place, to its
/// listener or to nothing. Those whose commands are TLS connections are not visible where there is no TLS.
fn visible_places<'a>(subsystems: &[Arc<Subsystem>], listeners: &[&'a ListenerRouting]) -> Vec<ListenerPlaces<'a>> {
    let place = |virtual_host, protocol| VisiblePlace { virtual_host, protocol, members: Vec::new() };
    let places_of = |listener: &&'a ListenerRouting| {
        let virtual_hosts = listener.hosts.iter().map(|host| place(Some(&host.name), host.protocol));
        std::iter::once(place(None, listener.protocol)).chain(virtual_hosts).collect()
    };
    let mut all: Vec<ListenerPlaces<'a>> = listeners.iter().map(places_of).collect();
    let mut positions: HashMap<&Name, Vec<usize>, RandomState> = HashMap::default();
    for (position, listener) in listeners.iter().enumerate() {
        positions.entry(&listener.listener).or_default().push(position);
    }
    for (index, subsystem) in subsystems.iter().enumerate() {
        let has_connections = subsystem.tls_mode.is_some();
        if subsystem.scope.listeners.is_empty() {
            all.iter_mut().flatten().for_each(|place| place.add(index, has_connections));
        }
        for ListenerScope { listener, virtual_host } in &subsystem.scope.listeners {
            for position in positions.get(listener).into_iter().flatten() {
                let bound = |place: &&mut VisiblePlace<'_>| {
                    virtual_host.is_none() || virtual_host.as_ref() == place.virtual_host
                };
                all[*position].iter_mut().filter(bound).for_each(|place| place.add(index, has_connections));
            }
        }
    }
    all
}

impl VisiblePlace<'_> {
    /// Adds a subsystem, once.
    fn add(&mut self, index: usize, has_connections: bool) {
        let is_hidden = has_connections && self.protocol == DownstreamProtocol::Http;
        if !is_hidden && self.members.last() != Some(&index) {
            self.members.push(index);
        }
    }
}

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
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::host_table::HostTable;
use crate::model::Name;
use crate::policy::shared_list::KeptEnds;
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

impl DownstreamProtocol {
    /// The word of the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
        }
    }
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
pub(super) struct ListenerTable {
    listeners: HashMap<Name, ListenerRoutes>,
    visible: VisibleSubsystems,
}

/// The sets of routes of one listener.
#[derive(Debug)]
struct ListenerRoutes {
    virtual_hosts: HostTable<usize>,
    /// The set of the hosts that no virtual host matches.
    other_hosts: usize,
}

/// The sets of routes, each with its position.
#[derive(Debug, Default)]
pub(super) struct RouteSets {
    positions: BTreeMap<RouteSet, usize>,
    any_connections: bool,
}

/// The routes that are visible at a place.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RouteSet {
    /// The positions of the subsystems.
    pub(super) members: Vec<usize>,
    /// Whether the place takes TLS connections of subsystems only: no HTTP.
    pub(super) has_no_http: bool,
    /// Whether there is a subsystem, here or elsewhere, whose commands are TLS connections.
    pub(super) any_connections: bool,
}

impl RouteSets {
    fn position(&mut self, members: Vec<usize>, protocol: DownstreamProtocol) -> usize {
        let (next, any_connections) = (self.positions.len(), self.any_connections);
        let set = RouteSet { members, has_no_http: protocol == DownstreamProtocol::Tls, any_connections };
        *self.positions.entry(set).or_insert(next)
    }

    /// The sets in the order of their positions.
    pub(super) fn into_ordered(self) -> Vec<RouteSet> {
        let mut ordered: Vec<_> = self.positions.into_iter().collect();
        ordered.sort_unstable_by_key(|(_, position)| *position);
        ordered.into_iter().map(|(set, _)| set).collect()
    }
}

/// What is visible on each listener, by the positions of subsystems.
#[derive(Debug, Default)]
struct VisibleSubsystems {
    listeners: Vec<ListenerRouting>,
    /// The subsystems that are bound to no listener.
    everywhere: Vec<usize>,
    /// The subsystems whose commands are TLS connections.
    connections: Vec<usize>,
    /// For each listener its places: all hosts that no virtual host matches, then the virtual hosts.
    places: Vec<Vec<VisiblePlace>>,
}

/// A listener, or one of its virtual hosts, with the positions of the subsystems that are visible there.
#[derive(Clone, Debug)]
struct VisiblePlace {
    virtual_host: Option<Name>,
    protocol: DownstreamProtocol,
    members: Vec<usize>,
}

impl ListenerTable {
    /// Builds the table. The first set, at position 0, is that of listeners without any binding. `before` is the table
    /// of other subsystems.
    pub(super) fn build(
        subsystems: &[Arc<Subsystem>],
        listeners: &[ListenerRouting],
        before: Option<(&Self, &[Arc<Subsystem>])>,
    ) -> (Self, RouteSets) {
        let before = before.map(|(before, known)| (&before.visible, known));
        let visible = VisibleSubsystems::new(subsystems, listeners, before);
        let any_bound = visible.everywhere.len() < subsystems.len();
        let any_connections = !visible.connections.is_empty();
        let mut sets = RouteSets { any_connections, ..RouteSets::default() };
        sets.position(visible.everywhere.clone(), DownstreamProtocol::default());
        let is_special = |protocol| match protocol {
            DownstreamProtocol::Https => false,
            DownstreamProtocol::Http => any_connections,
            DownstreamProtocol::Tls => true,
        };
        // Other listeners have the first set.
        let own_sets = listeners.iter().zip(&visible.places);
        let own_sets = own_sets.filter(|(one, _)| !one.hosts.is_empty() || any_bound || is_special(one.protocol));
        let mut table = HashMap::new();
        for (ListenerRouting { listener, hosts, .. }, places) in own_sets {
            let positions = places.iter().map(|place| sets.position(place.members.clone(), place.protocol));
            let positions: Vec<usize> = positions.collect();
            let [other_hosts, virtual_hosts @ ..] = &positions[..] else { continue };
            let virtual_hosts = hosts.iter().zip(virtual_hosts).map(|(VirtualHost { host, .. }, set)| {
                (Some(host.as_str()).filter(|host| *host != ANY_HOST), vec![("", *set)])
            });
            let virtual_hosts = HostTable::build(virtual_hosts);
            table.insert(listener.clone(), ListenerRoutes { virtual_hosts, other_hosts: *other_hosts });
        }
        (Self { listeners: table, visible }, sets)
    }

    /// The position of the set that holds the routes of a listener and a host.
    pub(super) fn set_of(&self, listener: &Name, host: &str) -> usize {
        if self.listeners.is_empty() {
            return 0;
        }
        let Some(routes) = self.listeners.get(listener) else { return 0 };
        let matched = routes.virtual_hosts.visit_values(host, "/", |set, _| ControlFlow::Break(*set));
        matched.unwrap_or(routes.other_hosts)
    }
}

impl VisibleSubsystems {
    /// What is visible of these subsystems: those that are bound to the place, to its listener or to nothing. Those
    /// whose commands are TLS connections are not visible where there is no TLS. Subsystems at an end of the list that
    /// `before` has at the same end are not looked at again.
    fn new(
        subsystems: &[Arc<Subsystem>],
        listeners: &[ListenerRouting],
        before: Option<(&Self, &[Arc<Subsystem>])>,
    ) -> Self {
        match before.filter(|(before, _)| before.listeners == listeners) {
            Some((before, known)) => {
                let kept = KeptEnds::between(known, subsystems);
                before.replaced(&Self::of(subsystems, kept.replaced_after(), listeners), &kept)
            }
            None => Self::of(subsystems, 0..subsystems.len(), listeners),
        }
    }

    /// What is visible of the subsystems at these positions.
    fn of(subsystems: &[Arc<Subsystem>], positions: Range<usize>, listeners: &[ListenerRouting]) -> Self {
        let place = |virtual_host, protocol| VisiblePlace { virtual_host, protocol, members: Vec::new() };
        let places_of = |listener: &ListenerRouting| {
            let virtual_hosts = listener.hosts.iter().map(|host| place(Some(host.name.clone()), host.protocol));
            std::iter::once(place(None, listener.protocol)).chain(virtual_hosts).collect()
        };
        let places = listeners.iter().map(places_of).collect();
        let mut visible = Self { listeners: listeners.to_vec(), places, ..Self::default() };
        let mut by_name: HashMap<&Name, Vec<usize>, RandomState> = HashMap::default();
        for (position, listener) in listeners.iter().enumerate() {
            by_name.entry(&listener.listener).or_default().push(position);
        }
        for index in positions {
            visible.add(index, &subsystems[index], &by_name);
        }
        visible
    }

    fn add(&mut self, index: usize, subsystem: &Subsystem, by_name: &HashMap<&Name, Vec<usize>, RandomState>) {
        let has_connections = subsystem.tls_mode.is_some();
        if has_connections {
            self.connections.push(index);
        }
        if subsystem.scope.listeners.is_empty() {
            self.everywhere.push(index);
            self.places.iter_mut().flatten().for_each(|place| place.add(index, has_connections));
        }
        for ListenerScope { listener, virtual_host } in &subsystem.scope.listeners {
            for position in by_name.get(listener).into_iter().flatten() {
                let bound = |place: &&mut VisiblePlace| virtual_host.is_none() || *virtual_host == place.virtual_host;
                self.places[*position].iter_mut().filter(bound).for_each(|place| place.add(index, has_connections));
            }
        }
    }

    /// The same, with `middle` between the kept ends.
    fn replaced(&self, middle: &Self, kept: &KeptEnds) -> Self {
        let places = self.places.iter().zip(&middle.places).map(|(before, middle)| {
            let places = before.iter().zip(middle);
            let places = places.map(|(before, middle)| VisiblePlace {
                members: kept.positions(&before.members, &middle.members),
                ..middle.clone()
            });
            places.collect()
        });
        Self {
            listeners: middle.listeners.clone(),
            everywhere: kept.positions(&self.everywhere, &middle.everywhere),
            connections: kept.positions(&self.connections, &middle.connections),
            places: places.collect(),
        }
    }
}

impl VisiblePlace {
    /// Adds a subsystem, once.
    fn add(&mut self, index: usize, has_connections: bool) {
        let is_hidden = has_connections && self.protocol == DownstreamProtocol::Http;
        if !is_hidden && self.members.last() != Some(&index) {
            self.members.push(index);
        }
    }
}

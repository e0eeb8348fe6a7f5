//! What a reload does to each listener (`ListenerPlan`), and what it reports: the difference between the live listeners
//! and those of a configuration.
//!
//! Guarantees:
//! - Pure.
//! - A socket whose address stays is handed on, whatever the name and the protocol of its listener become. Two
//!   listeners may swap their addresses.
//! - Connections stay open only if name, protocol and socket stay.
//!
//! Leaves to others: sockets (`binding`), and the drain of connections (`listener_set`).

use std::net::SocketAddr;

use crate::config::{GatewaySettings, ListenerSettings};
use crate::telemetry::ChangedItems;

use super::live_listeners::{BoundAddress, LiveListener};

/// The plan for the sockets of all listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerPlan {
    /// For each listener of the configuration: the live listener whose socket it gets. `None` if it needs a new one.
    pub(crate) sockets: Vec<Option<usize>>,
    /// What becomes of each live listener.
    pub(crate) fates: Vec<ListenerFate>,
}

/// What becomes of a live listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerFate {
    /// It continues, perhaps with other settings for new connections.
    Keep,
    /// Its socket continues under another name or protocol; its connections are drained.
    HandOver,
    /// Its socket is closed, and its connections are drained.
    Remove,
}

impl ListenerPlan {
    /// The plan from the `live` listeners to those of a configuration.
    pub(crate) fn new(live: &[LiveListener], wanted: &[ListenerSettings]) -> Self {
        let mut sockets: Vec<Option<usize>> = wanted.iter().map(|wanted| socket_at(live, wanted.address)).collect();
        // Port 0 is served by a socket that no other listener names.
        for (position, wanted) in wanted.iter().enumerate().filter(|(_, wanted)| wanted.address.port() == 0) {
            let own = live.iter().position(|live| live.name == wanted.name);
            sockets[position] =
                own.filter(|own| live[*own].address.serves(wanted.address, true) && !sockets.contains(&Some(*own)));
        }
        let fate = |(index, live): (usize, &LiveListener)| {
            let heir = sockets.iter().position(|socket| *socket == Some(index)).map(|heir| &wanted[heir]);
            match heir {
                Some(heir) if keeps_connections(live, heir) => ListenerFate::Keep,
                Some(_) => ListenerFate::HandOver,
                None => ListenerFate::Remove,
            }
        };
        let fates = live.iter().enumerate().map(fate).collect();
        Self { sockets, fates }
    }
}

fn socket_at(live: &[LiveListener], wanted: SocketAddr) -> Option<usize> {
    live.iter().position(|live| live.address.serves(wanted, false))
}

/// Whether the connections of `live` may stay open under the settings `heir`, which has its socket.
fn keeps_connections(live: &LiveListener, heir: &ListenerSettings) -> bool {
    live.name == heir.name && live.protocol == heir.protocol
}

/// Whether the admin listener continues on its socket.
pub(crate) fn keeps_admin(live: Option<BoundAddress>, wanted: Option<SocketAddr>) -> bool {
    live.zip(wanted).is_some_and(|(live, wanted)| live.serves(wanted, true))
}

/// The listeners that were added, removed, renamed and changed, by name.
pub(crate) fn listener_changes(before: &[ListenerSettings], now: &[ListenerSettings]) -> ChangedItems {
    let by_name = |all: &'_ [ListenerSettings], one: &ListenerSettings| all.iter().any(|other| other.name == one.name);
    let mut removed: Vec<&ListenerSettings> = before.iter().filter(|one| !by_name(now, one)).collect();
    let (mut added, mut renamed) = (Vec::new(), Vec::new());
    for new in now.iter().filter(|one| !by_name(before, one)) {
        let same = |old: &&ListenerSettings| old.address == new.address && new.address.port() != 0;
        match removed.iter().position(same) {
            Some(position) => renamed.push(format!("{} -> {}", removed.remove(position).name, new.name)),
            None => added.push(new.name.to_string()),
        }
    }
    let both = now.iter().filter_map(|new| Some((before.iter().find(|old| old.name == new.name)?, new)));
    let changed = both.filter_map(|(old, new)| {
        let keys = changed_keys(old, new);
        (!keys.is_empty()).then(|| format!("{} ({})", new.name, keys.join(", ")))
    });
    ChangedItems {
        changed: changed.collect(),
        added: added.into_iter().collect(),
        removed: removed.iter().map(|listener| listener.name.to_string()).collect(),
        renamed: renamed.into_iter().collect(),
    }
}

/// The keys in which two listeners of one name differ. Files and hosts are reported with the other TLS changes.
fn changed_keys(old: &ListenerSettings, new: &ListenerSettings) -> Vec<&'static str> {
    let keys = [
        ("address", old.address != new.address),
        ("protocol", old.protocol != new.protocol),
        ("connections", old.connections != new.connections),
        ("proxyProtocol", old.proxies.protocol != new.proxies.protocol),
        ("forwardedFor", old.proxies.forwarded_for != new.proxies.forwarded_for),
    ];
    keys.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key).collect()
}

/// The keys of the admin listener that changed.
pub(crate) fn admin_changes(before: &GatewaySettings, now: &GatewaySettings) -> Vec<String> {
    let keys = [("admin.address", before.admin != now.admin), ("admin.hosts", before.admin_hosts != now.admin_hosts)];
    keys.into_iter().filter(|(_, has_changed)| *has_changed).map(|(key, _)| key.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::compile_text;
    use crate::model::NameInterner;
    use ListenerFate::{HandOver, Keep, Remove};

    const A: &str = "a https 127.0.0.1:1";
    const B: &str = "b https 127.0.0.1:2";

    /// Listeners written as `name protocol address`.
    fn settings(listeners: &[&str]) -> GatewaySettings {
        let listeners: Vec<_> = listeners
            .iter()
            .map(|written| {
                let [name, protocol, address] = written.split(' ').collect::<Vec<_>>()[..] else { panic!("{written}") };
                let tls = serde_json::json!({ "certificate": "c", "key": "k" });
                let tls = if protocol == "https" { tls } else { serde_json::Value::Null };
                serde_json::json!({ "name": name, "protocol": protocol, "address": address, "tls": tls })
            })
            .collect();
        let document = serde_json::json!({
            "listeners": listeners, "ledger": { "path": "a.db" },
            "departments": [{ "id": "a", "callers": [{ "dns": "a.example" }] }],
        });
        let compiled = compile_text(&document.to_string(), Path::new("/"), &NameInterner::default());
        compiled.unwrap_or_else(|problems| panic!("{problems}")).settings
    }

    /// Live listeners; port 0 is bound to 40000 and the position.
    fn live(listeners: &[&str]) -> Vec<LiveListener> {
        if listeners.is_empty() {
            return Vec::new(); // at start
        }
        let settings = settings(listeners).listeners;
        let bound = |(position, listener): (u16, &ListenerSettings)| {
            let configured = listener.address;
            let mut bound = configured;
            if bound.port() == 0 {
                bound.set_port(40_000 + position);
            }
            LiveListener {
                name: listener.name.clone(),
                address: BoundAddress { configured, bound },
                protocol: listener.protocol,
            }
        };
        (0..).zip(&settings).map(bound).collect()
    }

    #[test]
    fn each_listener_gets_its_socket_and_each_live_one_its_fate() {
        type Row =
            (&'static [&'static str], &'static [&'static str], &'static [Option<usize>], &'static [ListenerFate]);
        let rows: [(&str, Row); 14] = [
            ("unchanged", (&[A, B], &[A, B], &[Some(0), Some(1)], &[Keep, Keep])),
            ("another order", (&[A, B], &[B, A], &[Some(1), Some(0)], &[Keep, Keep])),
            ("added", (&[A], &[A, B], &[Some(0), None], &[Keep])),
            ("the first ones", (&[], &[A, B], &[None, None], &[])),
            ("removed", (&[A, B], &[B], &[Some(1)], &[Remove, Keep])),
            ("another port", (&[A], &["a https 127.0.0.1:3"], &[None], &[Remove])),
            ("another address", (&[A], &["a https 127.0.0.2:1"], &[None], &[Remove])),
            ("renamed", (&[A], &["c https 127.0.0.1:1"], &[Some(0)], &[HandOver])),
            ("another protocol", (&[A], &["a http 127.0.0.1:1"], &[Some(0)], &[HandOver])),
            (
                "swapped",
                (&[A, B], &["a https 127.0.0.1:2", "b https 127.0.0.1:1"], &[Some(1), Some(0)], &[HandOver, HandOver]),
            ),
            (
                "moved to the address of one that goes",
                (&[A, B], &["a https 127.0.0.1:2"], &[Some(1)], &[Remove, HandOver]),
            ),
            (
                "port 0 keeps the socket of its name",
                (
                    &["a https 127.0.0.1:0", "b https 127.0.0.1:0"],
                    &["b https 127.0.0.1:0", "c https 127.0.0.1:0"],
                    &[Some(1), None],
                    &[Remove, Keep],
                ),
            ),
            (
                "the assigned port may be written",
                (&["a https 127.0.0.1:0"], &["a https 127.0.0.1:40000"], &[Some(0)], &[Keep]),
            ),
            (
                "port 0 does not take a socket that another one names",
                (
                    &["a https 127.0.0.1:0"],
                    &["a https 127.0.0.1:0", "b https 127.0.0.1:40000"],
                    &[None, Some(0)],
                    &[HandOver],
                ),
            ),
        ];
        for (case, (before, now, sockets, fates)) in rows {
            let plan = ListenerPlan::new(&live(before), &settings(now).listeners);
            assert_eq!((plan.sockets.as_slice(), plan.fates.as_slice()), (sockets, fates), "{case}");
        }
    }

    #[test]
    fn changes_name_listeners_and_keys() {
        for (before, now, text) in [
            (&[A, B][..], &[B, A][..], None),
            (&[A], &[A, B], Some("1 added: b")),
            (&[A, B], &[A], Some("1 removed: b")),
            (&[A], &[B], Some("1 added: b; 1 removed: a")),
            (&[A], &["c https 127.0.0.1:1"], Some("1 renamed: a -> c")),
            (&[A], &["a http 127.0.0.1:3"], Some("1 changed: a (address, protocol)")),
        ] {
            let changes = listener_changes(&settings(before).listeners, &settings(now).listeners);
            assert_eq!(changes.to_text().as_deref(), text, "{before:?} {now:?}");
        }
        let (mut before, now) = (settings(&[A]), settings(&[A]));
        assert!(admin_changes(&before, &now).is_empty());
        before.listeners[0].connections = Some(1);
        before.listeners[0].proxies.protocol.add_range("10.0.0.0/8").expect("a range");
        assert_eq!(
            listener_changes(&before.listeners, &now.listeners).to_text().as_deref(),
            Some("1 changed: a (connections, proxyProtocol)")
        );
        before.admin = "127.0.0.1:9090".parse().ok();
        before.admin_hosts = vec!["a.example".to_owned()];
        assert_eq!(admin_changes(&before, &now), ["admin.address", "admin.hosts"]);
    }

    #[test]
    fn admin_listener_keeps_the_socket_of_its_address() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let live = BoundAddress { configured: address("127.0.0.1:0"), bound: address("127.0.0.1:9") };
        for (live, wanted, keeps) in [
            (Some(live), Some("127.0.0.1:0"), true),
            (Some(live), Some("127.0.0.1:9"), true),
            (Some(live), Some("127.0.0.2:0"), false),
            (Some(live), Some("127.0.0.1:8"), false),
            (Some(live), None, false),
            (None, Some("127.0.0.1:0"), false),
            (None, None, false),
        ] {
            assert_eq!(keeps_admin(live, wanted.map(address)), keeps, "{live:?} {wanted:?}");
        }
    }
}

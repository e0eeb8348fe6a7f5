//! What a reload changes in keys, trust and hosts, in words for `/config` and the log.
//!
//! Guarantees: pure; a certificate or revocation list that is replaced by one of the same name is named with both ends.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::identity::{Expiry, ServerTls, SubsystemTls};

use super::Organs;
use super::reload::Read;

/// What `read` changes in what `organs` have live.
pub(super) fn tls_changes(organs: &Organs, read: &Read) -> Vec<String> {
    let listeners = read.tls.iter().filter_map(|(name, new)| {
        let live: &Arc<ArcSwap<ServerTls>> = organs.tls.get(name)?;
        Some(of_listener(&format!("listener {name}"), &live.load(), new))
    });
    let live = organs.subsystem_tls.load();
    let mut subsystems: Vec<_> = read.subsystem_tls.iter().collect();
    subsystems.sort_by_key(|(name, _)| *name);
    let subsystems = subsystems.into_iter().filter_map(|(name, new)| {
        let live: &SubsystemTls = live.get(name)?;
        Some(of_expiries(&format!("subsystem {name}"), &live.expiries, &new.expiries))
    });
    listeners.chain(subsystems).flatten().collect()
}

fn of_listener(whose: &str, live: &ServerTls, new: &ServerTls) -> Vec<String> {
    let mut changes = of_expiries(whose, &live.expiries, &new.expiries);
    if changes.is_empty() && !live.trusts_as(new) {
        changes.push(format!("{whose}: clientAuth, an authority or a revocation list has changed"));
    }
    if live.names != new.names {
        changes.push(format!("{whose}: other hosts are served"));
    }
    changes
}

fn of_expiries(whose: &str, live: &[Expiry], new: &[Expiry]) -> Vec<String> {
    let mut gone: Vec<&Expiry> = live.iter().filter(|expiry| !new.contains(expiry)).collect();
    let mut changes = Vec::new();
    for expiry in new.iter().filter(|expiry| !live.contains(expiry)) {
        let what = format!("{whose}: {} {}", noun(expiry.role), expiry.name);
        let same = gone.iter().position(|one| (one.role, &one.name) == (expiry.role, &expiry.name));
        changes.push(match same {
            Some(position) => format!("{what} ends {}, before {}", expiry.at, gone.swap_remove(position).at),
            None => format!("{what} is new and ends {}", expiry.at),
        });
    }
    changes.extend(gone.into_iter().map(|expiry| format!("{whose}: {} {} is gone", noun(expiry.role), expiry.name)));
    changes
}

fn noun(role: &str) -> &str {
    match role {
        "server" => "certificate",
        "ca" => "authority",
        "crl" => "revocation list of",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_named_with_both_ends() {
        let expiry =
            |role, name: &str, at: &str| Expiry { role, name: name.to_owned(), at: at.parse().expect("a time") };
        let live = [
            expiry("server", "CN=a", "2026-12-01T00:00:00Z"),
            expiry("ca", "CN=City", "2030-01-01T00:00:00Z"),
            expiry("ca", "CN=Old", "2027-01-01T00:00:00Z"),
            expiry("crl", "CN=City", "2026-12-02T00:00:00Z"),
        ];
        let new = [
            expiry("server", "CN=a", "2027-12-01T00:00:00Z"),
            expiry("ca", "CN=City", "2030-01-01T00:00:00Z"),
            expiry("ca", "CN=New", "2036-01-01T00:00:00Z"),
            expiry("crl", "CN=City", "2026-12-09T00:00:00Z"),
        ];
        assert_eq!(
            of_expiries("listener a", &live, &new),
            [
                "listener a: certificate CN=a ends 2027-12-01T00:00:00Z, before 2026-12-01T00:00:00Z",
                "listener a: authority CN=New is new and ends 2036-01-01T00:00:00Z",
                "listener a: revocation list of CN=City ends 2026-12-09T00:00:00Z, before 2026-12-02T00:00:00Z",
                "listener a: authority CN=Old is gone",
            ]
        );
        assert_eq!(of_expiries("listener a", &live, &live), Vec::<String>::new());
    }
}

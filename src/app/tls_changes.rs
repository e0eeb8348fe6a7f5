//! The changes of a reload to certificates, trust stores and hosts, as text for `/config` and the log.
//!
//! Guarantees:
//! - A certificate or revocation list that is replaced by one of the same name is reported with both expiry dates.
//! - A file with changed contents is reported with the prefixes of both digests, as `sha256sum` prints them.
//! - No digest of a private key is shown.
//!
//! Leaves to others: the changes of the policy (`policy`).

use crate::config::LoadedTls;
use crate::identity::{ExpiringItem, FileDigest, ServerTls};

use super::components::SharedComponents;

/// The changes from the live `components` to `loaded`.
pub(crate) fn tls_changes(components: &SharedComponents, loaded: &LoadedTls) -> Vec<String> {
    let (mut changes, mut files) = (Vec::new(), Vec::new());
    let listener_tls = components.listener_tls.load();
    for (name, new) in &loaded.listeners {
        let Some(live) = listener_tls.get(name) else { continue };
        let (whose, live) = (format!("listener {name}"), live.load());
        changes.extend(listener_changes(&whose, &live, new));
        files.extend(changed_files(&whose, &live.files, &new.files));
    }
    let live = components.traffic.subsystem_tls.load();
    for (name, new) in &loaded.subsystems {
        let Some(live) = live.get(name) else { continue };
        let whose = format!("subsystem {name}");
        changes.extend(expiry_changes(&whose, &live.expiries, &new.expiries));
        files.extend(changed_files(&whose, &live.files, &new.files));
    }
    changes.extend(files);
    changes
}

/// The files in `new` whose contents differ in `live`, as text.
fn changed_files(whose: &str, live: &[FileDigest], new: &[FileDigest]) -> Vec<String> {
    let both = new.iter().filter_map(|new| Some((new, live.iter().find(|live| live.path == new.path)?)));
    let changed = both.filter(|(new, live)| new.sha256 != live.sha256);
    let words = |(new, live): (&FileDigest, &FileDigest)| {
        format!("{whose}: {} has changed (SHA-256 {}, previously {})", new.path.display(), new.sha256, live.sha256)
    };
    changed.map(words).collect()
}

fn listener_changes(whose: &str, live: &ServerTls, new: &ServerTls) -> Vec<String> {
    let mut changes = expiry_changes(whose, &live.expiries, &new.expiries);
    if changes.is_empty() && !live.has_same_trust(new) {
        changes.push(format!("{whose}: clientAuth, an authority or a revocation list has changed"));
    }
    if live.hosts != new.hosts {
        changes.push(format!("{whose}: the served hosts have changed"));
    }
    changes
}

fn expiry_changes(whose: &str, live: &[ExpiringItem], new: &[ExpiringItem]) -> Vec<String> {
    let mut removed: Vec<&ExpiringItem> = live.iter().filter(|expiry| !new.contains(expiry)).collect();
    let mut changes = Vec::new();
    for expiry in new.iter().filter(|expiry| !live.contains(expiry)) {
        let what = format!("{whose}: {} {}", role_noun(expiry.role), expiry.name);
        let same = removed.iter().position(|one| (one.role, &one.name) == (expiry.role, &expiry.name));
        changes.push(match same {
            Some(position) => {
                format!("{what} expires {}, previously {}", expiry.expires_at, removed.swap_remove(position).expires_at)
            }
            None => format!("{what} is new and expires {}", expiry.expires_at),
        });
    }
    changes.extend(
        removed.into_iter().map(|expiry| format!("{whose}: {} {} was removed", role_noun(expiry.role), expiry.name)),
    );
    changes
}

fn role_noun(role: &str) -> &str {
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
    fn changed_file_is_reported_with_both_digests() {
        let digest = |path: &str, sha256: &str| FileDigest { path: path.into(), sha256: sha256.to_owned() };
        let live = [digest("/a.pem", "0a"), digest("/b.pem", "0b"), digest("/old.pem", "0c")];
        let new = [digest("/a.pem", "1a"), digest("/b.pem", "1b"), digest("/new.pem", "0c")];
        assert_eq!(changed_files("listener a", &live, &live), Vec::<String>::new());
        assert_eq!(
            changed_files("listener a", &live, &new),
            [
                "listener a: /a.pem has changed (SHA-256 1a, previously 0a)",
                "listener a: /b.pem has changed (SHA-256 1b, previously 0b)"
            ]
        );
    }

    #[test]
    fn replaced_certificate_is_reported_with_both_expiry_dates() {
        let expiry = |role, name: &str, at: &str| ExpiringItem {
            role,
            name: name.to_owned(),
            expires_at: at.parse().expect("a time"),
        };
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
            expiry_changes("listener a", &live, &new),
            [
                "listener a: certificate CN=a expires 2027-12-01T00:00:00Z, previously 2026-12-01T00:00:00Z",
                "listener a: authority CN=New is new and expires 2036-01-01T00:00:00Z",
                "listener a: revocation list of CN=City expires 2026-12-09T00:00:00Z, previously 2026-12-02T00:00:00Z",
                "listener a: authority CN=Old was removed",
            ]
        );
        assert_eq!(expiry_changes("listener a", &live, &live), Vec::<String>::new());
    }
}

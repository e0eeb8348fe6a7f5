//! The changes of a reload to certificates, trust stores and hosts, as text for `/config` and the log.
//!
//! Guarantees:
//! - A certificate or revocation list that is replaced by one of the same name is reported with both expiry dates.
//! - A file with changed contents is reported with the prefixes of both digests, as `sha256sum` prints them.
//! - No digest of a private key is shown.
//!
//! Leaves to others: the changes of the policy (`policy`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{self, Configuration};
use crate::identity::{ExpiringItem, ServerTls, SubsystemTls, SubsystemTlsFiles, TlsFiles};

use super::components::SharedComponents;
use super::reload::LoadedConfig;

/// The first 12 hex digits of the SHA-256 of every certificate and revocation list file; `None` if a file could not be
/// read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FileDigests(BTreeMap<PathBuf, Option<String>>);

impl FileDigests {
    /// Reads the files that a configuration names.
    pub(crate) fn read_digests(configuration: &Configuration) -> Self {
        let listeners = configuration.settings.listeners.iter().flat_map(|listener| public_files(&listener.tls));
        let subsystems =
            configuration.subsystem_tls.iter().flat_map(|subsystem| public_subsystem_files(&subsystem.files));
        let marked = |path: &Path| (path.to_owned(), config::digest_of_file(path));
        Self(listeners.chain(subsystems).map(marked).collect())
    }

    /// The files in `files` whose contents differ in `new`, as text.
    fn changed_files<'a>(&self, new: &Self, whose: &str, files: impl Iterator<Item = &'a Path>) -> Vec<String> {
        let both = files.filter_map(|path| Some((path, self.0.get(path)?, new.0.get(path)?)));
        let changed = both.filter(|(_, old, new)| old != new);
        let word = |mark: &Option<String>| mark.clone().unwrap_or_else(|| "unreadable".to_owned());
        let words = |(path, old, new): (&Path, _, _)| {
            format!("{whose}: {} has changed (SHA-256 {}, previously {})", path.display(), word(new), word(old))
        };
        changed.map(words).collect()
    }
}

fn public_files(files: &TlsFiles) -> impl Iterator<Item = &Path> {
    let auth = files.client_auth.iter().flat_map(|auth| auth.authorities.iter().chain(&auth.revocation_lists));
    [&files.certificate].into_iter().chain(auth).map(PathBuf::as_path)
}

fn public_subsystem_files(files: &SubsystemTlsFiles) -> impl Iterator<Item = &Path> {
    files.client_certificate.iter().map(|(certificate, _)| certificate).chain(&files.authorities).map(PathBuf::as_path)
}

/// The changes from the live `components` to `loaded`.
pub(crate) fn tls_changes(components: &SharedComponents, digests: &FileDigests, loaded: &LoadedConfig) -> Vec<String> {
    let configuration = &loaded.configuration;
    let of_listeners = configuration.settings.listeners.iter().flat_map(|listener| {
        digests.changed_files(&loaded.digests, &format!("listener {}", listener.name), public_files(&listener.tls))
    });
    let of_subsystems = configuration.subsystem_tls.iter().flat_map(|subsystem| {
        digests.changed_files(
            &loaded.digests,
            &format!("subsystem {}", subsystem.name),
            public_subsystem_files(&subsystem.files),
        )
    });
    expiry_and_host_changes(components, loaded).into_iter().chain(of_listeners).chain(of_subsystems).collect()
}

fn expiry_and_host_changes(components: &SharedComponents, loaded: &LoadedConfig) -> Vec<String> {
    let listeners = loaded.tls.iter().filter_map(|(name, new)| {
        let live: &Arc<ArcSwap<ServerTls>> = components.listener_tls.get(name)?;
        Some(listener_changes(&format!("listener {name}"), &live.load(), new))
    });
    let live = components.traffic.subsystem_tls.load();
    let mut subsystems: Vec<_> = loaded.subsystem_tls.iter().collect();
    subsystems.sort_by_key(|(name, _)| *name);
    let subsystems = subsystems.into_iter().filter_map(|(name, new)| {
        let live: &SubsystemTls = live.get(name)?;
        Some(expiry_changes(&format!("subsystem {name}"), &live.expiries, &new.expiries))
    });
    listeners.chain(subsystems).flatten().collect()
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
        let digests = |a: &str, b: Option<&str>| {
            let mark = |path: &str, mark: Option<&str>| (PathBuf::from(path), mark.map(str::to_owned));
            FileDigests(BTreeMap::from([mark("/a.pem", Some(a)), mark("/b.pem", b)]))
        };
        let files = || ["/a.pem", "/b.pem", "/new.pem"].into_iter().map(Path::new);
        let (old, new) = (digests("0a", Some("0b")), digests("1a", None));
        assert_eq!(old.changed_files(&old, "listener a", files()), Vec::<String>::new());
        assert_eq!(
            old.changed_files(&new, "listener a", files()),
            [
                "listener a: /a.pem has changed (SHA-256 1a, previously 0a)",
                "listener a: /b.pem has changed (SHA-256 unreadable, previously 0b)"
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

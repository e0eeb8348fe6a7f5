//! What a reload changes in keys, trust and hosts, in words for `/config` and the log.
//!
//! Guarantees: a certificate or revocation list that is replaced by one of the same name is named with both ends; a file with
//! another content is named with the beginnings of both digests, which `sha256sum` shows. No digest of a key is shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::{self, Configuration};
use crate::identity::{Expiry, ServerTls, SubsystemTls, SubsystemTlsFiles, TlsFiles};

use super::Organs;
use super::reload::Read;

/// The first 12 hex digits of the SHA-256 of every file of certificates and revocation lists; nothing for one that could not be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FileMarks(BTreeMap<PathBuf, Option<String>>);

impl FileMarks {
    /// Reads the files that a configuration names.
    pub(super) fn of(configuration: &Configuration) -> Self {
        let listeners = configuration.settings.listeners.iter().flat_map(|listener| shown_files(&listener.tls));
        let subsystems =
            configuration.subsystem_tls.iter().flat_map(|subsystem| shown_subsystem_files(&subsystem.files));
        let marked = |path: &Path| (path.to_owned(), config::digest_of_file(path));
        Self(listeners.chain(subsystems).map(marked).collect())
    }

    /// The files of these that have other contents in `new`, in words.
    fn changes<'a>(&self, new: &Self, whose: &str, files: impl Iterator<Item = &'a Path>) -> Vec<String> {
        let both = files.filter_map(|path| Some((path, self.0.get(path)?, new.0.get(path)?)));
        let changed = both.filter(|(_, old, new)| old != new);
        let word = |mark: &Option<String>| mark.clone().unwrap_or_else(|| "unreadable".to_owned());
        let words = |(path, old, new): (&Path, _, _)| {
            format!("{whose}: {} has changed (SHA-256 {}, before {})", path.display(), word(new), word(old))
        };
        changed.map(words).collect()
    }
}

fn shown_files(files: &TlsFiles) -> impl Iterator<Item = &Path> {
    let auth = files.client_auth.iter().flat_map(|auth| auth.authorities.iter().chain(&auth.revocation));
    [&files.certificate].into_iter().chain(auth).map(PathBuf::as_path)
}

fn shown_subsystem_files(files: &SubsystemTlsFiles) -> impl Iterator<Item = &Path> {
    files.own.iter().map(|(certificate, _)| certificate).chain(&files.authorities).map(PathBuf::as_path)
}

/// What `read` changes in what `organs` have live.
pub(super) fn tls_changes(organs: &Organs, marks: &FileMarks, read: &Read) -> Vec<String> {
    let configuration = &read.configuration;
    let of_listeners = configuration.settings.listeners.iter().flat_map(|listener| {
        marks.changes(&read.marks, &format!("listener {}", listener.name), shown_files(&listener.tls))
    });
    let of_subsystems = configuration.subsystem_tls.iter().flat_map(|subsystem| {
        marks.changes(&read.marks, &format!("subsystem {}", subsystem.name), shown_subsystem_files(&subsystem.files))
    });
    ends_and_hosts(organs, read).into_iter().chain(of_listeners).chain(of_subsystems).collect()
}

fn ends_and_hosts(organs: &Organs, read: &Read) -> Vec<String> {
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
    fn a_file_with_another_content_is_named_with_both_digests() {
        let marks = |a: &str, b: Option<&str>| {
            let mark = |path: &str, mark: Option<&str>| (PathBuf::from(path), mark.map(str::to_owned));
            FileMarks(BTreeMap::from([mark("/a.pem", Some(a)), mark("/b.pem", b)]))
        };
        let files = || ["/a.pem", "/b.pem", "/new.pem"].into_iter().map(Path::new);
        let (old, new) = (marks("0a", Some("0b")), marks("1a", None));
        assert_eq!(old.changes(&old, "listener a", files()), Vec::<String>::new());
        assert_eq!(
            old.changes(&new, "listener a", files()),
            [
                "listener a: /a.pem has changed (SHA-256 1a, before 0a)",
                "listener a: /b.pem has changed (SHA-256 unreadable, before 0b)"
            ]
        );
    }

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

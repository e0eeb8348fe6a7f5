//! `listeners`: where callers come in.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::config::document::{ClientAuth as ClientAuthDocument, Listener, Tls};
use crate::config::leaf;
use crate::config::{ListenerSettings, Proxies};
use crate::identity::{ClientAuth, ExpiredLists, HostPattern, MissingName, NamePolicy, TlsFiles};

use crate::model::Networks;

use super::place::Place;
use super::settings::{self, address};

pub(super) fn compile(listeners: &[Listener], folder: &Path, place: &Place<'_>) -> Vec<ListenerSettings> {
    if listeners.is_empty() {
        place.problem("without a listener nobody can call; name at least one");
    }
    let mut seen = (HashSet::new(), HashSet::new());
    let mut compiled = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.iter().enumerate() {
        let place = place.item(index);
        let read = one(listener, folder, &place);
        if !seen.0.insert(read.name.clone()) {
            place.key("name").problem(format!("{} names two listeners", read.name));
        }
        if read.address.port() != 0 && !seen.1.insert(read.address) {
            place.key("address").problem(format!("{} is the address of two listeners", read.address));
        }
        compiled.push(read);
    }
    compiled
}

/// Hosts of one listener: a connection without a server name looks through all of them for each command.
const SERVER_NAMES_MAX: usize = 256;

fn one(listener: &Listener, folder: &Path, place: &Place<'_>) -> ListenerSettings {
    ListenerSettings {
        name: place.key("name").name(&listener.name),
        address: address(&listener.address, &place.key("address")),
        tls: tls(&listener.tls, folder, &place.key("tls")),
        connections: listener.connections.map(|written| settings::cap(Some(written), 1, &place.key("connections"))),
        proxies: Proxies {
            protocol: networks(&listener.proxy_protocol, &place.key("proxyProtocol")),
            forwarded_for: networks(&listener.forwarded_for, &place.key("forwardedFor")),
        },
    }
}

fn networks(ranges: &[String], place: &Place<'_>) -> Networks {
    let mut networks = Networks::default();
    for (index, range) in ranges.iter().enumerate() {
        let _ = place.item(index).read(networks.add(range)); // what is wrong has been noted
    }
    networks
}

fn tls(tls: &Tls, folder: &Path, place: &Place<'_>) -> TlsFiles {
    TlsFiles {
        certificate: file(&tls.certificate, folder, &place.key("certificate")),
        key: file(&tls.key, folder, &place.key("key")),
        client_auth: tls.client_auth.as_ref().map(|auth| client_auth(auth, folder, &place.key("clientAuth"))),
        names: names(tls, place),
    }
}

fn names(tls: &Tls, place: &Place<'_>) -> NamePolicy {
    let words = [("allow", MissingName::Allow), ("refuse", MissingName::Refuse)];
    let missing = tls.missing_server_name.as_deref();
    let missing = missing.and_then(|word| place.key("missingServerName").read(leaf::word(word, &words)));
    let names = tls.server_names.as_ref().map(|names| patterns(names, &place.key("serverNames")));
    NamePolicy { names, missing: missing.unwrap_or_default() }
}

fn patterns(names: &[String], place: &Place<'_>) -> Vec<HostPattern> {
    if names.is_empty() || names.len() > SERVER_NAMES_MAX {
        place.problem(format!(
            "between 1 and {SERVER_NAMES_MAX} hosts can be named; leave it out for those of the certificate"
        ));
    }
    let mut read: Vec<HostPattern> = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let place = place.item(index);
        let Some(pattern) = place.read(HostPattern::parse(name)) else { continue };
        if read.contains(&pattern) {
            place.problem(format!("{pattern} stands here twice"));
        }
        read.push(pattern);
    }
    read
}

fn client_auth(auth: &ClientAuthDocument, folder: &Path, place: &Place<'_>) -> ClientAuth {
    let authorities = place.key("authorities");
    if auth.authorities.is_empty() {
        authorities.problem("without an authority no certificate can be trusted; name at least one");
    }
    let mode = auth.mode.as_deref().unwrap_or("required");
    let words = [("refuse", ExpiredLists::Refuse), ("allow", ExpiredLists::Allow)];
    let expired = auth.expired_revocation.as_deref();
    let expired = expired.and_then(|word| place.key("expiredRevocation").read(leaf::word(word, &words)));
    let required = place.key("mode").read(leaf::word(mode, &[("required", true), ("optional", false)]));
    ClientAuth {
        required: required.unwrap_or(true),
        authorities: files(&auth.authorities, folder, &authorities),
        revocation: files(&auth.revocation, folder, &place.key("revocation")),
        expired_lists: expired.unwrap_or_default(),
    }
}

pub(super) fn files(paths: &[PathBuf], folder: &Path, place: &Place<'_>) -> Vec<PathBuf> {
    paths.iter().enumerate().map(|(index, path)| file(path, folder, &place.item(index))).collect()
}

pub(super) fn file(path: &Path, folder: &Path, place: &Place<'_>) -> PathBuf {
    if path.as_os_str().is_empty() {
        place.problem("a path is missing");
    }
    folder.join(path)
}

//! Compiles `listeners`: the addresses at which callers connect.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;

use crate::config::document::{
    CertificateDocument, ClientAuthDocument, ListenerDocument, TlsDocument, VirtualHostDocument,
};
use crate::config::settings::gateway_settings::{ListenerSettings, TrustedProxies};
use crate::identity::{
    AuthRefusal, CertificateFiles, CertificateForwarding, ClientAuth, ClientAuthMode, ExpiredCrlPolicy, HostPattern,
    MissingSni, SubjectPattern, TlsFiles, is_memory_name,
};
use crate::model::NetworkRanges;
use crate::policy::{ANY_HOST, DownstreamProtocol, VirtualHost};

use super::compile_context::CompileContext;
use super::doc_path::DocPath;
use super::scalars;
use super::values::parse_address;

pub(crate) fn compile_listeners(
    listeners: &[Arc<ListenerDocument>],
    context: CompileContext<'_>,
    place: &DocPath<'_>,
) -> Vec<ListenerSettings> {
    if listeners.is_empty() && !context.may_be_empty {
        place.problem("at least one listener is required");
    }
    let mut seen = (HashSet::new(), HashSet::new());
    let mut compiled = Vec::with_capacity(listeners.len());
    for (index, listener) in listeners.iter().enumerate() {
        let place = place.item(index);
        let read = compile_listener(listener, context.sources.folder_of_listener(index), &place);
        if !seen.0.insert(read.name.clone()) {
            place.key("name").problem(format!("{} is the name of two listeners", read.name));
        }
        if read.address.port() != 0 && !seen.1.insert(read.address) {
            place.key("address").problem(format!("{} is the address of two listeners", read.address));
        }
        compiled.push(read);
    }
    compiled
}

/// Limit of hosts per certificate.
const SERVER_NAMES_MAX: usize = 256;
/// Limit of certificates per listener.
const CERTIFICATES_MAX: usize = 1_024;

fn compile_listener(listener: &ListenerDocument, folder: &Path, place: &DocPath<'_>) -> ListenerSettings {
    let (protocol, tls) = compile_security(listener, folder, place);
    ListenerSettings {
        name: place.key("name").parse_name(&listener.name),
        address: parse_address(&listener.address, &place.key("address")),
        protocol,
        tls,
        connections: listener
            .connections
            .map(|written| super::values::count_or(Some(written), 1, &place.key("connections"))),
        proxies: TrustedProxies {
            protocol: compile_networks(&listener.proxy_protocol, &place.key("proxyProtocol")),
            forwarded_for: compile_networks(&listener.forwarded_for, &place.key("forwardedFor")),
        },
        virtual_hosts: compile_virtual_hosts(&listener.virtual_hosts, protocol, &place.key("virtualHosts")),
        public_port: listener.public_port.and_then(|port| compile_port(port, &place.key("publicPort"))),
    }
}

fn compile_port(written: u64, place: &DocPath<'_>) -> Option<u16> {
    let port = u16::try_from(written).ok().filter(|port| *port != 0);
    port.or_else(|| place.missing("is not a port; write a whole number between 1 and 65535"))
}

fn parse_virtual_host(text: &str) -> Result<String, String> {
    if text == ANY_HOST { Ok(text.to_owned()) } else { scalars::parse_host_pattern(text) }
}

/// The most virtual hosts of a listener.
const VIRTUAL_HOSTS_MAX: usize = 1024;

fn compile_virtual_hosts(
    written: &[VirtualHostDocument],
    of_listener: DownstreamProtocol,
    place: &DocPath<'_>,
) -> Vec<VirtualHost> {
    if written.len() > VIRTUAL_HOSTS_MAX {
        place.problem(format!("{} virtual hosts; write at most {VIRTUAL_HOSTS_MAX}", written.len()));
    }
    let mut seen = (HashSet::new(), HashSet::new());
    let mut compiled = Vec::with_capacity(written.len());
    for (index, one) in written.iter().enumerate() {
        let place = place.item(index);
        let name = place.key("name").parse_name(&one.name);
        let Some(host) = place.key("host").value_or_problem(parse_virtual_host(&one.host)) else { continue };
        if !seen.0.insert(name.clone()) {
            place.key("name").problem(format!("{name} is the name of two virtual hosts"));
        }
        if !seen.1.insert(host.clone()) {
            place.key("host").problem(format!("{host} is the host of two virtual hosts"));
        }
        let protocol = compile_host_protocol(one, of_listener, &place.key("protocol"));
        compiled.push(VirtualHost { name, host, protocol });
    }
    compiled
}

/// Compiles the protocol of a virtual host. A listener has TLS for all its virtual hosts, or for none.
fn compile_host_protocol(
    written: &VirtualHostDocument,
    of_listener: DownstreamProtocol,
    place: &DocPath<'_>,
) -> DownstreamProtocol {
    let Some(word) = written.protocol.as_deref() else { return of_listener };
    let own = place.value_or_problem(scalars::parse_keyword(word, &PROTOCOL_KEYWORDS)).unwrap_or(of_listener);
    if (own == DownstreamProtocol::Http) != (of_listener == DownstreamProtocol::Http) {
        place.problem("a listener has TLS for all its virtual hosts, or for none");
    }
    own
}

/// The protocol of a listener, and its TLS files, if it has any. Plain HTTP is never the result of a missing key.
fn compile_security(
    listener: &ListenerDocument,
    folder: &Path,
    place: &DocPath<'_>,
) -> (DownstreamProtocol, Option<TlsFiles>) {
    let written = listener.protocol.as_deref().unwrap_or("https");
    let protocol = place.key("protocol").value_or_problem(scalars::parse_keyword(written, &PROTOCOL_KEYWORDS));
    let Some(protocol) = protocol else { return (DownstreamProtocol::default(), None) };
    let needs_certificate = protocol == DownstreamProtocol::Https
        || listener.virtual_hosts.iter().any(|host| host.protocol.as_deref() == Some("https"));
    let place = place.key("tls");
    let tls = match (&listener.tls, protocol) {
        (Some(_), DownstreamProtocol::Http) => {
            place.missing("cannot stand beside protocol: http; remove one of the two")
        }
        (Some(tls), _) => Some(compile_tls(tls, folder, &place)),
        (None, DownstreamProtocol::Https | DownstreamProtocol::Tls) if needs_certificate => {
            place.missing("is missing; write certificate and key, or protocol: http for a listener without TLS")
        }
        (None, _) => None,
    };
    (protocol, tls)
}

/// The keywords of `protocol`.
const PROTOCOL_KEYWORDS: [(&str, DownstreamProtocol); 3] =
    [("https", DownstreamProtocol::Https), ("http", DownstreamProtocol::Http), ("tls", DownstreamProtocol::Tls)];

pub(crate) fn compile_networks(ranges: &[String], place: &DocPath<'_>) -> NetworkRanges {
    let mut networks = NetworkRanges::default();
    for (index, range) in ranges.iter().enumerate() {
        let _ = place.item(index).value_or_problem(networks.add_range(range)); // problems have been recorded
    }
    networks
}

fn compile_tls(tls: &TlsDocument, folder: &Path, place: &DocPath<'_>) -> TlsFiles {
    let auth = tls.client_auth.as_ref();
    let default_auth = auth.map(|auth| Arc::new(compile_client_auth(auth, folder, &place.key("clientAuth"))));
    let certificates = match &tls.certificates {
        Some(listed) => {
            check_certificate_list(tls, listed.len(), place);
            let place = place.key("certificates");
            let listed = listed.iter().take(CERTIFICATES_MAX).enumerate();
            let compiled = listed
                .map(|(index, written)| compile_certificate(written, &default_auth, (folder, &place.item(index))));
            compiled.collect()
        }
        None => vec![compile_only_certificate(tls, default_auth, (folder, place))],
    };
    TlsFiles { certificates, is_list: tls.certificates.is_some(), missing_sni: compile_missing_sni(tls, place) }
}

/// Checks that a list of certificates has a valid length, and that no certificate stands beside it.
fn check_certificate_list(tls: &TlsDocument, listed: usize, place: &DocPath<'_>) {
    if listed == 0 || listed > CERTIFICATES_MAX {
        place.key("certificates").problem(format!("write between 1 and {CERTIFICATES_MAX} certificates"));
    }
    let beside = [
        ("certificate", tls.certificate.is_some()),
        ("key", tls.key.is_some()),
        ("serverNames", tls.server_names.is_some()),
    ];
    for (key, _) in beside.iter().filter(|(_, is_written)| *is_written) {
        place.key(key).problem_with_hint("cannot stand beside certificates", "move it into an entry of certificates");
    }
}

fn compile_certificate(
    written: &CertificateDocument,
    default_auth: &Option<Arc<ClientAuth>>,
    (folder, place): (&Path, &DocPath<'_>),
) -> CertificateFiles {
    let own_auth = written.client_auth.as_ref();
    let own_auth = own_auth.map(|auth| Arc::new(compile_client_auth(auth, folder, &place.key("clientAuth"))));
    let names = written.server_names.as_ref();
    CertificateFiles {
        certificate: resolve_path(&written.certificate, folder, &place.key("certificate")),
        key: resolve_path(&written.key, folder, &place.key("key")),
        server_names: names.map(|names| compile_host_patterns(names, &place.key("serverNames"))),
        has_default_auth: own_auth.is_none(),
        client_auth: own_auth.or_else(|| default_auth.clone()),
    }
}

/// The certificate that is written directly below `tls`.
fn compile_only_certificate(
    tls: &TlsDocument,
    client_auth: Option<Arc<ClientAuth>>,
    (folder, place): (&Path, &DocPath<'_>),
) -> CertificateFiles {
    let path = |written: &Option<PathBuf>, key: &str| match written {
        Some(path) => resolve_path(path, folder, &place.key(key)),
        None => {
            place.key(key).problem_with_hint("is missing", "write certificate and key, or a list of certificates");
            PathBuf::new()
        }
    };
    let names = tls.server_names.as_ref();
    CertificateFiles {
        certificate: path(&tls.certificate, "certificate"),
        key: path(&tls.key, "key"),
        server_names: names.map(|names| compile_host_patterns(names, &place.key("serverNames"))),
        client_auth,
        has_default_auth: true,
    }
}

fn compile_missing_sni(tls: &TlsDocument, place: &DocPath<'_>) -> MissingSni {
    let words = [("allow", MissingSni::Allow), ("refuse", MissingSni::Refuse)];
    let missing = tls.missing_server_name.as_deref();
    let missing =
        missing.and_then(|word| place.key("missingServerName").value_or_problem(scalars::parse_keyword(word, &words)));
    missing.unwrap_or_default()
}

fn compile_host_patterns(names: &[String], place: &DocPath<'_>) -> Vec<HostPattern> {
    if names.is_empty() || names.len() > SERVER_NAMES_MAX {
        place.problem(format!(
            "write between 1 and {SERVER_NAMES_MAX} hosts, or omit the key for the names of the certificate"
        ));
    }
    let mut read: Vec<HostPattern> = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let place = place.item(index);
        let Some(pattern) = place.value_or_problem(HostPattern::parse(name)) else { continue };
        if read.contains(&pattern) {
            place.problem(format!("{pattern} is listed twice"));
        }
        read.push(pattern);
    }
    read
}

fn compile_client_auth(auth: &ClientAuthDocument, folder: &Path, place: &DocPath<'_>) -> ClientAuth {
    let authorities = place.key("authorities");
    if auth.authorities.is_empty() {
        authorities.problem("at least one authority is required to verify client certificates");
    }
    let mode = auth.mode.as_deref().unwrap_or("required");
    let words = [("refuse", ExpiredCrlPolicy::Refuse), ("allow", ExpiredCrlPolicy::Allow)];
    let expired = auth.expired_revocation.as_deref();
    let expired =
        expired.and_then(|word| place.key("expiredRevocation").value_or_problem(scalars::parse_keyword(word, &words)));
    let mode = place.key("mode").value_or_problem(scalars::parse_keyword(mode, &CLIENT_AUTH_KEYWORDS));
    let words = [("listener", false), ("refuse", true)];
    let unclaimed = auth.unclaimed.as_deref();
    let refuses_unclaimed =
        unclaimed.and_then(|word| place.key("unclaimed").value_or_problem(scalars::parse_keyword(word, &words)));
    ClientAuth {
        mode: mode.unwrap_or_default(),
        authorities: resolve_paths(&auth.authorities, folder, &authorities),
        revocation_lists: resolve_paths(&auth.revocation, folder, &place.key("revocation")),
        expired_crl: expired.unwrap_or_default(),
        max_depth: auth.max_depth.and_then(|depth| compile_depth(depth, &place.key("maxDepth"))),
        refusal: compile_refusal(auth, place),
        subject: auth
            .subject
            .as_deref()
            .and_then(|text| place.key("subject").value_or_problem(SubjectPattern::parse(text))),
        forwarding: compile_keyword(auth.forward.as_deref(), &FORWARD_KEYWORDS, &place.key("forward")),
        realm: auth.realm.as_ref().map(|realm| place.key("realm").parse_name(realm)),
        refuses_unclaimed: refuses_unclaimed.unwrap_or_default(),
    }
}

fn compile_keyword<T: Copy + Default>(written: Option<&str>, words: &[(&str, T)], place: &DocPath<'_>) -> T {
    written.and_then(|word| place.value_or_problem(scalars::parse_keyword(word, words))).unwrap_or_default()
}

fn compile_depth(written: u64, place: &DocPath<'_>) -> Option<usize> {
    let depth = usize::try_from(written).ok().filter(|depth| *depth <= DEPTH_MAX);
    depth.or_else(|| place.missing(format!("{written} is not a depth; write a whole number from 0 to {DEPTH_MAX}")))
}

fn compile_refusal(auth: &ClientAuthDocument, place: &DocPath<'_>) -> AuthRefusal {
    let error_page = auth.error_page.as_deref();
    if !compile_keyword(auth.refusal.as_deref(), &REFUSAL_KEYWORDS, &place.key("refusal")) {
        if error_page.is_some() {
            let hint = "write refusal: response, or remove the page";
            place.key("errorPage").problem_with_hint("a failed handshake shows no page", hint);
        }
        return AuthRefusal::Handshake;
    }
    let error_page = error_page.and_then(|page| place.key("errorPage").value_or_problem(parse_page(page)));
    AuthRefusal::Response { error_page: error_page.map(Arc::from) }
}

fn parse_page(text: &str) -> Result<&str, String> {
    let has_host = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    let is_url = text.parse::<Uri>().is_ok_and(|uri| has_host(&uri));
    if is_url { Ok(text) } else { Err(format!("{text:?} is not a URL; write one such as https://help.example/page")) }
}

/// Limit of `maxDepth`: that of OpenSSL.
const DEPTH_MAX: usize = 100;

/// Whether callers are refused in responses.
const REFUSAL_KEYWORDS: [(&str, bool); 2] = [("handshake", false), ("response", true)];

/// The keywords of `clientAuth.forward`.
const FORWARD_KEYWORDS: [(&str, CertificateForwarding); 3] = [
    ("none", CertificateForwarding::None),
    ("names", CertificateForwarding::Names),
    ("certificate", CertificateForwarding::Certificate),
];

/// The keywords of `clientAuth.mode`.
const CLIENT_AUTH_KEYWORDS: [(&str, ClientAuthMode); 4] = [
    ("required", ClientAuthMode::Required),
    ("optional", ClientAuthMode::Optional),
    ("anyAuthority", ClientAuthMode::AnyAuthority),
    ("allowInsecureFallback", ClientAuthMode::AllowInsecureFallback),
];

pub(crate) fn resolve_paths(paths: &[PathBuf], folder: &Path, place: &DocPath<'_>) -> Vec<PathBuf> {
    paths.iter().enumerate().map(|(index, path)| resolve_path(path, folder, &place.item(index))).collect()
}

/// The path of a file, or the name of a text in memory.
pub(crate) fn resolve_path(path: &Path, folder: &Path, place: &DocPath<'_>) -> PathBuf {
    if path.as_os_str().is_empty() {
        place.problem("a path is missing");
    }
    if is_memory_name(path) { path.to_owned() } else { folder.join(path) }
}

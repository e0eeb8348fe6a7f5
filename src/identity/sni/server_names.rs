//! The hosts that a listener serves: one match for the server name (SNI) of a handshake and for the authority of a
//! command.
//!
//! Guarantees:
//! - The match is pure, and needs no scan of all entries: at most one look-up for each label of a host.
//! - Names are compared without case and without the trailing dot of a full name. Addresses are compared by value.
//! - A host belongs to its most specific entry: an exact one, then `*.name`, then the `**.name` with the longest name,
//!   then `*`.
//! - A connection that named a host by SNI stays bound to the entry of that host: no command on it can reach another
//!   entry. So it never crosses over to another certificate, nor to other authorities for callers.
//! - A connection without SNI stays bound to the first certificate.
//! - Handshakes and commands have one rule. Two different rules would be a way around the narrower one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::host_pattern::{HostPattern, parse_address, without_last_dot};

/// The longest name that is compared with the entries (RFC 1035 section 2.3.4). Only `*` has longer ones.
const HOST_BYTES_MAX: usize = 253;
/// The most entries that a message lists.
const HOSTS_SHOWN_MAX: usize = 16;

/// The treatment of a handshake that names no host (curl at an IP address: RFC 6066 section 3 has no server name for an
/// address).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingSni {
    /// The handshake succeeds with the first certificate. Each command's authority must be one of its hosts.
    #[default]
    Allow,
    /// The handshake fails.
    Refuse,
}

/// The hosts a listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerHosts {
    table: Arc<ServedHosts>,
    missing: MissingSni,
}

/// The hosts that one connection may call.
#[derive(Clone, Debug)]
pub struct ConnectionHosts {
    table: Arc<ServedHosts>,
    bound_to: HostBinding,
}

/// What the handshake has bound a connection to.
#[derive(Clone, Copy, Debug)]
enum HostBinding {
    /// The entry that the server name belongs to: its position.
    Entry(usize),
    /// All hosts of the first certificate: there was no server name.
    FirstCertificate,
}

/// The entries of all certificates, by what they match.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServedHosts {
    entries: Vec<HostEntry>,
    names: HashMap<String, usize>,
    /// `*.name`, by the name with its first dot.
    wildcards: HashMap<String, usize>,
    /// `**.name`, by the name with its first dot.
    deep_wildcards: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
    any: Option<usize>,
}

/// An entry with the positions of its certificates, at least one: several have keys of different types.
#[derive(Debug, PartialEq, Eq)]
struct HostEntry {
    pattern: HostPattern,
    certificates: Vec<usize>,
}

impl ServedHosts {
    /// The certificates that have this entry so far.
    pub(crate) fn certificates_of(&self, pattern: &HostPattern) -> &[usize] {
        self.position_of(pattern).map_or(&[], |position| &self.entries[position].certificates)
    }

    /// Adds an entry of a certificate. Without effect if the certificate has it already.
    pub(crate) fn add(&mut self, pattern: HostPattern, certificate: usize) {
        if let Some(position) = self.position_of(&pattern) {
            let known = &mut self.entries[position].certificates;
            if !known.contains(&certificate) {
                known.push(certificate);
            }
            return;
        }
        let position = self.entries.len();
        match &pattern {
            HostPattern::Any => self.any = Some(position),
            HostPattern::Wildcard(rest) => _ = self.wildcards.insert(rest.clone(), position),
            HostPattern::DeepWildcard(rest) => _ = self.deep_wildcards.insert(rest.clone(), position),
            HostPattern::Name(name) => _ = self.names.insert(name.clone(), position),
            HostPattern::Address(address) => _ = self.addresses.insert(*address, position),
        }
        self.entries.push(HostEntry { pattern, certificates: vec![certificate] });
    }

    fn position_of(&self, pattern: &HostPattern) -> Option<usize> {
        match pattern {
            HostPattern::Any => self.any,
            HostPattern::Wildcard(rest) => self.wildcards.get(rest).copied(),
            HostPattern::DeepWildcard(rest) => self.deep_wildcards.get(rest).copied(),
            HostPattern::Name(name) => self.names.get(name).copied(),
            HostPattern::Address(address) => self.addresses.get(address).copied(),
        }
    }

    /// The entry that a host, without its port, belongs to.
    fn find(&self, host: &str) -> Option<usize> {
        let special = match parse_address(host) {
            Some(address) => self.addresses.get(&address).copied(),
            None => self.find_name(host),
        };
        special.or(self.any)
    }

    fn find_name(&self, host: &str) -> Option<usize> {
        let host = without_last_dot(host);
        if host.len() > HOST_BYTES_MAX {
            return None;
        }
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        self.names.get(&*host).copied().or_else(|| self.find_wildcard(&host))
    }

    /// The wildcard with the longest name that a host in lower case is below.
    fn find_wildcard(&self, host: &str) -> Option<usize> {
        if self.wildcards.is_empty() && self.deep_wildcards.is_empty() {
            return None;
        }
        let mut dots = host.match_indices('.').map(|(at, _)| at);
        let mut label_start = 0;
        let first = dots.next()?;
        if first > 0
            && let Some(found) = self.wildcards.get(&host[first..])
        {
            return Some(*found);
        }
        for dot in std::iter::once(first).chain(dots) {
            if dot == label_start {
                return None; // an empty label
            }
            if let Some(found) = self.deep_wildcards.get(&host[dot..]) {
                return Some(*found);
            }
            label_start = dot + 1;
        }
        None
    }
}

impl ListenerHosts {
    pub(crate) fn new(table: ServedHosts, missing: MissingSni) -> Self {
        Self { table: Arc::new(table), missing }
    }

    /// The hosts for a connection whose handshake named this host, or none. `None` if the handshake must fail.
    pub fn hosts_for_sni(&self, server_name: Option<&str>) -> Option<ConnectionHosts> {
        let bound_to = match server_name {
            None if self.missing == MissingSni::Refuse => return None,
            None => HostBinding::FirstCertificate,
            Some(name) => HostBinding::Entry(self.table.find(name)?),
        };
        Some(ConnectionHosts { table: Arc::clone(&self.table), bound_to })
    }

    /// The positions of the certificates for a handshake that named this host, or none. `None` if it must fail.
    pub(crate) fn certificates_for_sni(&self, server_name: Option<&str>) -> Option<&[usize]> {
        match server_name {
            None if self.missing == MissingSni::Refuse => None,
            None => Some(&[0]),
            Some(name) => self.table.find(name).map(|entry| &self.table.entries[entry].certificates[..]),
        }
    }

    /// Whether some host below a name is served. The name is given in lower case, with a dot before it.
    pub fn has_host_below(&self, suffix: &str) -> bool {
        self.table.entries.iter().any(|entry| match &entry.pattern {
            HostPattern::Any => true,
            HostPattern::Name(name) | HostPattern::Wildcard(name) => name.ends_with(suffix),
            HostPattern::DeepWildcard(name) => name.ends_with(suffix) || suffix.ends_with(name.as_str()),
            HostPattern::Address(_) => false,
        })
    }
}

impl ConnectionHosts {
    /// Whether a connection may call this host, without its port.
    pub fn covers(&self, host: &str) -> bool {
        match self.bound_to {
            HostBinding::Entry(only) => match &self.table.entries[only].pattern {
                HostPattern::Name(name) => without_last_dot(host).eq_ignore_ascii_case(name),
                HostPattern::Address(address) => parse_address(host) == Some(*address),
                _ => self.table.find(host) == Some(only),
            },
            HostBinding::FirstCertificate => {
                self.table.find(host).is_some_and(|entry| self.table.entries[entry].certificates.contains(&0))
            }
        }
    }
}

impl fmt::Display for ListenerHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            self.table.entries.iter().take(HOSTS_SHOWN_MAX).map(|entry| entry.pattern.to_string()).collect();
        f.write_str(&names.join(", "))?;
        match self.table.entries.len().saturating_sub(HOSTS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str], missing: MissingSni) -> ListenerHosts {
        certificates(&[patterns], missing)
    }

    /// The hosts of several certificates.
    fn certificates(certificates: &[&[&str]], missing: MissingSni) -> ListenerHosts {
        let mut table = ServedHosts::default();
        for (certificate, patterns) in certificates.iter().enumerate() {
            for text in *patterns {
                table.add(HostPattern::parse(text).expect("a pattern"), certificate);
            }
        }
        ListenerHosts::new(table, missing)
    }

    #[test]
    fn hosts_below_a_name_are_known() {
        for (pattern, suffix, expected) in [
            ("*", ".city.example", true),
            ("a.city.example", ".city.example", true),
            ("city.example", ".city.example", false),
            ("*.city.example", ".city.example", true),
            ("*.a.city.example", ".city.example", true),
            ("*.city.example", ".a.city.example", false),
            ("**.city.example", ".a.city.example", true),
            ("**.a.city.example", ".city.example", true),
            ("**.city.example", ".acity.example", false),
            ("acity.example", ".city.example", false),
            ("127.0.0.1", ".0.1", false),
        ] {
            assert_eq!(names(&[pattern], MissingSni::Allow).has_host_below(suffix), expected, "{pattern} {suffix}");
        }
    }

    #[test]
    fn most_specific_entry_chooses_the_certificate() {
        let hosts = certificates(
            &[
                &["first.example"],
                &["*.city.example", "[2001:db8::1]"],
                &["gateway.city.example"],
                &["**.city.example", "**.example"],
                &["**.b.city.example"],
                &["gateway.city.example", "**.city.example"],
                &["192.0.2.1"],
            ],
            MissingSni::Allow,
        );
        let cases: &[(Option<&str>, &[usize])] = &[
            (None, &[0]),
            (Some("first.example"), &[0]),
            (Some("Cameras.CITY.example"), &[1]),
            (Some("gateway.city.example"), &[2, 5]),
            (Some("a.cameras.city.example"), &[3, 5]),
            (Some("b.city.example"), &[1]),
            (Some("a.b.city.example"), &[4]),
            (Some("x.a.b.city.example"), &[4]),
            (Some("city.example"), &[3]),
            (Some("a.b.c.elsewhere.example"), &[3]),
            (Some("x..city.example"), &[]),
            (Some(".city.example"), &[]),
            (Some("..city.example"), &[]),
            (Some("example"), &[]),
            (Some("city.example.evil"), &[]),
            (Some("192.0.2.1"), &[6]),
            (Some("2001:db8::1"), &[1]),
            (Some("192.0.2.2"), &[]),
            (Some(""), &[]),
        ];
        for (server_name, expected) in cases {
            let found = hosts.certificates_for_sni(*server_name).unwrap_or_default();
            assert_eq!(found, *expected, "{server_name:?}");
        }
        let long = format!("{}city.example", "a.".repeat(200));
        assert_eq!(hosts.certificates_for_sni(Some(&long)), None, "no DNS name is that long");
        let any = certificates(&[&["a.example"], &["*"]], MissingSni::Refuse);
        assert_eq!(any.certificates_for_sni(Some(&long)), Some(&[1][..]));
        assert_eq!(any.certificates_for_sni(None), None);
    }

    #[test]
    fn connection_is_limited_to_hosts_of_the_entry_that_its_sni_matched() {
        let all = names(&["gateway.city.example", "*.city.example", "127.0.0.1", "::1"], MissingSni::Allow);
        for (server_name, host, covered) in [
            (Some("gateway.city.example"), "gateway.city.example", true),
            (Some("GATEWAY.city.example"), "Gateway.City.Example.", true),
            (Some("gateway.city.example"), "cameras.city.example", false),
            (Some("gateway.city.example"), "127.0.0.1", false),
            (Some("cameras.city.example"), "parking.city.example", true), // one entry, one policy
            (Some("cameras.city.example"), "gateway.city.example", false), // belongs to an entry of its own
            (Some("cameras.city.example"), "a.cameras.city.example", false),
            (Some("cameras.city.example"), "city.example", false),
            (Some("cameras.city.example"), ".city.example", false),
            (None, "127.0.0.1", true),
            (None, "[::1]", true),
            (None, "[0:0:0:0:0:0:0:1]", true),
            (None, "gateway.city.example", true),
            (None, "127.0.0.2", false),
            (None, "elsewhere.example", false),
        ] {
            let served = all.hosts_for_sni(server_name).expect("a connection");
            assert_eq!(served.covers(host), covered, "{server_name:?} {host}");
        }
    }

    #[test]
    fn connection_never_crosses_over_to_another_certificate() {
        let all = certificates(
            &[&["a.example", "*.a.example"], &["b.example", "x.a.example"], &["**.example"]],
            MissingSni::Allow,
        );
        for (server_name, host, covered) in [
            (Some("y.a.example"), "z.a.example", true),
            (Some("y.a.example"), "x.a.example", false), // belongs to the second certificate
            (Some("x.a.example"), "y.a.example", false),
            (Some("a.example"), "b.example", false),
            (Some("c.example"), "d.e.example", true),
            (Some("c.example"), "a.example", false),
            (None, "a.example", true),
            (None, "y.a.example", true),
            (None, "x.a.example", false),
            (None, "b.example", false),
            (None, "c.example", false),
        ] {
            let served = all.hosts_for_sni(server_name).expect("a connection");
            assert_eq!(served.covers(host), covered, "{server_name:?} {host}");
        }
    }

    #[test]
    fn unknown_sni_is_refused_and_missing_sni_follows_the_policy() {
        let strict = names(&["gateway.city.example"], MissingSni::Refuse);
        for (name, served) in [
            (Some("gateway.city.example"), true),
            (Some("gateway.city.example.evil.example"), false),
            (Some("xgateway.city.example"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(strict.hosts_for_sni(name).is_some(), served, "{name:?}");
        }
        let any = names(&["*"], MissingSni::Allow).hosts_for_sni(Some("whatever.example")).expect("a connection");
        assert!(any.covers("another.example"));
    }
}

//! The hosts that a listener serves: one match for the server name (SNI) of a handshake and for the authority of a
//! command.
//!
//! Guarantees:
//! - The match is pure.
//! - Names are compared without case and without the trailing dot of a full name. Addresses are compared by value.
//! - A wildcard stands for exactly one label.
//! - A connection that named a host by SNI stays bound to the entry of that host: no command on it can reach another
//!   entry.
//! - Handshakes and commands have one rule. Two different rules would be a way around the narrower one.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// One entry of `serverNames`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// `*`: any host.
    Any,
    /// `*.city.example`: one label below this name. Stored in lower case, with its first dot.
    Wildcard(String),
    /// One name. Stored in lower case, without a trailing dot.
    Name(String),
    /// One address.
    Address(IpAddr),
}

/// The treatment of a handshake that names no host (curl at an IP address: RFC 6066 section 3 has no server name for an
/// address).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingSni {
    /// The handshake succeeds. Each command's authority must be one of the listener's hosts.
    #[default]
    Allow,
    /// The handshake fails.
    Refuse,
}

/// The configured hosts of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// The hosts; `None` means the hosts of the server's own certificate.
    pub names: Option<Vec<HostPattern>>,
    /// The treatment of handshakes that name no host.
    pub missing: MissingSni,
}

/// The hosts a listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerHosts {
    patterns: Arc<[HostPattern]>,
    missing: MissingSni,
}

/// The hosts that one connection may call.
#[derive(Clone, Debug)]
pub struct ConnectionHosts {
    patterns: Arc<[HostPattern]>,
    /// The entry that the handshake's server name belongs to; `None`, after a handshake without a name, allows all
    /// entries.
    bound_entry: Option<usize>,
}

impl HostPattern {
    /// Reads one entry: `gateway.city.example`, `*.city.example`, an address, or `*`.
    ///
    /// # Errors
    /// A description of the fault and of the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is not a host; write a name, *.name for one label below it, an address, or * for any host"
            )
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(address) = parse_address(text) {
            return Ok(Self::Address(address));
        }
        let name = without_last_dot(text).to_ascii_lowercase();
        match name.strip_prefix('*') {
            Some(rest) if rest.strip_prefix('.').is_some_and(is_host_name) => Ok(Self::Wildcard(rest.to_owned())),
            None if is_host_name(&name) => Ok(Self::Name(name)),
            _ => Err(bad()),
        }
    }

    /// Whether a host, without its port, matches this entry.
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(name) => without_last_dot(host).eq_ignore_ascii_case(name),
            Self::Wildcard(rest) => is_one_label_below(without_last_dot(host), rest),
            Self::Address(address) => parse_address(host) == Some(*address),
        }
    }

    /// The precision of an entry: a host belongs to the most precise entry that it matches.
    fn precision(&self) -> u8 {
        match self {
            Self::Any => 0,
            Self::Wildcard(_) => 1,
            Self::Name(_) | Self::Address(_) => 2,
        }
    }
}

impl ListenerHosts {
    /// The hosts of a policy, or those of the certificate; `None` if the certificate is valid for no host.
    pub(crate) fn new(policy: &HostPolicy, own: &X509Certificate<'_>) -> Option<Self> {
        let patterns = policy.names.clone().unwrap_or_else(|| certificate_hosts(own));
        (!patterns.is_empty()).then(|| Self { patterns: patterns.into(), missing: policy.missing })
    }

    /// The hosts for a connection whose handshake named this host, or none. `None` if the handshake must fail.
    pub fn hosts_for_sni(&self, server_name: Option<&str>) -> Option<ConnectionHosts> {
        let only = match server_name {
            None if self.missing == MissingSni::Refuse => return None,
            None => None,
            Some(name) => Some(self.find_entry(name)?),
        };
        Some(ConnectionHosts { patterns: Arc::clone(&self.patterns), bound_entry: only })
    }

    /// Whether some host below a name is served. The name is given in lower case, with a dot before it.
    pub fn has_host_below(&self, suffix: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern {
            HostPattern::Any => true,
            HostPattern::Name(name) | HostPattern::Wildcard(name) => name.ends_with(suffix),
            HostPattern::Address(_) => false,
        })
    }

    /// The entry that a host belongs to.
    fn find_entry(&self, host: &str) -> Option<usize> {
        find_pattern(&self.patterns, host)
    }
}

impl ConnectionHosts {
    /// Whether a connection may call this host, without its port.
    pub fn covers(&self, host: &str) -> bool {
        match self.bound_entry {
            Some(only) => match &self.patterns[only] {
                exact if exact.precision() == 2 => exact.matches(host),
                wide => wide.matches(host) && find_pattern(&self.patterns, host) == Some(only),
            },
            None => find_pattern(&self.patterns, host).is_some(),
        }
    }
}

fn find_pattern(patterns: &[HostPattern], host: &str) -> Option<usize> {
    let matching = patterns.iter().enumerate().filter(|(_, pattern)| pattern.matches(host));
    matching.max_by_key(|(_, pattern)| pattern.precision()).map(|(position, _)| position)
}

/// The DNS names and addresses that a server's certificate is valid for (RFC 9525). Its commonName does not count.
fn certificate_hosts(certificate: &X509Certificate<'_>) -> Vec<HostPattern> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    names.iter().filter_map(pattern_from_san).collect()
}

fn pattern_from_san(name: &GeneralName<'_>) -> Option<HostPattern> {
    match name {
        GeneralName::DNSName(name) => HostPattern::parse(name).ok().filter(|pattern| *pattern != HostPattern::Any),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(four) => Some(HostPattern::Address(IpAddr::from(four))),
            Err(_) => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| HostPattern::Address(IpAddr::from(bytes))),
        },
        _ => None,
    }
}

/// Reads `192.0.2.1`, `[2001:db8::1]` as in an authority, or a bare IPv6 address.
fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

fn without_last_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Labels of letters, digits, `-` and `_`, none of them empty.
fn is_host_name(text: &str) -> bool {
    let plain =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    text.split('.').all(plain)
}

/// Whether `host` is one label below `rest`, which begins with its dot.
fn is_one_label_below(host: &str, rest: &str) -> bool {
    let Some(label_ends) = host.len().checked_sub(rest.len()) else { return false };
    match (host.get(..label_ends), host.get(label_ends..)) {
        (Some(label), Some(tail)) => !label.is_empty() && !label.contains('.') && tail.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Wildcard(rest) => write!(f, "*{rest}"),
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for ListenerHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.patterns.iter().map(ToString::to_string).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str], missing: MissingSni) -> ListenerHosts {
        let patterns = patterns.iter().map(|text| HostPattern::parse(text).expect("a pattern"));
        ListenerHosts { patterns: patterns.collect(), missing }
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
            ("acity.example", ".city.example", false),
            ("127.0.0.1", ".0.1", false),
        ] {
            assert_eq!(names(&[pattern], MissingSni::Allow).has_host_below(suffix), expected, "{pattern} {suffix}");
        }
    }

    #[test]
    fn entries_have_one_spelling() {
        for (text, shown) in [
            ("Gateway.City.Example.", "gateway.city.example"),
            ("*.City.example", "*.city.example"),
            ("*", "*"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(HostPattern::parse(text).map(|pattern| pattern.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in ["", ".", "a..b", "*a.example", "a.*.example", "*.", "**", "h:443", "a b", "[::1", "x\0y"] {
            assert!(HostPattern::parse(text).is_err(), "{text:?}");
        }
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

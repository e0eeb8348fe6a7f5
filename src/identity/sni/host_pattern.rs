//! One entry of `serverNames`: a name, a wildcard, an address, or any host.
//!
//! Guarantees:
//! - An entry has one spelling: names are stored in lower case, without the trailing dot of a full name.
//! - `*.name` stands for exactly one label, `**.name` for one or more labels.
//!
//! Leaves to `server_names`: the entry that a host belongs to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// One entry of `serverNames`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `*`: any host.
    Any,
    /// `*.city.example`: one label below this name. Stored in lower case, with its first dot.
    Wildcard(String),
    /// `**.city.example`: one or more labels below this name. Stored in lower case, with its first dot.
    DeepWildcard(String),
    /// One name. Stored in lower case, without a trailing dot.
    Name(String),
    /// One address.
    Address(IpAddr),
}

impl HostPattern {
    /// Reads one entry: `gateway.city.example`, `*.city.example`, `**.city.example`, an address, or `*`.
    ///
    /// # Errors
    /// A description of the fault and of the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is not a host; write a name, *.name for one label below it, **.name for one or more labels \
                 below it, an address, or * for any host"
            )
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(address) = parse_address(text) {
            return Ok(Self::Address(address));
        }
        let name = without_last_dot(text).to_ascii_lowercase();
        let is_suffix = |rest: &str| rest.strip_prefix('.').is_some_and(is_host_name);
        match (name.strip_prefix("**"), name.strip_prefix('*')) {
            (Some(rest), _) if is_suffix(rest) => Ok(Self::DeepWildcard(rest.to_owned())),
            (None, Some(rest)) if is_suffix(rest) => Ok(Self::Wildcard(rest.to_owned())),
            (None, None) if is_host_name(&name) => Ok(Self::Name(name)),
            _ => Err(bad()),
        }
    }
}

/// The DNS names and addresses that a server's certificate is valid for (RFC 9525). Its commonName does not count.
pub(crate) fn certificate_hosts(certificate: &X509Certificate<'_>) -> Vec<HostPattern> {
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
pub(crate) fn parse_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

pub(crate) fn without_last_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

/// Labels of letters, digits, `-` and `_`, none of them empty.
fn is_host_name(text: &str) -> bool {
    let plain =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    text.split('.').all(plain)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Wildcard(rest) => write!(f, "*{rest}"),
            Self::DeepWildcard(rest) => write!(f, "**{rest}"),
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_one_spelling() {
        for (text, shown) in [
            ("Gateway.City.Example.", "gateway.city.example"),
            ("*.City.example", "*.city.example"),
            ("**.City.example.", "**.city.example"),
            ("*", "*"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[2001:DB8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(HostPattern::parse(text).map(|pattern| pattern.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in [
            "",
            ".",
            "a..b",
            "*a.example",
            "a.*.example",
            "*.",
            "**",
            "***.a.example",
            "**a.example",
            "**.",
            "h:443",
            "a b",
            "[::1",
            "x\0y",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text:?}");
        }
    }
}

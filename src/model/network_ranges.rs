//! Ranges of IP addresses (CIDR), as configurations write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// A set of address ranges. An empty set contains no address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRanges(Vec<IpNet>);

impl NetworkRanges {
    /// Adds a range: `10.0.0.0/8`, `2001:db8::/32`, or one address.
    ///
    /// # Errors
    /// A description of the fault and of the correct form.
    pub fn add_range(&mut self, text: &str) -> Result<(), String> {
        let bad = |_| format!("{text:?} is not a range of addresses; write 10.0.0.0/8, 2001:db8::/32 or one address");
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(bad)?,
        };
        if network.trunc() != network {
            return Err(format!("{text:?} has bits set beyond its prefix length; the range is {}", network.trunc()));
        }
        self.0.push(network);
        Ok(())
    }

    /// Whether the set has no range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of the ranges. An IPv4 address mapped into IPv6 counts as an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address under which a client is counted. For IPv6 its first 64 bits, because a client with one address of a /64
/// network has all of them.
pub fn counted_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

impl fmt::Display for NetworkRanges {
    /// The ranges, separated by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, network) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_ranges() {
        let mut networks = NetworkRanges::default();
        for text in ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"] {
            networks.add_range(text).expect("a range");
        }
        for (address, inside) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(networks.contains(address.parse().expect("an address")), inside, "{address}");
        }
        assert!(!NetworkRanges::default().contains("10.0.0.1".parse().expect("an address")));
    }

    #[test]
    fn invalid_range_is_refused() {
        for (text, reason) in [("10.0.0.1/8", "the range is 10.0.0.0/8"), ("10.0.0/8", "write"), ("", "write")] {
            let message = NetworkRanges::default().add_range(text).expect_err("no range");
            assert!(message.contains(reason), "{message}");
        }
    }
}

//! Values of annotations, as ingress-nginx and nginx write them.
//!
//! Guarantees: a value that nginx would not read is `None`.
//!
//! Leaves to others: what the values mean.

use std::net::IpAddr;

use ipnet::IpNet;

/// The longest time of a timeout, in seconds: a year.
const SECONDS_MAX: u64 = 366 * 24 * 3600;

/// A boolean as Go's `strconv.ParseBool` reads it; `on` and `off` as well.
pub(super) fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "on" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "off" => Some(false),
        _ => None,
    }
}

/// Whole seconds, at least one.
pub(super) fn parse_seconds(text: &str) -> Option<u64> {
    parse_count(text.strip_suffix('s').unwrap_or(text)).filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
}

/// Digits.
pub(super) fn parse_count(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// A size of nginx (`8m`, `512k`, `1024`), in bytes.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (count, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    parse_count(count)?.checked_mul(1 << shift)
}

/// A range of addresses, or one address, without bits beyond the length of the prefix.
pub(super) fn parse_range(text: &str) -> Option<String> {
    let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>()).ok()?;
    Some(network.trunc().to_string())
}

/// The parts of a list with commas, without empty ones.
pub(super) fn list_items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Whether a path can stand in the configuration as it is: no parameters, no query, and no form that the gateway
/// refuses in requests.
pub(super) fn is_plain_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"{}?#\\;\"$".contains(&byte);
    let has_dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    path.starts_with('/') && path.bytes().all(plain) && !path.contains("//") && !has_dots
}

/// Whether this is a host name without a port.
pub(super) fn is_host(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

//! Parsers of leaf values: rates, durations, sizes, time offsets and similar values, from their text in the document.
//!
//! Guarantees:
//! - Integers only.
//! - A parsed value equals the written one. Otherwise the error states the reason and the correct form.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Uri};

use crate::model::RateUnit;
use crate::policy::{PathTemplate, UpstreamAddress, UpstreamProtocol, UpstreamServer};

/// The fastest rate per second that the limiter's nanosecond clock can represent.
const RATE_MAX: u32 = 1_000_000_000;

/// Parses `N/s`, `N/m` or `N/h`.
pub(crate) fn parse_rate(text: &str) -> Result<(NonZeroU32, RateUnit), String> {
    let bad = || format!("{text:?} is not a rate; write N/s, N/m or N/h");
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let unit = match unit {
        "s" => RateUnit::Second,
        "m" => RateUnit::Minute,
        "h" => RateUnit::Hour,
        _ => return Err(bad()),
    };
    if count.is_empty() || !digits_only(count) {
        return Err(bad());
    }
    let count = parse_number(count).and_then(|count| u32::try_from(count).ok()).filter(|count| *count <= RATE_MAX);
    let count = count.ok_or_else(|| format!("{text:?} is too high; the maximum is {RATE_MAX}"))?;
    let count = NonZeroU32::new(count).ok_or("a rate of 0 refuses every command; remove the grant instead")?;
    Ok((count, unit))
}

/// Parses `250ms`, `2s`, `5m`, `1h` or `92d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write a whole number and ms, s, m, h or d, such as 250ms or 5m");
    let (count, unit) = split_unit(text).ok_or_else(bad)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    count.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(bad)
}

/// Parses `512B`, `64KiB`, `16MiB` or `2GiB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size; write a whole number and B, KiB, MiB or GiB, such as 16MiB");
    let (count, unit) = split_unit(text).ok_or_else(bad)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(bad()),
    };
    count.checked_mul(bytes).ok_or_else(|| format!("{text:?} is too large"))
}

/// Parses an HTTP method.
pub(crate) fn parse_method(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if text == text.to_ascii_uppercase() => Ok(method),
        _ => Err(format!("{text:?} is not a method; write GET, POST, PUT, PATCH, DELETE, ... in capitals")),
    }
}

/// Parses `http://host:port`, `https://host:port` or `unix:/path`; for the protocol `tcp`: `tcp://host:port`,
/// `tls://host:port` or `unix:/path`.
pub(crate) fn parse_upstream(text: &str, protocol: UpstreamProtocol) -> Result<UpstreamServer, String> {
    let (plain_scheme, secure_scheme) = match protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::Http2 => ("http", "https"),
        UpstreamProtocol::Tcp => ("tcp", "tls"),
    };
    let bad = || {
        format!(
            "{text:?} is not an upstream; write {plain_scheme}://host:port, {secure_scheme}://host:port or unix:/path"
        )
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let rooted = path.starts_with('/') && !path.ends_with('/');
        let address = UpstreamAddress::Unix(path.into());
        return rooted
            .then(|| UpstreamServer {
                address,
                secure: false,
                authority: path.to_owned(),
                max_requests: None,
                weight: 1,
            })
            .ok_or_else(bad);
    }
    let uri: Uri = text.parse().map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?;
    let secure = uri.scheme_str() == Some(secure_scheme);
    let plain = (secure || uri.scheme_str() == Some(plain_scheme))
        && matches!(uri.path_and_query().map(|p| p.as_str()), None | Some("" | "/"))
        && !authority.as_str().contains('@');
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    match authority.port_u16().filter(|port| plain && !host.is_empty() && *port != 0) {
        Some(port) => {
            let address = UpstreamAddress::Tcp(host, port);
            Ok(UpstreamServer { address, secure, authority: authority.to_string(), max_requests: None, weight: 1 })
        }
        None => Err(bad()),
    }
}

/// Parses a request target as it appears in the request line.
pub(crate) fn parse_target(text: &str) -> Result<String, String> {
    let read = text.parse::<PathAndQuery>().ok().filter(|read| text.starts_with('/') && read.as_str() == text);
    read.map(|_| text.to_owned()).ok_or_else(|| format!("{text:?} is not a path; write one such as /healthz"))
}

/// Parses one status or an inclusive range `FIRST..LAST`.
pub(crate) fn parse_statuses(text: &str) -> Result<RangeInclusive<u16>, String> {
    let bad = || format!("{text:?} is not a range of statuses; write one from 200 to 599, or two such as 200..399");
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let status = |text| parse_number(text).and_then(|status| u16::try_from(status).ok());
    let (first, last) = status(first).zip(status(last)).ok_or_else(bad)?;
    (200 <= first && first <= last && last <= 599).then_some(first..=last).ok_or_else(bad)
}

/// Parses the name of a protocol for `Upgrade`.
pub(crate) fn parse_token(text: &str) -> Result<HeaderValue, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte));
    let value = plain.then(|| HeaderValue::from_str(text).ok()).flatten();
    value.ok_or_else(|| format!("{text:?} is not a protocol; write one name, such as websocket"))
}

/// Parses `package.Service/Method`, `package.Service/*`, `*/Method` or `*` into the path that gRPC uses for it.
pub(crate) fn parse_grpc_method(text: &str) -> Result<PathTemplate, String> {
    if text == "*" {
        return parse_template("/{service}/{method}");
    }
    let bad = || {
        let forms = "package.Service/Method, package.Service/*, */Method or *";
        format!("{text:?} is not a gRPC method; write {forms}")
    };
    let (service, method) = text.split_once('/').ok_or_else(bad)?;
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
    };
    let is_method = is_name(method) && !method.contains('.');
    match (service, method) {
        ("*", method) if is_method => parse_template(&format!("/{{service}}/{method}")),
        (service, "*") if is_name(service) => parse_template(&format!("/{service}/{{method}}")),
        (service, method) if is_name(service) && is_method => parse_template(&format!("/{service}/{method}")),
        _ => Err(bad()),
    }
}

/// Parses a host of a subsystem: a name or address without a port, `*.name` or `**.name`. Returns it in lower case and
/// without a trailing dot.
pub(crate) fn parse_host_pattern(text: &str) -> Result<String, String> {
    let Some((stars, suffix)) = text.split_once('.').filter(|(stars, _)| matches!(*stars, "*" | "**")) else {
        return parse_host(text);
    };
    match parse_host(suffix) {
        Ok(suffix) if !suffix.starts_with('[') => Ok(format!("{stars}.{suffix}")),
        _ => {
            Err(format!("{text:?} is not a wildcard; write *.name for one label below a name, **.name for one or more"))
        }
    }
}

/// Parses a host name or address without a port. Returns it in lower case and without a trailing dot.
pub(crate) fn parse_host(text: &str) -> Result<String, String> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host.contains('*') {
        return Err(format!("{text:?}: wildcards are not possible here"));
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let plain = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    if plain { Ok(host) } else { Err(format!("{text:?} is not a host; write a name or an address, without port")) }
}

/// Parses the path of a subsystem. Returns the prefix without a trailing slash; empty for `/`.
pub(crate) fn parse_prefix(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} does not start with '/'"));
    }
    if text.contains(['{', '}', '?', '#', '\\']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{text:?} is not a path prefix; parameters belong in the commands' paths"));
    }
    refuse_unreachable(text)?;
    Ok(text.strip_suffix('/').unwrap_or(text).to_owned())
}

/// Parses the path of a command, relative to the path of its subsystem.
pub(crate) fn parse_template(text: &str) -> Result<PathTemplate, String> {
    let template = PathTemplate::parse(text).map_err(|error| error.to_string())?;
    refuse_unreachable(text)?;
    Ok(template)
}

/// Rejects paths that no request can match, because the gateway rejects every such request.
fn refuse_unreachable(path: &str) -> Result<(), String> {
    let what = match path {
        _ if path.contains("//") => "an empty segment",
        _ if path.contains(';') => "a semicolon",
        _ if path.split('/').any(|segment| matches!(segment, "." | "..")) => "a dot segment",
        _ => return Ok(()),
    };
    Err(format!("{path:?} contains {what}, and the gateway refuses every request with such a path"))
}

/// Parses one of several keywords.
pub(crate) fn parse_keyword<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let known = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            Err(format!("{text:?} is unknown; write one of: {known}"))
        }
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((parse_number(&text[..end])?, &text[end..]))
}

/// Parses digits only: no sign, no space.
fn parse_number(text: &str) -> Option<u64> {
    if digits_only(text) { text.parse().ok() } else { None }
}

fn digits_only(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_a_number_and_a_unit() {
        for (text, expected) in [
            ("2000/s", Some((2000, RateUnit::Second))),
            ("1/m", Some((1, RateUnit::Minute))),
            ("60000/h", Some((60000, RateUnit::Hour))),
            ("2000/x", None),
            ("2000", None),
            ("/s", None),
            ("-1/s", None),
            ("+1/s", None),
            ("0/s", None),
            ("1.5/s", None),
            ("5000000000/s", None),
            ("2000000000/s", None),
        ] {
            assert_eq!(parse_rate(text).ok().map(|(count, unit)| (count.get(), unit)), expected, "{text:?}");
        }
        assert_eq!(parse_rate("2000/x"), Err("\"2000/x\" is not a rate; write N/s, N/m or N/h".to_owned()));
        for huge in ["5000000000/s", "99999999999999999999999/s"] {
            assert!(parse_rate(huge).is_err_and(|reason| reason.contains("too high")), "{huge}");
        }
    }

    #[test]
    fn durations_are_whole_numbers() {
        for (text, milliseconds) in [
            ("250ms", Some(250)),
            ("2s", Some(2_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("2d", Some(172_800_000)),
            ("0s", Some(0)),
            ("1.5s", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse_duration(text).ok().map(|read| read.as_millis()), milliseconds, "{text:?}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, bytes) in [
            ("0B", Some(0)),
            ("64KiB", Some(65_536)),
            ("16MiB", Some(16_777_216)),
            ("1GiB", Some(1 << 30)),
            ("16MB", None),
            ("16", None),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text:?}");
        }
    }

    #[test]
    fn upstreams_are_a_host_with_a_port_or_a_socket() {
        let tcp = |host: &str, port| Some(UpstreamAddress::Tcp(host.to_owned(), port));
        for (text, address) in [
            ("http://127.0.0.1:9001", tcp("127.0.0.1", 9001)),
            ("http://cameras.internal:80/", tcp("cameras.internal", 80)),
            ("http://[::1]:9001", tcp("::1", 9001)),
            ("https://cameras.internal:443", tcp("cameras.internal", 443)),
            ("unix:/run/cameras.sock", Some(UpstreamAddress::Unix("/run/cameras.sock".into()))),
            ("unix:cameras.sock", None),
            ("ftp://cameras.internal:21", None),
            ("http://cameras.internal", None),
            ("http://cameras.internal:9001/api", None),
            ("http://user@cameras.internal:9001", None),
            ("http://:9001", None),
            ("http://cameras:0", None),
            ("cameras.internal:9001", None),
        ] {
            assert_eq!(
                parse_upstream(text, UpstreamProtocol::Http1).ok().map(|read| read.address),
                address,
                "{text:?}"
            );
        }
        assert_eq!(
            parse_upstream("https://a:1", UpstreamProtocol::Http1).map(|read| (read.secure, read.authority)),
            Ok((true, "a:1".to_owned()))
        );
        for (text, secure) in [
            ("tcp://a:1", Some(false)),
            ("tls://a:1", Some(true)),
            ("unix:/run/a.sock", Some(false)),
            ("http://a:1", None),
            ("tcp://a", None),
        ] {
            let read = parse_upstream(text, UpstreamProtocol::Tcp).ok();
            assert_eq!(read.map(|read| read.secure), secure, "{text}");
        }
        assert!(parse_upstream("tcp://a:1", UpstreamProtocol::Http1).is_err());
    }

    #[test]
    fn statuses_are_one_or_a_range() {
        for (text, range) in [
            ("200", Some(200..=200)),
            ("200..399", Some(200..=399)),
            ("399..200", None),
            ("101", None),
            ("200..600", None),
            ("2xx", None),
            ("200..", None),
        ] {
            assert_eq!(parse_statuses(text).ok(), range, "{text:?}");
        }
    }

    #[test]
    fn targets_are_paths_with_a_query() {
        for (text, good) in
            [("/healthz", true), ("/h?deep=1", true), ("healthz", false), ("/a b", false), ("/#a", false)]
        {
            assert_eq!(parse_target(text).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn grpc_methods_are_paths() {
        for (text, path) in [
            ("city.Cameras/Submit", Some("/city.Cameras/Submit")),
            ("city.Cameras/*", Some("/city.Cameras/{method}")),
            ("city.Cameras", None),
            ("/city.Cameras/Submit", None),
            ("city.Cameras/Submit/x", None),
            ("city.Cameras/{id}", None),
            ("*/Submit", Some("/{service}/Submit")),
            ("*", Some("/{service}/{method}")),
            ("*/*", None),
            ("*/city.Submit", None),
            ("city.*/Submit", None),
        ] {
            assert_eq!(parse_grpc_method(text).ok().map(|path| path.0).as_deref(), path, "{text:?}");
        }
    }

    #[test]
    fn hosts_are_lower_case_names_or_addresses() {
        for (text, expected) in [
            ("Gateway.City.Example", Some("gateway.city.example")),
            ("gateway.", Some("gateway")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("gateway:8443", None),
            ("*.city.example", None),
            ("", None),
        ] {
            assert_eq!(parse_host(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn hosts_of_subsystems_may_begin_with_a_wildcard() {
        for (text, expected) in [
            ("Gateway.City.Example", Some("gateway.city.example")),
            ("*.City.Example.", Some("*.city.example")),
            ("**.city.example", Some("**.city.example")),
            ("[::1]", Some("[::1]")),
            ("*", None),
            ("**", None),
            ("*.", None),
            ("*.*.example", None),
            ("***.example", None),
            ("a.*.example", None),
            ("a*.example", None),
            ("*.[::1]", None),
            ("*.city.example:8443", None),
        ] {
            assert_eq!(parse_host_pattern(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn prefixes_are_rooted_and_end_without_a_slash() {
        for (text, expected) in [
            ("/", Some("")),
            ("/cameras", Some("/cameras")),
            ("/cameras/", Some("/cameras")),
            ("/a/b", Some("/a/b")),
            ("cameras", None),
            ("", None),
            ("//a", None),
            ("/{id}", None),
            ("/a/../b", None),
            ("/a;b", None),
        ] {
            assert_eq!(parse_prefix(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn paths_that_no_request_can_have_are_problems() {
        for (text, reason) in [("/v1/../a", "dot segment"), ("/v1//a", "empty segment"), ("/v1/a;b", "semicolon")] {
            let message = parse_template(text).expect_err("unreachable");
            assert!(message.contains(reason), "{message}");
        }
        for text in ["/", "/v1/.well-known/{id}", "/v1/{*rest}", "/v1/"] {
            assert!(parse_template(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn methods_are_upper_case() {
        assert_eq!(parse_method("POST"), Ok(Method::POST));
        assert_eq!(parse_method("PURGE").map(|method| method.to_string()), Ok("PURGE".to_owned()));
        assert!(parse_method("post").is_err());
        assert!(parse_method("P T").is_err());
    }
}

//! The check of the `Host` header on the admin server, against DNS rebinding. A page in an operator's browser can point
//! its own host name at the admin address and then read the responses under that name. Its requests can carry no other
//! `Host` than that name.
//!
//! Guarantees:
//! - Pure.
//! - Accepted are IP addresses, `localhost` and the names in `admin.hosts`.
//! - Health probes are accepted with every host: their responses show nothing of departments, and a load balancer that
//!   probes by name must not take the gateway out of service.

use std::net::{IpAddr, Ipv6Addr};

use http::header::HOST;
use http::request::Parts;
use http::{StatusCode, Version};

use super::response::{AdminResponse, problem_response};

/// Checks the host of a request; the error is the response to send.
pub(crate) fn check_host(request: &Parts, hosts: &[String]) -> Result<(), Box<AdminResponse>> {
    let mut named = request.headers.get_all(HOST).iter();
    let target = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.as_bytes(),
        // Health probes use HTTP/1.0; browsers do not.
        (None, _) if request.version == Version::HTTP_10 => b"localhost",
        _ => return Err(Box::new(problem_response(StatusCode::BAD_REQUEST, "exactly one Host is required"))),
    };
    let is_answered = |host: &[u8]| std::str::from_utf8(host).is_ok_and(|host| is_allowed_host(host, hosts));
    let is_probe = matches!(request.uri.path(), "/livez" | "/readyz");
    if is_probe || (is_answered(host) && target.is_none_or(is_answered)) {
        return Ok(());
    }
    let hint = "unknown host; add the name to admin.hosts (IP addresses and localhost are always allowed)";
    Err(Box::new(problem_response(StatusCode::MISDIRECTED_REQUEST, hint)))
}

fn is_allowed_host(authority: &str, hosts: &[String]) -> bool {
    let host = host_without_port(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_local = |host: &str| host.eq_ignore_ascii_case("localhost");
    let is_address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()),
    };
    is_address
        || is_local(host)
        || host.rsplit_once('.').is_some_and(|(_, last)| is_local(last)) // RFC 6761 section 6.3
        || hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// The host without its port.
fn host_without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn addresses_localhost_and_configured_hosts_are_accepted() {
        let hosts = ["tallygate.city.example".to_owned()];
        for host in [
            "127.0.0.1:9090",
            "10.1.2.3",
            "[::1]:9090",
            "[fe80::1]",
            "localhost",
            "LOCALHOST.:9090",
            "a.localhost",
            "Tallygate.City.Example:9090",
        ] {
            assert!(is_allowed_host(host, &hosts), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9090",
            "",
            ":9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::1",
            "[evil.example]",
            "::1:x",
            "a:b@127.0.0.1",
            "x.tallygate.city.example",
        ] {
            assert!(!is_allowed_host(host, &hosts), "{host}");
        }
    }

    #[test]
    fn exactly_one_host_header_is_required() {
        let status = |version, uri: &str, hosts: &[&str]| {
            let request = Request::builder().version(version).uri(uri);
            let request = hosts.iter().fold(request, |request, host| request.header(HOST, *host));
            check_host(&request.body(()).expect("a request").into_parts().0, &[])
                .err()
                .map(|response| response.status().as_u16())
        };
        for (version, uri, hosts, expected) in [
            (Version::HTTP_11, "/config", &["localhost"][..], None),
            (Version::HTTP_10, "/config", &[], None),
            (Version::HTTP_11, "/config", &[], Some(400)),
            (Version::HTTP_11, "/livez", &[], Some(400)),
            (Version::HTTP_11, "/config", &["localhost", "localhost"], Some(400)),
            (Version::HTTP_10, "/config", &["evil.example"], Some(421)),
            (Version::HTTP_11, "/config", &["evil.example"], Some(421)),
            (Version::HTTP_11, "/livez", &["evil.example"], None),
            (Version::HTTP_11, "/readyz", &["gateway.city.example"], None),
            (Version::HTTP_11, "/livez/", &["evil.example"], Some(421)),
            (Version::HTTP_11, "http://localhost/config", &["localhost"], None),
            (Version::HTTP_11, "http://evil.example/config", &["localhost"], Some(421)),
        ] {
            assert_eq!(status(version, uri, hosts), expected, "{version:?} {uri} {hosts:?}");
        }
    }
}

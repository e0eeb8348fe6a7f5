//! The address of a Prometheus: scheme, host, path prefix, and the credentials of its URL.

use std::fmt;

use http::Uri;
use percent_encoding::percent_decode_str;

use crate::identity::base64_text;

/// The path of the query API below the prefix.
const QUERY_PATH: &str = "/api/v1/query";

/// The address of a Prometheus. Its text has no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PrometheusUrl {
    pub(super) is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port, as in the field `Host`.
    pub(super) authority: String,
    /// The path of the query API.
    pub(super) path: String,
    /// The value of `Authorization` for the credentials of the URL.
    pub(super) basic: Option<String>,
}

/// The text is not the URL of a Prometheus. The message has no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the URL of a Prometheus: {0}; write http://host:9090 or https://host/prefix")]
pub(super) struct BadPrometheusUrl(&'static str);

impl PrometheusUrl {
    /// Parses a URL.
    pub(super) fn parse(text: &str) -> Result<Self, BadPrometheusUrl> {
        let uri: Uri = text.parse().map_err(|_| BadPrometheusUrl("it cannot be read"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadPrometheusUrl("it does not begin with http:// or https://")),
        };
        if uri.query().is_some() {
            return Err(BadPrometheusUrl("it has a query"));
        }
        let authority = uri.authority().ok_or(BadPrometheusUrl("it has no host"))?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(BadPrometheusUrl("it has no host"));
        }
        Ok(Self {
            is_tls,
            host,
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: place.to_owned(),
            path: format!("{}{QUERY_PATH}", uri.path().trim_end_matches('/')),
            basic: user.map(basic_credentials),
        })
    }
}

/// RFC 7617.
fn basic_credentials(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut plain = percent_decode_str(name).collect::<Vec<u8>>();
    plain.push(b':');
    plain.extend(percent_decode_str(password));
    format!("Basic {}", base64_text(&plain))
}

impl fmt::Display for PrometheusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_has_a_prefix_and_credentials() {
        for (text, shown, host, port, basic) in [
            ("http://localhost:9090", "http://localhost:9090/api/v1/query", "localhost", 9090, None),
            ("https://p.example/prom/", "https://p.example/prom/api/v1/query", "p.example", 443, None),
            ("http://[::1]:9090/", "http://[::1]:9090/api/v1/query", "::1", 9090, None),
            // RFC 7617: Aladdin, "open sesame".
            (
                "http://Aladdin:open%20sesame@p",
                "http://p/api/v1/query",
                "p",
                80,
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
        ] {
            let url = PrometheusUrl::parse(text).expect(text);
            assert_eq!((url.to_string().as_str(), url.host.as_str(), url.port), (shown, host, port), "{text}");
            assert_eq!(url.basic.as_deref(), basic, "{text}");
        }
        for text in ["", "localhost:9090", "ftp://p", "/api", "http://", "http://p/?a=b", "http://a b"] {
            assert!(PrometheusUrl::parse(text).is_err(), "{text}");
        }
    }
}

//! Redirects: `ssl-redirect`, `force-ssl-redirect`, `app-root`, `permanent-redirect` and `temporal-redirect`.
//!
//! Guarantees: an Ingress whose redirect cannot be expressed is refused, because its requests would be forwarded.
//!
//! Leaves to others: the listeners (`ingresses`).

use http::uri::Authority;
use serde_json::{Map, Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::{is_host, is_plain_path, parse_count};
use crate::kube::objects::Ingress;

/// The variable that stands for path and query of the request.
const REQUEST_URI: &str = "$request_uri";
/// The statuses of redirects.
const STATUSES: [u64; 5] = [301, 302, 303, 307, 308];

/// The hosts whose plain requests are redirected to HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kube::translate) enum HttpsScope {
    #[default]
    None,
    /// Those of `spec.tls`.
    TlsHosts,
    All,
}

/// The redirects of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::kube::translate) struct RedirectPlan {
    pub(in crate::kube::translate) https: HttpsScope,
    /// The path to which `/` is redirected.
    pub(in crate::kube::translate) app_root: Option<String>,
    /// The redirect of all requests.
    pub(in crate::kube::translate) whole: Option<Value>,
}

pub(super) fn read_redirects(reader: &mut AnnotationReader<'_>, ingress: &Ingress) -> RedirectPlan {
    RedirectPlan { https: read_https(reader, ingress), app_root: read_app_root(reader), whole: read_whole(reader) }
}

fn read_https(reader: &mut AnnotationReader<'_>, ingress: &Ingress) -> HttpsScope {
    let mut scope = HttpsScope::None;
    let has_tls = ingress.tls.iter().any(|tls| !tls.hosts.is_empty());
    match reader.switch("ssl-redirect") {
        Some(true) if has_tls => {
            scope = HttpsScope::TlsHosts;
            reader.taken("ssl-redirect", "308 from port 80 to HTTPS for the hosts of spec.tls; it costs no units");
        }
        Some(true) => reader.taken("ssl-redirect", "without hosts in spec.tls nothing is redirected"),
        Some(false) => reader.taken("ssl-redirect", "nothing is redirected"),
        None => {}
    }
    match reader.switch("force-ssl-redirect") {
        Some(true) => {
            scope = HttpsScope::All;
            let sentence = "308 from port 80 for all hosts; X-Forwarded-Proto is not read, so behind a balancer that \
                            ends TLS the redirect would not end";
            reader.differs("force-ssl-redirect", sentence);
        }
        Some(false) => reader.taken("force-ssl-redirect", "off"),
        None => {}
    }
    scope
}

fn read_app_root(reader: &mut AnnotationReader<'_>) -> Option<String> {
    let plain = |text: &str| (is_plain_path(text) && text != "/").then(|| text.to_owned());
    let root = reader.parsed("app-root", "a plain path other than /", plain)?;
    reader.taken("app-root", "302 from / of each host to this path; it costs no units");
    Some(root)
}

fn read_whole(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    let code = match reader.value("permanent-redirect-code") {
        None => 301,
        Some(text) => match parse_count(text).filter(|code| STATUSES.contains(code)) {
            Some(code) => {
                reader.taken("permanent-redirect-code", "the status of permanent-redirect");
                code
            }
            None => {
                reader.differs("permanent-redirect-code", "301 is used instead");
                301
            }
        },
    };
    let temporal = read_one(reader, "temporal-redirect", 302);
    let permanent = reader.value("temporal-redirect").is_none().then(|| read_one(reader, "permanent-redirect", code));
    if permanent.is_none() {
        reader.taken("permanent-redirect", "temporal-redirect takes precedence, as in ingress-nginx");
    }
    temporal.or(permanent.flatten())
}

fn read_one(reader: &mut AnnotationReader<'_>, name: &str, status: u64) -> Option<Value> {
    let url = reader.value(name)?;
    let keys = match url.strip_suffix(REQUEST_URI) {
        Some(base) => parts_of(base),
        None => location_of(url),
    };
    let Some(mut keys) = keys else {
        reader.refused(name, "only SCHEME://HOST$request_uri and URLs without variables and query can be expressed");
        return None;
    };
    keys.insert("status".to_owned(), json!(status));
    if keys.contains_key("location") {
        reader.differs(name, "all requests are redirected, and the query of the request stays");
    } else {
        reader.taken(name, "all requests are redirected");
    }
    Some(Value::Object(keys))
}

/// The parts of the URL to replace: path and query are those of the request.
fn parts_of(base: &str) -> Option<Map<String, Value>> {
    let (scheme, authority) = base.split_once("://")?;
    let mut keys = Map::new();
    match scheme {
        "http" | "https" => drop(keys.insert("scheme".to_owned(), json!(scheme))),
        "$scheme" => {}
        _ => return None,
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    match host {
        "$host" => {}
        host if is_host(host) => drop(keys.insert("host".to_owned(), json!(host))),
        _ => return None,
    }
    if !port.is_empty() {
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        keys.insert("port".to_owned(), json!(port));
    }
    (!keys.is_empty()).then_some(keys)
}

fn location_of(url: &str) -> Option<Map<String, Value>> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let path = match rest {
        Some(rest) => {
            let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
            let is_plain = authority.parse::<Authority>().is_ok() && !authority.contains(['@', '{', '}', '$']);
            is_plain.then_some(path)?
        }
        None => url,
    };
    is_plain_path(path).then(|| Map::from_iter([("location".to_owned(), json!(url))]))
}

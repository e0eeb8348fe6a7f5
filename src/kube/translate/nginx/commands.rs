//! Annotations that are keys of each command: body size, limits, CORS, and fields; more hosts of the subsystem.
//!
//! Guarantees: a value that the configuration would refuse is not taken.
//!
//! Leaves to others: limits and sources (`address_limits`, `bandwidth`), paths and redirects (`paths`, `redirects`).

use http::Uri;
use serde_json::{Map, Value, json};

use super::address_limits::{read_limits, read_sources};
use super::annotation_reader::AnnotationReader;
use super::bandwidth::read_bandwidth;
use super::values::{is_host, list_items, parse_bytes, parse_count};

/// The body size for `0`, which means any: 1 TiB.
const BODY_ANY: &str = "1024GiB";
/// The most hosts of `server-alias`, and the most names of a list of CORS.
const NAMES_MAX: usize = 64;

/// The lists of CORS in ingress-nginx.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const CORS_HEADERS: &str =
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
/// Its cache time of preflights, in seconds: 20 days.
const CORS_MAX_AGE: u64 = 1_728_000;
const CORS_PARTS: [&str; 6] =
    ["allow-origin", "allow-methods", "allow-headers", "allow-credentials", "expose-headers", "max-age"];

/// The keys of each command that is forwarded.
pub(super) fn read_command_keys(reader: &mut AnnotationReader<'_>) -> Map<String, Value> {
    let mut keys = Map::new();
    keys.extend(read_body_size(reader).map(|size| ("body".to_owned(), json!({ "max": size }))));
    keys.extend(read_limits(reader).map(|limits| ("addressLimits".to_owned(), limits)));
    keys.extend(read_bandwidth(reader).map(|limit| ("bandwidthLimit".to_owned(), limit)));
    keys.extend(read_sources(reader).map(|sources| ("sources".to_owned(), sources)));
    keys.extend(read_cors(reader).map(|cors| ("cors".to_owned(), cors)));
    keys
}

fn read_body_size(reader: &mut AnnotationReader<'_>) -> Option<String> {
    let bytes = reader.parsed("proxy-body-size", "a size such as 8m", parse_bytes)?;
    if bytes == 0 {
        reader.differs("proxy-body-size", "at most 1 TiB instead of any size");
        return Some(BODY_ANY.to_owned());
    }
    reader.taken("proxy-body-size", "the largest request body; beyond it 413");
    Some(format!("{bytes}B"))
}

fn read_cors(reader: &mut AnnotationReader<'_>) -> Option<Value> {
    if reader.switch("enable-cors") != Some(true) {
        reader.taken("enable-cors", "off");
        for part in CORS_PARTS {
            reader.taken(&format!("cors-{part}"), "has no effect without enable-cors: \"true\"");
        }
        return None;
    }
    reader.taken("enable-cors", "only the gateway sends Access-Control-*; preflights are answered with 204");
    let origins = read_origins(reader)?;
    let credentials = reader.switch("cors-allow-credentials").unwrap_or(true);
    reader.taken("cors-allow-credentials", "whether pages may send cookies and certificates");
    let is_any = origins == ["*"];
    let max_age = reader.parsed("cors-max-age", "whole seconds", |text| parse_count(text).filter(|age| *age > 0));
    reader.taken("cors-max-age", "the cache time of preflights");
    let mut cors = json!({
        "origins": origins,
        // Browsers refuse `*` with credentials, which is what ingress-nginx sends.
        "credentials": credentials && !is_any,
        "maxAge": format!("{}s", max_age.unwrap_or(CORS_MAX_AGE)),
    });
    let lists = [
        ("methods", "cors-allow-methods", Some(CORS_METHODS)),
        ("headers", "cors-allow-headers", Some(CORS_HEADERS)),
        ("exposeHeaders", "cors-expose-headers", None),
    ];
    for (key, name, default) in lists {
        let names = read_names(reader, name, key == "exposeHeaders" && cors["credentials"] == true);
        let names = names.or_else(|| default.map(|text| list_items(text).map(str::to_owned).collect()));
        if let Some(names) = names {
            cors[key] = json!(names);
        }
    }
    Some(cors)
}

/// A list of methods or fields. `*` for all may be impossible.
fn read_names(reader: &mut AnnotationReader<'_>, name: &str, refuses_any: bool) -> Option<Vec<String>> {
    let is_token = |item: &str| item.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    let names = reader.parsed(name, "a list of names", |text| {
        let names: Vec<String> = list_items(text).map(str::to_owned).collect();
        let are_names = names == ["*"] || names.iter().all(|name| is_token(name));
        (are_names && (1..=NAMES_MAX).contains(&names.len())).then_some(names)
    })?;
    if refuses_any && names == ["*"] {
        reader.lost(name, "browsers do not treat * as all fields together with credentials; list the fields");
        return None;
    }
    reader.taken(name, "the list of names");
    let is_method = name == "cors-allow-methods";
    Some(if is_method { names.iter().map(|name| name.to_ascii_uppercase()).collect() } else { names })
}

/// The origins; `None` if there is none that can be taken: then no page of another origin reads responses.
fn read_origins(reader: &mut AnnotationReader<'_>) -> Option<Vec<String>> {
    let Some(text) = reader.value("cors-allow-origin") else { return Some(vec!["*".to_owned()]) };
    let items: Vec<&str> = list_items(text).collect();
    if items.is_empty() || items.contains(&"*") {
        reader.taken("cors-allow-origin", "all origins, without credentials, which browsers refuse for *");
        return Some(vec!["*".to_owned()]);
    }
    let origins: Vec<String> = items.iter().filter_map(|item| origin(item)).take(NAMES_MAX).collect();
    match origins.len() {
        0 => {
            reader.lost("cors-allow-origin", "none of the origins is SCHEME://HOST; CORS is off");
            return None;
        }
        count if count < items.len() => reader.lost("cors-allow-origin", "the origins that are not SCHEME://HOST"),
        _ if text.contains('*') => {
            reader.differs("cors-allow-origin", "a wildcard stands for one or more labels instead of exactly one");
        }
        _ => reader.taken("cors-allow-origin", "the list of origins"),
    }
    Some(origins)
}

/// An origin as browsers write it: in lower case, without the usual port.
fn origin(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let usual = if scheme == "http" { ":80" } else { ":443" };
    let authority = authority.strip_suffix(usual).unwrap_or(authority);
    let plain = authority.strip_prefix("*.").unwrap_or(authority);
    let uri: Uri = format!("{scheme}://{plain}").parse().ok()?;
    let is_plain = uri.authority().is_some_and(|read| read.as_str() == plain) && !plain.contains(['*', '@']);
    (is_plain && !plain.ends_with(':')).then(|| format!("{scheme}://{authority}"))
}

/// The hosts of `server-alias`.
pub(super) fn read_aliases(reader: &mut AnnotationReader<'_>) -> Vec<String> {
    let Some(text) = reader.value("server-alias") else { return Vec::new() };
    let items: Vec<&str> = list_items(text).collect();
    let is_alias = |item: &&&str| is_host(item.strip_prefix("*.").unwrap_or(item));
    let hosts: Vec<String> = items.iter().filter(is_alias).map(|item| item.to_ascii_lowercase()).collect();
    match hosts.len() {
        count if count < items.len() || count > NAMES_MAX => {
            reader.lost("server-alias", "regular expressions, and more than 64 hosts");
        }
        _ => reader.taken("server-alias", "more hosts of the same rules and the same certificate"),
    }
    hosts.into_iter().take(NAMES_MAX).collect()
}

/// The host of `upstream-vhost`.
pub(super) fn read_upstream_host(reader: &mut AnnotationReader<'_>) -> Option<String> {
    let host = reader.parsed("upstream-vhost", "a host name without port and variables", |text| {
        is_host(text).then(|| text.to_owned())
    })?;
    reader.taken("upstream-vhost", "the Host that servers get");
    Some(host)
}

/// The ConfigMap of `custom-headers`.
pub(super) fn read_custom_headers(reader: &mut AnnotationReader<'_>) -> Option<String> {
    let value = reader.value("custom-headers")?;
    let (namespace, name) = value.split_once('/').unwrap_or((reader.namespace, value));
    if namespace != reader.namespace || name.is_empty() || name.contains('/') {
        reader.lost("custom-headers", "the ConfigMap has to be in the namespace of the Ingress");
        return None;
    }
    let sentence = "the fields of responses; those that only the gateway may write are left out";
    reader.differs("custom-headers", sentence);
    Some(name.to_owned())
}

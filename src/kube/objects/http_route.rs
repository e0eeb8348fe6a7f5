//! HTTPRoute: rules with matches, filters and backends.
//!
//! Guarantees:
//! - A duration has the form of GEP-2257.
//!
//! Leaves to others: the order of rules and the meaning of filters: `translate`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::{BackendReference, LocalReference, ParentReference};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    pub parent_refs: Vec<ParentReference>,
    pub hostnames: Vec<Box<str>>,
    pub rules: Vec<HttpRule>,
}

impl KubeObject for HttpRoute {
    const KIND: ObjectKind = ObjectKind::HttpRoute;
    const PART: ObjectPart = ObjectPart::Spec;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRule {
    pub name: Option<Box<str>>,
    /// Empty: every request.
    pub matches: Vec<HttpRouteMatch>,
    pub filters: Vec<HttpFilter>,
    pub backend_refs: Vec<HttpBackend>,
    pub timeouts: RouteTimeouts,
    pub retry: Option<RouteRetry>,
    /// Experimental and not supported: kept to be refused.
    pub session_persistence: Option<serde_json::Value>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    pub path: HttpPathMatch,
    pub headers: Vec<ValueMatch>,
    pub query_params: Vec<ValueMatch>,
    pub method: Option<Box<str>>,
}

/// A condition on the path. The default is the prefix `/`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HttpPathMatch {
    #[serde(rename = "type", default)]
    pub kind: PathMatchKind,
    #[serde(default = "root_path")]
    pub value: Box<str>,
}

impl Default for HttpPathMatch {
    fn default() -> Self {
        Self { kind: PathMatchKind::default(), value: root_path() }
    }
}

fn root_path() -> Box<str> {
    "/".into()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PathMatchKind {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
    #[serde(untagged)]
    Other(Box<str>),
}

/// A condition on a header, a query parameter or a gRPC header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ValueMatch {
    #[serde(rename = "type", default)]
    pub kind: ValueMatchKind,
    pub name: Box<str>,
    #[serde(default)]
    pub value: Box<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum ValueMatchKind {
    #[default]
    Exact,
    RegularExpression,
    #[serde(untagged)]
    Other(Box<str>),
}

/// A filter: its kind, and the field of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFilter {
    #[serde(rename = "type")]
    pub kind: HttpFilterKind,
    #[serde(default)]
    pub request_header_modifier: Option<HeaderFilter>,
    #[serde(default)]
    pub response_header_modifier: Option<HeaderFilter>,
    #[serde(default)]
    pub request_mirror: Option<MirrorFilter>,
    #[serde(default)]
    pub request_redirect: Option<RedirectFilter>,
    #[serde(default)]
    pub url_rewrite: Option<RewriteFilter>,
    #[serde(default)]
    pub cors: Option<CorsFilter>,
    #[serde(default)]
    pub extension_ref: Option<LocalReference>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum HttpFilterKind {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
    #[serde(untagged)]
    Other(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderFilter {
    pub set: Vec<HeaderValue>,
    pub add: Vec<HeaderValue>,
    pub remove: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HeaderValue {
    pub name: Box<str>,
    #[serde(default)]
    pub value: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorFilter {
    pub backend_ref: BackendReference,
    /// Percent of the requests.
    #[serde(default)]
    pub percent: Option<u32>,
    #[serde(default)]
    pub fraction: Option<MirrorShare>,
}

/// A share of the requests as a fraction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MirrorShare {
    pub numerator: u32,
    #[serde(default = "hundred")]
    pub denominator: u32,
}

fn hundred() -> u32 {
    100
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedirectFilter {
    pub scheme: Option<Box<str>>,
    pub hostname: Option<Box<str>>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    /// Default of the API: 302.
    pub status_code: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RewriteFilter {
    pub hostname: Option<Box<str>>,
    pub path: Option<PathModifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    #[serde(rename = "type")]
    pub kind: PathModifierKind,
    #[serde(default)]
    pub replace_full_path: Option<Box<str>>,
    #[serde(default)]
    pub replace_prefix_match: Option<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub enum PathModifierKind {
    ReplaceFullPath,
    ReplacePrefixMatch,
    #[serde(untagged)]
    Other(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CorsFilter {
    pub allow_origins: Vec<Box<str>>,
    pub allow_credentials: bool,
    pub allow_methods: Vec<Box<str>>,
    pub allow_headers: Vec<Box<str>>,
    pub expose_headers: Vec<Box<str>>,
    /// Seconds. Default of the API: 5.
    pub max_age: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct HttpBackend {
    #[serde(flatten)]
    pub backend: BackendReference,
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// Of the whole request. Zero: no timeout.
    pub request: Option<RouteDuration>,
    /// Of each attempt. Zero: no timeout.
    pub backend_request: Option<RouteDuration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteRetry {
    pub codes: Vec<u16>,
    /// Retries beside the first request. Zero switches retries off (since Gateway API 1.7).
    pub attempts: Option<u32>,
    pub backoff: Option<RouteDuration>,
}

/// A duration of GEP-2257: one to four groups of at most five digits and a unit `h`, `m`, `s` or `ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteDuration(pub Duration);

impl RouteDuration {
    /// The longest number of a group, in digits.
    const DIGITS_MAX: usize = 5;
    /// The largest number of groups.
    const GROUPS_MAX: usize = 4;

    /// Parses a duration. Returns `None` if `text` has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut rest, mut sum) = (text, Duration::ZERO);
        for _ in 0..Self::GROUPS_MAX {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let (number, unit) = rest.split_at(digits);
            let letters = unit.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit.len());
            let (unit, next) = unit.split_at(letters);
            if number.is_empty() || number.len() > Self::DIGITS_MAX {
                return None;
            }
            sum += unit_of(unit)?.checked_mul(number.parse().ok()?)?;
            rest = next;
            if rest.is_empty() {
                return Some(Self(sum));
            }
        }
        None
    }
}

fn unit_of(unit: &str) -> Option<Duration> {
    match unit {
        "h" => Some(Duration::from_secs(3600)),
        "m" => Some(Duration::from_secs(60)),
        "s" => Some(Duration::from_secs(1)),
        "ms" => Some(Duration::from_millis(1)),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for RouteDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom(format!("`{text}` is no duration: expected numbers with h, m, s or ms, as in 1h30m"))
        })
    }
}

//! The transformations of a command in a configuration: header edits, rewrite, redirect, CORS, mirroring.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Header fields to set or remove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HeadersDocument {
    /// For requests, towards the subsystem.
    pub(crate) request: Option<HeaderEditsDocument>,
    /// For the subsystem's responses, towards callers.
    pub(crate) response: Option<HeaderEditsDocument>,
}

/// The edits of one direction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct HeaderEditsDocument {
    /// Names with their new values; earlier values are replaced.
    #[serde(default)]
    pub(crate) set: BTreeMap<String, String>,
    /// Names with values that are added; earlier values stay.
    #[serde(default)]
    pub(crate) add: BTreeMap<String, String>,
    /// The names of the fields to remove.
    #[serde(default)]
    pub(crate) remove: Vec<String>,
}

/// The rewrite of what is forwarded: a host, and at most one of path, prefix and replacePrefixMatch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RewriteDocument {
    /// The forwarded host, without port, such as cameras.internal. X-Forwarded-Host keeps the requested one.
    pub(crate) host: Option<String>,
    /// The new whole path, such as /v2/cameras/{id}, with the parameters that match.path captures.
    pub(crate) path: Option<String>,
    /// The replacement of the subsystem's prefix, such as /internal.
    pub(crate) prefix: Option<String>,
    /// The replacement of the prefix that match.pathPrefix matched, such as /internal.
    pub(crate) replace_prefix_match: Option<String>,
}

/// The redirect of callers; then nothing is forwarded. Either location, or at least one of the parts of the URL.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct RedirectDocument {
    /// An http or https URL, or a path on the same host, with the parameters that match.path captures. The query stays.
    pub(crate) location: Option<String>,
    /// The new scheme: http or https. Default: that of the request.
    pub(crate) scheme: Option<String>,
    /// The new host, without port. Default: that of the request.
    pub(crate) host: Option<String>,
    /// The new port. Default: the well-known one of scheme, or without scheme that of the request.
    pub(crate) port: Option<u64>,
    /// The new whole path, with the parameters that match.path captures. Default: that of the request.
    pub(crate) path: Option<String>,
    /// Instead of path: the replacement of the subsystem's prefix.
    pub(crate) prefix: Option<String>,
    /// Instead of path: the replacement of the prefix that match.pathPrefix matched.
    pub(crate) replace_prefix_match: Option<String>,
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub(crate) status: Option<u64>,
}

/// The origins whose pages a browser allows to read responses (Fetch standard, CORS).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct CorsDocument {
    /// Origins such as <https://console.city.example> or https://*.city.example, or * for all; at least one.
    #[serde(default)]
    pub(crate) origins: Vec<String>,
    /// The methods that a page may use. Default: the requested method, if a command matches it.
    pub(crate) methods: Option<Vec<String>>,
    /// The fields that a page may send beyond the safelisted ones. Default: none.
    pub(crate) headers: Option<Vec<String>>,
    /// The response fields that a page may read beyond the safelisted ones. Default: none.
    pub(crate) expose_headers: Option<Vec<String>>,
    /// The time for which a browser may cache the response to a preflight. Default: the browser's default.
    pub(crate) max_age: Option<String>,
    /// Whether a page may send credentials: cookies and certificates. Default: false.
    pub(crate) credentials: Option<bool>,
    /// Whether all origins may send credentials. Not possible in a file, where it is a mistake; the Gateway API allows
    /// it.
    #[serde(skip)]
    pub(crate) may_trust_all: bool,
}

/// The mirroring of requests to other backends: one mapping, or a list of at most 4.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum MirrorsDocument {
    /// One other backend.
    One(MirrorDocument),
    /// Several other backends.
    Several(Vec<MirrorDocument>),
}

/// The mirroring of requests to another subsystem or backend; the responses are discarded. Exactly one of subsystem and
/// backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct MirrorDocument {
    /// The id of another subsystem with servers.
    pub(crate) subsystem: Option<String>,
    /// Instead of subsystem: the id of a backend, or of another subsystem with servers.
    pub(crate) backend: Option<String>,
    /// The percentage of requests that are copied, on average: 1 to 100. Default: 100.
    pub(crate) percent: Option<u64>,
    /// Instead of percent: the fraction of requests that are copied, on average.
    pub(crate) fraction: Option<FractionDocument>,
}

/// A fraction of requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct FractionDocument {
    /// At least 1, and at most the denominator.
    pub(crate) numerator: u64,
    /// At most 1000000. Default: 100.
    pub(crate) denominator: Option<u64>,
}

// Not `serde(untagged)`, which reads a value into memory first: unknown keys in it would have no place in the file.
impl<'de> Deserialize<'de> for MirrorsDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MirrorsVisitor)
    }
}

struct MirrorsVisitor;

impl<'de> Visitor<'de> for MirrorsVisitor {
    type Value = MirrorsDocument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with the key subsystem or backend, or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        MirrorDocument::deserialize(MapAccessDeserializer::new(map)).map(MirrorsDocument::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(MirrorsDocument::Several)
    }
}

//! The requests that a command matches, in a configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// One set of conditions, or a list of sets of which one must hold.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum MatchListDocument {
    /// All conditions must hold.
    One(MatchDocument),
    /// One of these must hold; at most 64.
    Any(Vec<MatchDocument>),
}

/// One set of conditions: all must hold. Exactly one of path, pathPrefix, pathRegex and grpc.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct MatchDocument {
    /// GET, POST, ... Default: any.
    pub(crate) method: Option<String>,
    /// The path below the subsystem's prefix: literal segments, {name} for one, {*name} for the rest.
    pub(crate) path: Option<String>,
    /// A path below the subsystem's prefix, with all paths below it, by whole segments; / for all paths.
    pub(crate) path_prefix: Option<String>,
    /// A regular expression (RE2 syntax) for the whole path below the subsystem's prefix.
    pub(crate) path_regex: Option<String>,
    /// Instead of method and path, a gRPC method: package.Service/Method, package.Service/* for a whole
    /// service, */Method for a method of any service, or * for all. Conditions on header fields may stand beside it.
    pub(crate) grpc: Option<String>,
    /// Conditions on header fields; at most 16.
    #[serde(default)]
    pub(crate) headers: Vec<FieldMatchDocument>,
    /// Conditions on decoded query parameters, of which the first of a name counts; at most 16.
    #[serde(default)]
    pub(crate) query: Vec<FieldMatchDocument>,
}

/// A condition on a header field or a query parameter: exactly one of value, regex and present.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub(crate) struct FieldMatchDocument {
    /// Its name.
    pub(crate) name: String,
    /// The exact value.
    pub(crate) value: Option<String>,
    /// A regular expression (RE2 syntax) for the whole value.
    pub(crate) regex: Option<String>,
    /// true: with any value.
    pub(crate) present: Option<bool>,
}

/// Written out, because a derived `untagged` buffers its input, and unknown keys inside it would not be found.
impl<'de> Deserialize<'de> for MatchListDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MatchListVisitor)
    }
}

struct MatchListVisitor;

impl<'de> Visitor<'de> for MatchListVisitor {
    type Value = MatchListDocument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a match such as { method: GET, path: /v1 }, or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        MatchDocument::deserialize(MapAccessDeserializer::new(map)).map(MatchListDocument::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(MatchListDocument::Any)
    }
}

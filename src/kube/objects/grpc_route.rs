//! GRPCRoute: rules with matches by service and method.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: the order of rules: `translate`.

use serde::Deserialize;

use super::http_route::{HeaderFilter, HttpFilterKind, MirrorFilter, ValueMatch, ValueMatchKind};
use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::{BackendReference, LocalReference, ParentReference};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcRoute {
    pub parent_refs: Vec<ParentReference>,
    pub hostnames: Vec<Box<str>>,
    pub rules: Vec<GrpcRule>,
}

impl KubeObject for GrpcRoute {
    const KIND: ObjectKind = ObjectKind::GrpcRoute;
    const PART: ObjectPart = ObjectPart::Spec;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcRule {
    pub name: Option<Box<str>>,
    /// Empty: every call.
    pub matches: Vec<GrpcRouteMatch>,
    pub filters: Vec<GrpcFilter>,
    pub backend_refs: Vec<GrpcBackend>,
    /// Experimental and not supported: kept to be refused.
    pub session_persistence: Option<serde_json::Value>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcRouteMatch {
    pub method: Option<GrpcMethodMatch>,
    pub headers: Vec<ValueMatch>,
}

/// A condition on the service, the method, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcMethodMatch {
    #[serde(rename = "type")]
    pub kind: ValueMatchKind,
    pub service: Option<Box<str>>,
    pub method: Option<Box<str>>,
}

/// A filter: its kind, and the field of that kind.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcFilter {
    #[serde(rename = "type")]
    pub kind: HttpFilterKind,
    #[serde(default)]
    pub request_header_modifier: Option<HeaderFilter>,
    #[serde(default)]
    pub response_header_modifier: Option<HeaderFilter>,
    #[serde(default)]
    pub request_mirror: Option<MirrorFilter>,
    #[serde(default)]
    pub extension_ref: Option<LocalReference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GrpcBackend {
    #[serde(flatten)]
    pub backend: BackendReference,
    #[serde(default)]
    pub filters: Vec<GrpcFilter>,
}

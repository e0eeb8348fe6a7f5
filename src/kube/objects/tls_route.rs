//! TLSRoute: rules by server name.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: passthrough and termination: `translate`.

use serde::Deserialize;

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::{BackendReference, ParentReference};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsRoute {
    pub parent_refs: Vec<ParentReference>,
    pub hostnames: Vec<Box<str>>,
    pub rules: Vec<TlsRule>,
}

impl KubeObject for TlsRoute {
    const KIND: ObjectKind = ObjectKind::TlsRoute;
    const PART: ObjectPart = ObjectPart::Spec;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TlsRule {
    pub name: Option<Box<str>>,
    pub backend_refs: Vec<BackendReference>,
}

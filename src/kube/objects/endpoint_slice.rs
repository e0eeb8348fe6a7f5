//! EndpointSlice as the server sends it. The index keeps a reduced form.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: the choice among endpoints: `index`.

use serde::Deserialize;

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    pub address_type: SliceAddressKind,
    #[serde(default)]
    pub endpoints: Vec<SliceEndpoint>,
    #[serde(default)]
    pub ports: Vec<SlicePort>,
}

impl KubeObject for EndpointSlice {
    const KIND: ObjectKind = ObjectKind::EndpointSlice;
    const PART: ObjectPart = ObjectPart::Whole;
}

impl EndpointSlice {
    /// The label with the name of the Service.
    pub const SERVICE_LABEL: &'static str = "kubernetes.io/service-name";
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub enum SliceAddressKind {
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "IPv6")]
    Ipv6,
    #[serde(untagged)]
    Other(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SliceEndpoint {
    pub addresses: Vec<Box<str>>,
    pub conditions: EndpointConditions,
    pub zone: Option<Box<str>>,
    #[serde(rename = "nodeName")]
    pub node_name: Option<Box<str>>,
    pub hints: EndpointHints,
}

/// Missing conditions: `ready` counts as true, `serving` as `ready`, `terminating` as false.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    pub ready: Option<bool>,
    pub serving: Option<bool>,
    pub terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointHints {
    /// The zones whose clients should use the endpoint.
    pub for_zones: Vec<ZoneHint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ZoneHint {
    pub name: Box<str>,
}

/// A port. Missing number: all ports; it serves no requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SlicePort {
    /// The name of the port of the Service.
    pub name: Box<str>,
    pub port: Option<u16>,
    pub protocol: Option<Box<str>>,
}

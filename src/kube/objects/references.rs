//! References from one object to another, with the defaults of the API.
//!
//! Guarantees:
//! - A missing group or kind has the default of its kind of reference.
//!
//! Leaves to others:
//! - whether the reference is permitted and leads somewhere: `translate`.

use serde::{Deserialize, Serialize};

/// The name under which GatewayClasses choose this controller, and under which it owns entries of a status.
pub const CONTROLLER_NAME: &str = "tallygate.io/gateway-controller";

/// The group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The parent of a route, or the ancestor of a policy. It is written to the status in this form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    #[serde(default = "gateway_group")]
    pub group: Box<str>,
    #[serde(default = "gateway_kind")]
    pub kind: Box<str>,
    /// Default: the namespace of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Box<str>>,
    pub name: Box<str>,
    /// The name of a listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Box<str>>,
    /// The port of listeners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SecretReference {
    #[serde(default)]
    pub group: Box<str>,
    #[serde(default = "secret_kind")]
    pub kind: Box<str>,
    pub name: Box<str>,
    /// Default: the namespace of the object that refers.
    #[serde(default)]
    pub namespace: Option<Box<str>>,
}

/// An object of any kind in any namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ObjectReference {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    /// Default: the namespace of the object that refers.
    #[serde(default)]
    pub namespace: Option<Box<str>>,
}

/// An object in the namespace of the object that refers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LocalReference {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
}

/// Where requests go: a Service by default, with its port and its share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BackendReference {
    #[serde(default)]
    pub group: Box<str>,
    #[serde(default = "service_kind")]
    pub kind: Box<str>,
    pub name: Box<str>,
    /// Default: the namespace of the object that refers.
    #[serde(default)]
    pub namespace: Option<Box<str>>,
    /// The port of the Service, not of its pods.
    #[serde(default)]
    pub port: Option<u16>,
    /// The share among the backends of a rule. Zero: no requests.
    #[serde(default = "one")]
    pub weight: u32,
}

/// The target of a policy, in the namespace of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTarget {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    /// A listener of a Gateway, or a port of a Service.
    #[serde(default)]
    pub section_name: Option<Box<str>>,
}

pub(super) fn gateway_group() -> Box<str> {
    GATEWAY_GROUP.into()
}

pub(super) fn gateway_kind() -> Box<str> {
    "Gateway".into()
}

fn secret_kind() -> Box<str> {
    "Secret".into()
}

fn service_kind() -> Box<str> {
    "Service".into()
}

fn one() -> u32 {
    1
}

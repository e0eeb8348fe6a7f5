//! Grant: which departments may call which commands of a route or an Ingress.
//!
//! Guarantees:
//! - The schema of the CRD is made from these types and their comments.
//!
//! Leaves to others: whether route and department exist: `translate`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::department::LimitsSpec;
use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::gateway_group;

/// Which departments may call which commands of routes and Ingresses of its namespace. A route that is the target of a
/// Grant is closed to all others; without one, it is open to all callers of its Gateway that no Department claims. An
/// Ingress is such a route, and its Gateway is that of all Ingresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantSpec {
    /// The routes and Ingresses, in the namespace of the Grant.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub target_refs: Vec<RouteTarget>,
    /// The ids of departments. NAMESPACE.NAME is the department of a Gateway: its callers that no Department claims;
    /// `ingress` is that of all Ingresses.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub departments: Vec<Box<str>>,
    /// Globs on ids of commands, each of which must match one: those of CommandSets, rule_NAME, or rule-0 for the first
    /// rule without a name; of an Ingress, rule-0-1 for the second path of the first rule, and default. Default: all.
    #[schemars(length(max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    #[serde(default)]
    pub commands: Vec<Box<str>>,
    /// The limits of each of the departments on each of the commands, in each gateway; instead of those of the command.
    /// Of several Grants for a command the oldest with limits counts.
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
}

impl KubeObject for GrantSpec {
    const KIND: ObjectKind = ObjectKind::Grant;
    const PART: ObjectPart = ObjectPart::Spec;
}

/// A route or an Ingress in the namespace of the object that refers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.kind == 'Ingress') == (self.group == 'networking.k8s.io')",
    "message": "an Ingress has the group networking.k8s.io, a route gateway.networking.k8s.io",
}]))]
pub struct RouteTarget {
    /// The group of the target: networking.k8s.io of an Ingress.
    #[schemars(extend("default" = "gateway.networking.k8s.io", "enum" = ["gateway.networking.k8s.io", "networking.k8s.io"]))]
    #[serde(default = "gateway_group")]
    pub group: Box<str>,
    /// The kind of the target.
    pub kind: RouteTargetKind,
    /// The name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum RouteTargetKind {
    #[serde(rename = "HTTPRoute")]
    Http,
    #[serde(rename = "GRPCRoute")]
    Grpc,
    Ingress,
}

impl RouteTargetKind {
    /// The kind of object.
    pub fn object_kind(self) -> ObjectKind {
        match self {
            Self::Http => ObjectKind::HttpRoute,
            Self::Grpc => ObjectKind::GrpcRoute,
            Self::Ingress => ObjectKind::Ingress,
        }
    }
}

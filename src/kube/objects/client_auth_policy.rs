//! ClientAuthPolicy: the authorities and revocation lists of the callers of listeners.
//!
//! Guarantees:
//! - The schema of the CRD is made from these types and their comments.
//!
//! Leaves to others: conflicts between policies: `translate`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::department::{BundleKind, RefuseOrAllow, authorities_entry};
use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::gateway_group;

/// The authentication of the callers of listeners by client certificates: authorities, revocation lists and mode.
/// Attached to HTTPS listeners of its namespace. Of several policies the most specific one counts for a listener as a
/// whole: for the listener of a Gateway or ListenerSet, for all listeners of a ListenerSet, for all listeners of a
/// Gateway with its ListenerSets. It takes the place of spec.tls.frontend of the Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientAuthPolicySpec {
    /// Gateways and ListenerSets in the namespace of the policy, or single listeners of them.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub target_refs: Vec<ListenerTarget>,
    /// The authorities of callers. A reference to another namespace needs a ReferenceGrant there. One that cannot be
    /// used takes the listener out of service.
    #[serde(rename = "caCertificateRefs")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub ca_certificate_refs: Vec<AuthorityReference>,
    /// The revocation lists of these authorities. With at least one, a caller is refused whose certificate no list
    /// covers. References are as those of authorities.
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    pub revocation_list_refs: Vec<RevocationReference>,
    /// The callers that are accepted. Required: with a certificate of an authority. Optional: also without one.
    /// AllowInsecureFallback: also with a certificate that fails verification, as callers without one.
    #[schemars(extend("default" = "Required"))]
    #[serde(default)]
    pub mode: ClientAuthChoice,
    /// The treatment of callers whose authority's revocation list has expired.
    #[schemars(extend("default" = "Refuse"))]
    #[serde(default)]
    pub expired_revocation: RefuseOrAllow,
    /// The treatment of callers with a certificate that no Department claims. Allow: they belong to the department of
    /// the Gateway.
    #[schemars(extend("default" = "Refuse"))]
    #[serde(default)]
    pub unclaimed_callers: RefuseOrAllow,
}

impl KubeObject for ClientAuthPolicySpec {
    const KIND: ObjectKind = ObjectKind::ClientAuthPolicy;
    const PART: ObjectPart = ObjectPart::Spec;
}

/// A Gateway or ListenerSet in the namespace of the policy, or one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTarget {
    /// The group of the target.
    #[schemars(extend("default" = "gateway.networking.k8s.io", "enum" = ["gateway.networking.k8s.io"]))]
    #[serde(default = "gateway_group")]
    pub group: Box<str>,
    /// The kind of the target.
    pub kind: ListenerTargetKind,
    /// The name of the target.
    #[schemars(length(min = 1, max = 253))]
    pub name: Box<str>,
    /// The name of a listener. Default: all listeners with TLS.
    #[schemars(length(min = 1, max = 253))]
    #[serde(default)]
    pub section_name: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
pub enum ListenerTargetKind {
    Gateway,
    ListenerSet,
}

impl ListenerTargetKind {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
        }
    }
}

/// Certificates of authorities as PEM, in an entry of a ConfigMap or Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityReference {
    /// The group of the object: the core group.
    #[schemars(extend("default" = "", "enum" = [""]))]
    #[serde(default)]
    pub group: Box<str>,
    /// The kind of the object.
    pub kind: BundleKind,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: Box<str>,
    /// The namespace of the object. Default: that of the policy.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default)]
    pub namespace: Option<Box<str>>,
    /// The entry of the object.
    #[schemars(length(min = 1, max = 253), extend("default" = "ca.crt"))]
    #[serde(default = "authorities_entry")]
    pub key: Box<str>,
}

/// Revocation lists as PEM, in an entry of a ConfigMap or Secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationReference {
    /// The group of the object: the core group.
    #[schemars(extend("default" = "", "enum" = [""]))]
    #[serde(default)]
    pub group: Box<str>,
    /// The kind of the object.
    pub kind: BundleKind,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: Box<str>,
    /// The namespace of the object. Default: that of the policy.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default)]
    pub namespace: Option<Box<str>>,
    /// The entry of the object.
    #[schemars(length(min = 1, max = 253), extend("default" = "ca.crl"))]
    #[serde(default = "revocation_entry")]
    pub key: Box<str>,
}

fn revocation_entry() -> Box<str> {
    "ca.crl".into()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ClientAuthChoice {
    #[default]
    Required,
    Optional,
    AllowInsecureFallback,
}

impl ClientAuthChoice {
    /// The word of a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::AllowInsecureFallback => "allowInsecureFallback",
        }
    }
}

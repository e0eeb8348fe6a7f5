//! Ingress and IngressClass.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: annotations and precedence: `translate`.

use serde::Deserialize;

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::LocalReference;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ingress {
    pub ingress_class_name: Option<Box<str>>,
    /// Where requests go that no rule matches.
    pub default_backend: Option<IngressBackend>,
    pub tls: Vec<IngressTls>,
    pub rules: Vec<IngressRule>,
}

impl KubeObject for Ingress {
    const KIND: ObjectKind = ObjectKind::Ingress;
    const PART: ObjectPart = ObjectPart::Spec;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressTls {
    pub hosts: Vec<Box<str>>,
    pub secret_name: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Exact, or `*.` and a suffix, where `*` is one label. Missing: every host.
    pub host: Option<Box<str>>,
    /// Missing: everything to the default backend.
    pub http: Option<IngressHttp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressHttp {
    pub paths: Vec<IngressPath>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressPath {
    /// Missing: `/`.
    #[serde(default)]
    pub path: Option<Box<str>>,
    #[serde(default)]
    pub path_type: IngressPathKind,
    pub backend: IngressBackend,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum IngressPathKind {
    Exact,
    Prefix,
    #[default]
    ImplementationSpecific,
    #[serde(untagged)]
    Other(Box<str>),
}

/// A Service, or another object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressBackend {
    pub service: Option<IngressService>,
    pub resource: Option<LocalReference>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct IngressService {
    pub name: Box<str>,
    #[serde(default)]
    pub port: IngressBackendPort,
}

/// A port of a Service, by name or by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressBackendPort {
    pub name: Option<Box<str>>,
    pub number: Option<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressClass {
    pub controller: Box<str>,
    pub parameters: Option<IngressClassParameters>,
}

impl KubeObject for IngressClass {
    const KIND: ObjectKind = ObjectKind::IngressClass;
    const PART: ObjectPart = ObjectPart::Spec;
}

impl IngressClass {
    /// The annotation that makes a class the one of Ingresses without a class.
    pub const DEFAULT_ANNOTATION: &'static str = "ingressclass.kubernetes.io/is-default-class";
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressClassParameters {
    #[serde(default)]
    pub api_group: Box<str>,
    pub kind: Box<str>,
    pub name: Box<str>,
    /// `Cluster` by default, or `Namespace`.
    #[serde(default)]
    pub scope: Option<Box<str>>,
    #[serde(default)]
    pub namespace: Option<Box<str>>,
}

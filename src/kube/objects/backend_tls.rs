//! BackendTLSPolicy: TLS towards the endpoints of a Service.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: conflicts between policies: `translate`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};
use super::references::{LocalReference, PolicyTarget};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTlsPolicy {
    pub target_refs: Vec<PolicyTarget>,
    pub validation: BackendTlsValidation,
    pub options: BTreeMap<Box<str>, Box<str>>,
}

impl KubeObject for BackendTlsPolicy {
    const KIND: ObjectKind = ObjectKind::BackendTlsPolicy;
    const PART: ObjectPart = ObjectPart::Spec;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTlsValidation {
    #[serde(rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<LocalReference>,
    /// `System`: the authorities of the machine.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: Option<Box<str>>,
    /// The server name to send, and to check if there are no alternative names.
    pub hostname: Box<str>,
    pub subject_alt_names: Vec<BackendAltName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BackendAltName {
    #[serde(rename = "type")]
    pub kind: BackendAltNameKind,
    #[serde(default)]
    pub hostname: Box<str>,
    #[serde(default)]
    pub uri: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub enum BackendAltNameKind {
    Hostname,
    #[serde(rename = "URI")]
    Uri,
    #[serde(untagged)]
    Other(Box<str>),
}

//! Objects of the core group: Service, Secret, ConfigMap, Namespace.
//!
//! Guarantees:
//! - The bytes of a Secret are in no debug text.
//! - A Secret or ConfigMap of more than [`DATA_BYTES_MAX`] bytes is refused.
//!
//! Leaves to others:
//! - which keys of a Secret have a meaning: `translate`.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use k8s_openapi::ByteString;
use serde::{Deserialize, Deserializer};

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectFault, ObjectPart};

/// The largest sum of the data of a Secret or ConfigMap, in bytes: the maximum of the API.
pub(crate) const DATA_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    pub spec: ServiceSpec,
    pub status: ServiceStatus,
}

impl KubeObject for Service {
    const KIND: ObjectKind = ObjectKind::Service;
    const PART: ObjectPart = ObjectPart::Whole;
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.spec.ports.iter().find(|port| port.port == number && port.is_tcp())
    }

    /// The port with this name.
    pub fn port_named(&self, name: &str) -> Option<&ServicePort> {
        self.spec.ports.iter().find(|port| &*port.name == name && port.is_tcp())
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ClusterIP` by default, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Box<str>,
    pub external_name: Box<str>,
    #[serde(rename = "externalIPs")]
    pub external_ips: Vec<Box<str>>,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// Empty if the Service has one port. Endpoints carry the same name.
    #[serde(default)]
    pub name: Box<str>,
    pub port: u16,
    /// `TCP` by default.
    #[serde(default)]
    pub protocol: Option<Box<str>>,
    #[serde(default)]
    pub app_protocol: Option<Box<str>>,
    /// A number or the name of a port of the pods.
    #[serde(default)]
    pub target_port: Option<serde_json::Value>,
    #[serde(default)]
    pub node_port: Option<u16>,
}

impl ServicePort {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    pub load_balancer: LoadBalancerAddresses,
}

/// The addresses that a load balancer gave to a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancerAddresses {
    pub ingress: Vec<IngressAddress>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressAddress {
    pub ip: Option<Box<str>>,
    pub hostname: Option<Box<str>>,
}

#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Secret {
    #[serde(rename = "type")]
    pub kind: Box<str>,
    /// The values, decoded from base64.
    #[serde(deserialize_with = "decoded")]
    pub data: BTreeMap<Box<str>, Bytes>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("Secret").field("kind", &self.kind).field("keys", &keys).finish_non_exhaustive()
    }
}

impl KubeObject for Secret {
    const KIND: ObjectKind = ObjectKind::Secret;
    const PART: ObjectPart = ObjectPart::Whole;

    fn finish(&mut self) -> Result<(), ObjectFault> {
        bounded(self.data.values().map(Bytes::len).sum())
    }
}

fn decoded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Box<str>, Bytes>, D::Error> {
    let data = BTreeMap::<Box<str>, ByteString>::deserialize(deserializer)?;
    Ok(data.into_iter().map(|(key, value)| (key, Bytes::from(value.0))).collect())
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    pub data: BTreeMap<Box<str>, Box<str>>,
}

impl KubeObject for ConfigMap {
    const KIND: ObjectKind = ObjectKind::ConfigMap;
    const PART: ObjectPart = ObjectPart::Whole;

    fn finish(&mut self) -> Result<(), ObjectFault> {
        bounded(self.data.values().map(|text| text.len()).sum())
    }
}

fn bounded(bytes: usize) -> Result<(), ObjectFault> {
    if bytes <= DATA_BYTES_MAX {
        return Ok(());
    }
    let why = format!("{bytes} bytes, expected at most {DATA_BYTES_MAX}; split it into several objects");
    Err(ObjectFault { path: "data".to_owned(), why })
}

/// A namespace. Its labels are in its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct KubeNamespace {}

impl KubeObject for KubeNamespace {
    const KIND: ObjectKind = ObjectKind::Namespace;
    const PART: ObjectPart = ObjectPart::Whole;
}

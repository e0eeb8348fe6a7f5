//! GatewayClass, Gateway and ListenerSet.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: what a listener is: `translate`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::kind::ObjectKind;
use super::label_selector::LabelSelector;
use super::parse::{KubeObject, ObjectPart};
use super::references::{LocalReference, ObjectReference, ParentReference, SecretReference, gateway_group};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayClass {
    pub controller_name: Box<str>,
    pub parameters_ref: Option<ObjectReference>,
}

impl KubeObject for GatewayClass {
    const KIND: ObjectKind = ObjectKind::GatewayClass;
    const PART: ObjectPart = ObjectPart::Spec;
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    pub gateway_class_name: Box<str>,
    pub listeners: Vec<GatewayListener>,
    pub addresses: Vec<GatewayAddress>,
    pub infrastructure: GatewayInfrastructure,
    /// Which ListenerSets may add listeners; none by default.
    pub allowed_listeners: AllowedListeners,
    pub tls: GatewayTls,
}

impl KubeObject for Gateway {
    const KIND: ObjectKind = ObjectKind::Gateway;
    const PART: ObjectPart = ObjectPart::Spec;
}

/// A ListenerSet of the Gateway API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayListenerSet {
    pub parent_ref: Option<ParentReference>,
    pub listeners: Vec<GatewayListener>,
}

impl KubeObject for GatewayListenerSet {
    const KIND: ObjectKind = ObjectKind::ListenerSet;
    const PART: ObjectPart = ObjectPart::Spec;
}

/// A listener of a Gateway or of a ListenerSet.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayListener {
    pub name: Box<str>,
    /// Exact, or `*.` and a suffix. Missing: every host.
    #[serde(default)]
    pub hostname: Option<Box<str>>,
    pub port: u16,
    pub protocol: ListenerProtocol,
    #[serde(default)]
    pub tls: Option<ListenerTlsSpec>,
    #[serde(default)]
    pub allowed_routes: AllowedRoutes,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum ListenerProtocol {
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
    #[serde(rename = "TLS")]
    Tls,
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(untagged)]
    Other(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListenerTlsSpec {
    pub mode: TlsMode,
    pub certificate_refs: Vec<SecretReference>,
    pub options: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum TlsMode {
    #[default]
    Terminate,
    Passthrough,
    #[serde(untagged)]
    Other(Box<str>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedRoutes {
    /// Default: the namespace of the listener.
    pub namespaces: NamespaceChoice,
    /// Empty: all kinds of the protocol.
    pub kinds: Vec<RouteKind>,
}

/// Namespaces of routes. The default is `Same`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NamespaceChoice {
    pub from: NamespacesFrom,
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum NamespacesFrom {
    All,
    Selector,
    #[default]
    Same,
    None,
    #[serde(untagged)]
    Other(Box<str>),
}

/// A kind of route. It is written to the status in this form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub struct RouteKind {
    #[serde(default = "gateway_group")]
    pub group: Box<str>,
    pub kind: Box<str>,
}

/// Which ListenerSets may add listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AllowedListeners {
    pub namespaces: ListenerNamespaces,
}

/// Namespaces of ListenerSets: as [`NamespaceChoice`], but a missing `from` is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListenerNamespaces {
    #[serde(default = "from_none")]
    pub from: NamespacesFrom,
    #[serde(default)]
    pub selector: Option<LabelSelector>,
}

impl Default for ListenerNamespaces {
    fn default() -> Self {
        Self { from: NamespacesFrom::None, selector: None }
    }
}

fn from_none() -> NamespacesFrom {
    NamespacesFrom::None
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct GatewayAddress {
    /// `IPAddress` by default, `Hostname`, or a name with a domain.
    #[serde(rename = "type", default = "ip_address")]
    pub kind: Box<str>,
    /// Empty: any address of this kind.
    #[serde(default)]
    pub value: Box<str>,
}

fn ip_address() -> Box<str> {
    "IPAddress".into()
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayInfrastructure {
    pub labels: BTreeMap<Box<str>, Box<str>>,
    pub annotations: BTreeMap<Box<str>, Box<str>>,
    pub parameters_ref: Option<LocalReference>,
}

/// TLS of the whole Gateway (GEP-91 and GEP-3155, in Standard since Gateway API 1.5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GatewayTls {
    pub frontend: Option<FrontendTls>,
    pub backend: BackendTls,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTls {
    /// The certificate that the Gateway shows to backends.
    pub client_certificate_ref: Option<SecretReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FrontendTls {
    pub default: FrontendTlsConfig,
    /// Replaces the default for a port.
    pub per_port: Vec<PortTlsConfig>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FrontendTlsConfig {
    pub validation: Option<FrontendValidation>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PortTlsConfig {
    pub port: u16,
    #[serde(default)]
    pub tls: FrontendTlsConfig,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FrontendValidation {
    #[serde(rename = "caCertificateRefs")]
    pub ca_certificate_refs: Vec<ObjectReference>,
    pub mode: FrontendValidationMode,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum FrontendValidationMode {
    #[default]
    AllowValidOnly,
    AllowInsecureFallback,
    #[serde(untagged)]
    Other(Box<str>),
}

//! The kinds of objects, their place in the API, and the key of an object.
//!
//! Guarantees:
//! - A kind that is added here is missing nowhere: the matches over [`ObjectKind`] have no wildcard.
//!
//! Leaves to others:
//! - which of the versions a cluster serves: `watch`.

use std::fmt;
use std::sync::Arc;

/// A kind of object that the controller watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// Which controller is responsible for a Gateway.
    GatewayClass,
    /// Listeners with their addresses.
    Gateway,
    /// More listeners for a Gateway.
    ListenerSet,
    /// Rules for HTTP requests.
    HttpRoute,
    /// Rules for gRPC calls.
    GrpcRoute,
    /// Rules for TLS connections by server name.
    TlsRoute,
    /// Permission for references from other namespaces.
    ReferenceGrant,
    /// TLS towards the endpoints of a Service.
    BackendTlsPolicy,
    /// Rules for HTTP requests, the older API.
    Ingress,
    /// Which controller is responsible for an Ingress.
    IngressClass,
    /// Ports of a set of pods.
    Service,
    /// A part of the endpoints of a Service.
    EndpointSlice,
    /// Certificates and keys.
    Secret,
    /// Certificate authorities and revocation lists.
    ConfigMap,
    /// A namespace with its labels.
    Namespace,
    /// A unit of billing and of limits, with the certificates of its callers.
    Department,
    /// Names for the requests of a rule.
    CommandSet,
    /// Which departments may call which commands of a route.
    Grant,
    /// The authorities and revocation lists of the callers of listeners.
    ClientAuthPolicy,
}

/// The group and the names of a kind in the API, with the versions that the types of `objects` can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersions {
    /// The group; empty for the core group.
    pub group: &'static str,
    /// The kind as objects carry it: `HTTPRoute`.
    pub kind: &'static str,
    /// The name in paths and in RBAC rules: `httproutes`.
    pub plural: &'static str,
    /// Versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// Whether objects lie in a namespace.
    pub namespaced: bool,
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// The group of our own kinds.
pub const OWN_GROUP: &str = "tallygate.io";

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 19] = [
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::ReferenceGrant,
        Self::BackendTlsPolicy,
        Self::Ingress,
        Self::IngressClass,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
        Self::Namespace,
        Self::Department,
        Self::CommandSet,
        Self::Grant,
        Self::ClientAuthPolicy,
    ];

    /// The place of the kind in the API.
    pub fn api(self) -> ApiVersions {
        match self {
            Self::GatewayClass => cluster_wide(GATEWAY_API, "GatewayClass", "gatewayclasses", &["v1", "v1beta1"]),
            Self::Gateway => namespaced(GATEWAY_API, "Gateway", "gateways", &["v1", "v1beta1"]),
            Self::ListenerSet => namespaced(GATEWAY_API, "ListenerSet", "listenersets", &["v1"]),
            Self::HttpRoute => namespaced(GATEWAY_API, "HTTPRoute", "httproutes", &["v1", "v1beta1"]),
            Self::GrpcRoute => namespaced(GATEWAY_API, "GRPCRoute", "grpcroutes", &["v1"]),
            Self::TlsRoute => namespaced(GATEWAY_API, "TLSRoute", "tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
            Self::ReferenceGrant => namespaced(GATEWAY_API, "ReferenceGrant", "referencegrants", &["v1", "v1beta1"]),
            Self::BackendTlsPolicy => {
                namespaced(GATEWAY_API, "BackendTLSPolicy", "backendtlspolicies", &["v1", "v1alpha3"])
            }
            Self::Ingress => namespaced("networking.k8s.io", "Ingress", "ingresses", &["v1"]),
            Self::IngressClass => cluster_wide("networking.k8s.io", "IngressClass", "ingressclasses", &["v1"]),
            Self::Service => namespaced("", "Service", "services", &["v1"]),
            Self::EndpointSlice => namespaced("discovery.k8s.io", "EndpointSlice", "endpointslices", &["v1"]),
            Self::Secret => namespaced("", "Secret", "secrets", &["v1"]),
            Self::ConfigMap => namespaced("", "ConfigMap", "configmaps", &["v1"]),
            Self::Namespace => cluster_wide("", "Namespace", "namespaces", &["v1"]),
            Self::Department => cluster_wide(OWN_GROUP, "Department", "departments", &["v1alpha1"]),
            Self::CommandSet => namespaced(OWN_GROUP, "CommandSet", "commandsets", &["v1alpha1"]),
            Self::Grant => namespaced(OWN_GROUP, "Grant", "grants", &["v1alpha1"]),
            Self::ClientAuthPolicy => namespaced(OWN_GROUP, "ClientAuthPolicy", "clientauthpolicies", &["v1alpha1"]),
        }
    }

    /// Whether the controller writes the status of this kind, and therefore keeps the status that was shown.
    pub fn has_status(self) -> bool {
        match self {
            Self::GatewayClass
            | Self::Gateway
            | Self::ListenerSet
            | Self::HttpRoute
            | Self::GrpcRoute
            | Self::TlsRoute
            | Self::BackendTlsPolicy
            | Self::Ingress
            | Self::Department
            | Self::CommandSet
            | Self::Grant
            | Self::ClientAuthPolicy => true,
            Self::ReferenceGrant
            | Self::IngressClass
            | Self::Service
            | Self::EndpointSlice
            | Self::Secret
            | Self::ConfigMap
            | Self::Namespace => false,
        }
    }

    /// Whether a meaning of annotations of this kind is known. Other kinds lose theirs, so that a changed annotation
    /// (a lock in a ConfigMap, renewed every two seconds) is no change.
    pub(crate) fn keeps_annotations(self) -> bool {
        !matches!(self, Self::EndpointSlice | Self::Secret | Self::ConfigMap | Self::Namespace)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.api().kind)
    }
}

const fn namespaced(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> ApiVersions {
    ApiVersions { group, kind, plural, versions, namespaced: true }
}

const fn cluster_wide(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> ApiVersions {
    ApiVersions { group, kind, plural, versions, namespaced: false }
}

/// The namespace and the name of an object. The namespace of a cluster-wide object is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace; empty for a cluster-wide object.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// Makes the key of a namespaced object.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Makes the key of a cluster-wide object.
    pub fn cluster_wide(name: &str) -> Self {
        Self::new("", name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

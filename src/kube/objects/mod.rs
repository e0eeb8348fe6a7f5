//! The Kubernetes objects that a translation reads: types of our own, with only the fields that have a meaning here.
//!
//! Guarantees:
//! - Unknown fields are ignored, missing ones have the default of the API, and `null` is a missing field. So the types
//!   read Gateway API 1.4 to 1.7.
//! - A word that is not known (a protocol, a kind of match) is kept as `Other`: the translation refuses it with the
//!   condition `UnsupportedValue` instead of a parse error.
//! - An error names the path of the field.
//!
//! Leaves to others:
//! - keeping objects: `index`;
//! - references between objects, and what a field means: `translate`.

// The fields carry the names and the meanings of the Kubernetes API reference.
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod backend_tls;
#[allow(missing_docs, reason = "variants with comments would not be an enumeration in the schema")]
mod client_auth_policy;
#[allow(missing_docs, reason = "variants with comments would not be an enumeration in the schema")]
mod command_set;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod core;
#[allow(missing_docs, reason = "variants with comments would not be an enumeration in the schema")]
mod department;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod endpoint_slice;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod gateway;
#[allow(missing_docs, reason = "variants with comments would not be an enumeration in the schema")]
mod grant;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod grpc_route;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod http_route;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod ingress;
mod kind;
mod label_selector;
mod metadata;
mod parse;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod reference_grant;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod references;
#[allow(missing_docs, reason = "documented by the Kubernetes API reference under the same names")]
mod tls_route;

pub use self::backend_tls::{BackendAltName, BackendAltNameKind, BackendTlsPolicy, BackendTlsValidation};
pub use self::client_auth_policy::{
    AuthorityReference, ClientAuthChoice, ClientAuthPolicySpec, ListenerTarget, ListenerTargetKind, RevocationReference,
};
pub use self::command_set::{BodySpec, CommandMatchSpec, CommandSetSpec, CommandSpec, FieldMatchSpec};
pub use self::core::{
    ConfigMap, IngressAddress, KubeNamespace, LoadBalancerAddresses, Secret, Service, ServicePort, ServiceSpec,
    ServiceStatus,
};
pub use self::department::{
    AuthorityBundle, BundleKind, CallerIdentity, DepartmentSpec, LimitsSpec, QuotaPeriod, QuotaSpec, RefuseOrAllow,
    SubjectIdentity,
};
pub use self::endpoint_slice::{
    EndpointConditions, EndpointHints, EndpointSlice, SliceAddressKind, SliceEndpoint, SlicePort, ZoneHint,
};
pub use self::gateway::{
    AllowedListeners, AllowedRoutes, BackendTls, FrontendTls, FrontendTlsConfig, FrontendValidation,
    FrontendValidationMode, Gateway, GatewayAddress, GatewayClass, GatewayInfrastructure, GatewayListener,
    GatewayListenerSet, GatewayTls, ListenerNamespaces, ListenerProtocol, ListenerTlsSpec, NamespaceChoice,
    NamespacesFrom, PortTlsConfig, RouteKind, TlsMode,
};
pub use self::grant::{GrantSpec, RouteTarget, RouteTargetKind};
pub use self::grpc_route::{GrpcBackend, GrpcFilter, GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRule};
pub use self::http_route::{
    CorsFilter, HeaderFilter, HeaderValue, HttpBackend, HttpFilter, HttpFilterKind, HttpPathMatch, HttpRoute,
    HttpRouteMatch, HttpRule, MirrorFilter, MirrorShare, PathMatchKind, PathModifier, PathModifierKind, RedirectFilter,
    RewriteFilter, RouteDuration, RouteRetry, RouteTimeouts, ValueMatch, ValueMatchKind,
};
pub use self::ingress::{
    Ingress, IngressBackend, IngressBackendPort, IngressClass, IngressClassParameters, IngressHttp, IngressPath,
    IngressPathKind, IngressRule, IngressService, IngressTls,
};
pub use self::kind::{ApiVersions, OWN_GROUP, ObjectKey, ObjectKind};
pub use self::label_selector::{LabelExpression, LabelSelector};
pub use self::metadata::Metadata;
pub use self::parse::{KubeObject, ObjectFault, ObjectPart};
pub(crate) use self::parse::{parse_object, without_nulls};
pub use self::reference_grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use self::references::{
    BackendReference, CONTROLLER_NAME, GATEWAY_GROUP, LocalReference, ObjectReference, ParentReference, PolicyTarget,
    SecretReference,
};
pub use self::tls_route::{TlsRoute, TlsRule};

#[cfg(test)]
mod tests;

//! The index: facts about all objects of the cluster, as the watches last showed them.
//!
//! Guarantees:
//! - Pure: no clock, no network, no type of a Kubernetes client. Objects come in as JSON.
//! - A malformed object is kept with its metadata and the place of its fault; it changes no other object.
//! - Objects that a relist did not show are gone when it ends, and not before.
//! - A change says what it touches: facts, only endpoints, or only what the server shows of a status.
//! - Endpoints may change beside the facts: their events need not pass through [`Index::take`] ([`SharedEndpoints`]).
//! - Bounded: at most [`OBJECTS_MAX`] objects of a kind. Further ones are left out and counted.
//!
//! Leaves to others:
//! - meaning: `translate`;
//! - events: `watch`.

mod change;
mod change_log;
mod endpoints;
mod event;
mod fact;
mod fact_store;
mod kind_state;
mod route_fact;
mod shared_endpoints;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::objects::{
    BackendTlsPolicy, ClientAuthPolicySpec, CommandSetSpec, ConfigMap, DepartmentSpec, Gateway, GatewayClass,
    GatewayListenerSet, GrantSpec, GrpcRoute, HttpRoute, Ingress, IngressClass, KubeNamespace, KubeObject, ObjectKey,
    ObjectKind, ReferenceGrant, Secret, Service, TlsRoute,
};

pub use self::change::Change;
pub use self::endpoints::{EndpointIndex, EndpointState, KnownEndpoint};
pub use self::event::IndexEvent;
pub use self::fact::{Fact, ShownStatus};
pub use self::fact_store::FactStore;
pub use self::kind_state::OBJECTS_MAX;
pub use self::route_fact::RouteFact;
pub use self::shared_endpoints::SharedEndpoints;

/// Facts about all objects. A clone shares the facts, and follows the endpoints.
#[derive(Clone, Debug, Default)]
pub struct Index {
    gateway_classes: FactStore<GatewayClass>,
    gateways: FactStore<Gateway>,
    listener_sets: FactStore<GatewayListenerSet>,
    http_routes: FactStore<HttpRoute>,
    grpc_routes: FactStore<GrpcRoute>,
    tls_routes: FactStore<TlsRoute>,
    reference_grants: FactStore<ReferenceGrant>,
    backend_tls_policies: FactStore<BackendTlsPolicy>,
    ingresses: FactStore<Ingress>,
    ingress_classes: FactStore<IngressClass>,
    services: FactStore<Service>,
    endpoints: SharedEndpoints,
    secrets: FactStore<Secret>,
    config_maps: FactStore<ConfigMap>,
    namespaces: FactStore<KubeNamespace>,
    departments: FactStore<DepartmentSpec>,
    command_sets: FactStore<CommandSetSpec>,
    grants: FactStore<GrantSpec>,
    client_auth_policies: FactStore<ClientAuthPolicySpec>,
    /// The namespaces whose Secrets are watched; empty for all.
    secret_namespaces: BTreeSet<String>,
}

/// What the index does with a kind, whatever its type.
trait FactKeeper {
    fn apply(&mut self, object: Value) -> Change;
    fn delete(&mut self, key: &ObjectKey) -> Change;
    fn begin_relist(&mut self);
    fn end_relist(&mut self) -> Change;
    fn is_synced(&self) -> bool;
    fn len(&self) -> usize;
    fn left_out(&self) -> u64;
}

impl Index {
    /// An index that is shown Secrets of these namespaces only; of all if there is none.
    pub fn with_secrets_in(namespaces: &BTreeSet<String>) -> Self {
        Self { secret_namespaces: namespaces.clone(), ..Self::default() }
    }

    /// Whether Secrets of this namespace would be known.
    pub fn knows_secrets_of(&self, namespace: &str) -> bool {
        self.secret_namespaces.is_empty() || self.secret_namespaces.contains(namespace)
    }

    /// Takes an event of a watch.
    pub fn take(&mut self, event: IndexEvent) -> Change {
        match event {
            IndexEvent::Begin(kind) => {
                self.begin_relist(kind);
                Change::default()
            }
            IndexEvent::Apply(kind, object) => self.apply(kind, object),
            IndexEvent::Delete(kind, key) => self.delete(kind, &key),
            IndexEvent::End(kind) => self.end_relist(kind),
        }
    }

    /// Takes an object that was created or changed, or that a relist shows.
    pub fn apply(&mut self, kind: ObjectKind, object: Value) -> Change {
        self.keeper_mut(kind).apply(object)
    }

    /// Takes the deletion of an object.
    pub fn delete(&mut self, kind: ObjectKind, key: &ObjectKey) -> Change {
        self.keeper_mut(kind).delete(key)
    }

    /// Begins a relist: objects that are not applied until its end are removed at its end.
    pub fn begin_relist(&mut self, kind: ObjectKind) {
        self.keeper_mut(kind).begin_relist();
    }

    /// Ends a relist. Does nothing without a begin.
    pub fn end_relist(&mut self, kind: ObjectKind) -> Change {
        self.keeper_mut(kind).end_relist()
    }

    /// Whether a relist of this kind has ended.
    pub fn is_synced(&self, kind: ObjectKind) -> bool {
        self.keeper(kind).is_synced()
    }

    /// The number of objects of this kind, for EndpointSlices the number of slices.
    pub fn count(&self, kind: ObjectKind) -> usize {
        self.keeper(kind).len()
    }

    /// The number of events with objects that were left out: above [`OBJECTS_MAX`], or without a name.
    pub fn left_out(&self, kind: ObjectKind) -> u64 {
        self.keeper(kind).left_out()
    }

    /// GatewayClasses.
    pub fn gateway_classes(&self) -> &FactStore<GatewayClass> {
        &self.gateway_classes
    }

    /// Gateways.
    pub fn gateways(&self) -> &FactStore<Gateway> {
        &self.gateways
    }

    /// ListenerSets.
    pub fn listener_sets(&self) -> &FactStore<GatewayListenerSet> {
        &self.listener_sets
    }

    /// HTTPRoutes.
    pub fn http_routes(&self) -> &FactStore<HttpRoute> {
        &self.http_routes
    }

    /// GRPCRoutes.
    pub fn grpc_routes(&self) -> &FactStore<GrpcRoute> {
        &self.grpc_routes
    }

    /// TLSRoutes.
    pub fn tls_routes(&self) -> &FactStore<TlsRoute> {
        &self.tls_routes
    }

    /// A route of any kind; `None` if it is missing, or if the kind is none of routes.
    pub fn route(&self, kind: ObjectKind, key: &ObjectKey) -> Option<RouteFact> {
        match kind {
            ObjectKind::HttpRoute => self.http_routes.get_shared(key).map(|fact| RouteFact::Http(Arc::clone(fact))),
            ObjectKind::GrpcRoute => self.grpc_routes.get_shared(key).map(|fact| RouteFact::Grpc(Arc::clone(fact))),
            ObjectKind::TlsRoute => self.tls_routes.get_shared(key).map(|fact| RouteFact::Tls(Arc::clone(fact))),
            _ => None,
        }
    }

    /// ReferenceGrants.
    pub fn reference_grants(&self) -> &FactStore<ReferenceGrant> {
        &self.reference_grants
    }

    /// BackendTLSPolicies.
    pub fn backend_tls_policies(&self) -> &FactStore<BackendTlsPolicy> {
        &self.backend_tls_policies
    }

    /// Ingresses.
    pub fn ingresses(&self) -> &FactStore<Ingress> {
        &self.ingresses
    }

    /// IngressClasses.
    pub fn ingress_classes(&self) -> &FactStore<IngressClass> {
        &self.ingress_classes
    }

    /// Services.
    pub fn services(&self) -> &FactStore<Service> {
        &self.services
    }

    /// Endpoints of Services.
    pub fn endpoints(&self) -> &SharedEndpoints {
        &self.endpoints
    }

    /// Secrets.
    pub fn secrets(&self) -> &FactStore<Secret> {
        &self.secrets
    }

    /// ConfigMaps.
    pub fn config_maps(&self) -> &FactStore<ConfigMap> {
        &self.config_maps
    }

    /// Namespaces.
    pub fn namespaces(&self) -> &FactStore<KubeNamespace> {
        &self.namespaces
    }

    /// Departments.
    pub fn departments(&self) -> &FactStore<DepartmentSpec> {
        &self.departments
    }

    /// CommandSets.
    pub fn command_sets(&self) -> &FactStore<CommandSetSpec> {
        &self.command_sets
    }

    /// Grants.
    pub fn grants(&self) -> &FactStore<GrantSpec> {
        &self.grants
    }

    /// ClientAuthPolicies.
    pub fn client_auth_policies(&self) -> &FactStore<ClientAuthPolicySpec> {
        &self.client_auth_policies
    }

    /// The addresses that serve a port of a Service: see [`EndpointIndex::addresses`]. Empty if the Service or the
    /// port is missing.
    pub fn endpoints_of(&self, namespace: &str, service: &str, port: u16) -> Vec<SocketAddr> {
        let key = ObjectKey::new(namespace, service);
        let port = self.services.valid(&key).and_then(|service| service.port(port));
        port.map(|port| self.endpoints.lock().addresses(&key, &port.name)).unwrap_or_default()
    }

    fn keeper(&self, kind: ObjectKind) -> &dyn FactKeeper {
        match kind {
            ObjectKind::GatewayClass => &self.gateway_classes,
            ObjectKind::Gateway => &self.gateways,
            ObjectKind::ListenerSet => &self.listener_sets,
            ObjectKind::HttpRoute => &self.http_routes,
            ObjectKind::GrpcRoute => &self.grpc_routes,
            ObjectKind::TlsRoute => &self.tls_routes,
            ObjectKind::ReferenceGrant => &self.reference_grants,
            ObjectKind::BackendTlsPolicy => &self.backend_tls_policies,
            ObjectKind::Ingress => &self.ingresses,
            ObjectKind::IngressClass => &self.ingress_classes,
            ObjectKind::Service => &self.services,
            ObjectKind::EndpointSlice => &self.endpoints,
            ObjectKind::Secret => &self.secrets,
            ObjectKind::ConfigMap => &self.config_maps,
            ObjectKind::Namespace => &self.namespaces,
            ObjectKind::Department => &self.departments,
            ObjectKind::CommandSet => &self.command_sets,
            ObjectKind::Grant => &self.grants,
            ObjectKind::ClientAuthPolicy => &self.client_auth_policies,
        }
    }

    fn keeper_mut(&mut self, kind: ObjectKind) -> &mut dyn FactKeeper {
        match kind {
            ObjectKind::GatewayClass => &mut self.gateway_classes,
            ObjectKind::Gateway => &mut self.gateways,
            ObjectKind::ListenerSet => &mut self.listener_sets,
            ObjectKind::HttpRoute => &mut self.http_routes,
            ObjectKind::GrpcRoute => &mut self.grpc_routes,
            ObjectKind::TlsRoute => &mut self.tls_routes,
            ObjectKind::ReferenceGrant => &mut self.reference_grants,
            ObjectKind::BackendTlsPolicy => &mut self.backend_tls_policies,
            ObjectKind::Ingress => &mut self.ingresses,
            ObjectKind::IngressClass => &mut self.ingress_classes,
            ObjectKind::Service => &mut self.services,
            ObjectKind::EndpointSlice => &mut self.endpoints,
            ObjectKind::Secret => &mut self.secrets,
            ObjectKind::ConfigMap => &mut self.config_maps,
            ObjectKind::Namespace => &mut self.namespaces,
            ObjectKind::Department => &mut self.departments,
            ObjectKind::CommandSet => &mut self.command_sets,
            ObjectKind::Grant => &mut self.grants,
            ObjectKind::ClientAuthPolicy => &mut self.client_auth_policies,
        }
    }
}

impl<T: KubeObject> FactKeeper for FactStore<T> {
    fn apply(&mut self, object: Value) -> Change {
        Self::apply(self, object)
    }

    fn delete(&mut self, key: &ObjectKey) -> Change {
        Self::delete(self, key)
    }

    fn begin_relist(&mut self) {
        Self::begin_relist(self);
    }

    fn end_relist(&mut self) -> Change {
        Self::end_relist(self)
    }

    fn is_synced(&self) -> bool {
        Self::is_synced(self)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn left_out(&self) -> u64 {
        Self::left_out(self)
    }
}

impl FactKeeper for SharedEndpoints {
    fn apply(&mut self, object: Value) -> Change {
        self.lock().apply(object)
    }

    fn delete(&mut self, key: &ObjectKey) -> Change {
        self.lock().delete(key)
    }

    fn begin_relist(&mut self) {
        self.lock().begin_relist();
    }

    fn end_relist(&mut self) -> Change {
        self.lock().end_relist()
    }

    fn is_synced(&self) -> bool {
        Self::is_synced(self)
    }

    fn len(&self) -> usize {
        self.lock().slice_count()
    }

    fn left_out(&self) -> u64 {
        self.lock().left_out()
    }
}

#[cfg(test)]
mod tests;

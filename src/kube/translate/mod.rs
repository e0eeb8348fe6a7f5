//! Translation: from facts about the cluster to a configuration, and to the conditions that the status should show.
//!
//! Guarantees:
//! - Pure: the same facts give the same translation. No clock, no network. What a [`Translator`] keeps of its last
//!   translation saves time only.
//! - The configuration is made of the same documents that a file has, one for each object, and each fails alone.
//! - Every object of this controller has conditions.
//!
//! Leaves to others:
//! - applying the configuration, and what follows from its problems: `controller`;
//! - the form of a status: `status`.

mod backend_tls;
mod backends;
mod certificates;
mod client_auth_policies;
mod closed_routes;
mod command_sets;
mod condition;
mod departments;
mod gateways;
mod grants;
mod hostnames;
mod http_filters;
mod ingresses;
mod named_document;
mod names;
pub mod nginx;
mod references;
mod routes;
mod services;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

pub use self::backend_tls::PolicyOutcome;
pub use self::certificates::{AuthorityDigests, MemoryTextMap, TextCheck};
pub use self::client_auth_policies::ClientAuthOutcome;
pub use self::command_sets::CommandSetOutcome;
pub use self::condition::{ACCEPTED, CONFLICTED, Condition, PROGRAMMED, RESOLVED_REFS};
pub use self::departments::DepartmentOutcome;
pub use self::grants::GrantOutcome;
pub use self::ingresses::{IngressOutcome, IngressSubsystem};
pub use self::named_document::{DocumentList, NamedDocument};
pub use self::nginx::AnnotationCounts;
pub use self::routes::{OutcomeList, RouteOutcome};
pub use self::services::{ServicePlan, ServiceSettings, TARGET_PORTS, depends_on_endpoints};

use self::backend_tls::TlsPolicies;
use self::backends::{BackendMap, BackendSet};
use self::certificates::TextCollector;
use self::client_auth_policies::ClientAuthPolicies;
use self::closed_routes::ClosedRoutes;
use self::command_sets::CommandSets;
use self::departments::DepartmentSet;
use self::gateways::{GatewayListenerPlan, GatewayPlan, plan_gateways};
use self::grants::{GrantSubjects, translate_grants};
use self::ingresses::{IngressTranslation, ingress_addresses, translate_ingresses};
use self::named_document::DocumentPool;
use self::routes::{CommonRouteInputs, RouteMemo, RouteTranslation};
use self::services::plan_services;
use super::CONTROLLER_NAME;
use super::index::Index;
use super::objects::{IngressAddress, ObjectKey, ObjectKind, RouteKind};

/// The translation of all objects.
#[derive(Debug, Default, PartialEq)]
pub struct Translation {
    /// The documents of the configuration, in the order in which earlier ones win.
    pub documents: DocumentList,
    /// The certificates, keys and authorities that the documents name.
    pub texts: MemoryTextMap,
    /// The Services whose endpoints the documents name.
    pub backend_services: BTreeSet<ObjectKey>,
    /// The GatewayClasses of this controller, with their generations.
    pub classes: Vec<(ObjectKey, i64)>,
    /// The Gateways of this controller.
    pub gateways: Vec<GatewayOutcome>,
    /// The routes with a parent of this controller.
    pub routes: OutcomeList,
    /// The other routes: their statuses have no entries of this controller.
    pub other_routes: Vec<(ObjectKind, ObjectKey)>,
    /// The BackendTLSPolicies.
    pub policies: Vec<PolicyOutcome>,
    /// The Departments.
    pub departments: Vec<DepartmentOutcome>,
    /// The CommandSets.
    pub command_sets: Vec<CommandSetOutcome>,
    /// The Grants.
    pub grants: Vec<GrantOutcome>,
    /// The ClientAuthPolicies.
    pub client_auth_policies: Vec<ClientAuthOutcome>,
    /// The Ingresses of this controller.
    pub ingresses: Vec<IngressOutcome>,
    /// The addresses at which callers reach Ingresses.
    pub ingress_addresses: Vec<IngressAddress>,
    /// The Services of the Gateways.
    pub services: Vec<ServicePlan>,
    /// The Services of Gateways that are gone.
    pub abandoned_services: Vec<ObjectKey>,
}

/// A Gateway with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayOutcome {
    /// The Gateway.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// The name of its document, if it has one.
    pub document: Option<String>,
    /// The addresses that its specification asks for.
    pub requested_addresses: Vec<String>,
    /// Its conditions, beside `Programmed`.
    pub conditions: Vec<Condition>,
    /// Its own listeners.
    pub listeners: Vec<ListenerOutcome>,
    /// The ListenerSets that name it.
    pub listener_sets: Vec<ListenerSetOutcome>,
}

/// A ListenerSet with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerSetOutcome {
    /// The ListenerSet.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// Whether its Gateway allows it.
    pub is_allowed: bool,
    /// Its listeners; empty if it is not allowed.
    pub listeners: Vec<ListenerOutcome>,
}

/// A listener of a Gateway with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerOutcome {
    /// Its name.
    pub name: String,
    /// The listener of the configuration; `None` if the configuration has none for it.
    pub configured: Option<String>,
    /// The kinds of routes that it takes.
    pub supported_kinds: Vec<RouteKind>,
    /// The number of routes that are attached to it.
    pub attached_routes: usize,
    /// Whether it is valid: it should be served.
    pub is_served: bool,
    /// Its conditions, beside `Programmed`.
    pub conditions: Vec<Condition>,
}

/// Translates all objects. `check` checks certificates and keys as the loader of the configuration does.
pub fn translate(index: &Index, settings: &ServiceSettings, check: &dyn TextCheck) -> Translation {
    Translator::new(settings.clone()).translate(index, check)
}

/// Translates again and again. Takes time in proportion to what has changed, and little for each route.
#[derive(Debug)]
pub struct Translator {
    settings: ServiceSettings,
    documents: DocumentPool,
    routes: RouteMemo,
    backends: BackendMap,
}

impl Translator {
    /// A translator that has translated nothing yet.
    pub fn new(settings: ServiceSettings) -> Self {
        let (documents, routes) = (DocumentPool::default(), RouteMemo::default());
        Self { settings, documents, routes, backends: BackendMap::new() }
    }

    /// The settings of all translations.
    pub fn settings(&self) -> &ServiceSettings {
        &self.settings
    }

    /// Translates all objects. The result is that of [`translate`].
    pub fn translate(&mut self, index: &Index, check: &dyn TextCheck) -> Translation {
        self.documents.begin();
        let mut texts = TextCollector::new(check);
        let mut auth_policies = ClientAuthPolicies::read(index, &mut texts);
        let mut gateways = plan_gateways(index, &mut auth_policies, &mut texts);
        let (services, abandoned_services) = plan_services(index, &mut gateways, &self.settings);
        let gateway_documents = gateways.iter().filter_map(|plan| {
            let document = gateways::document(plan)?;
            Some((gateway_document_name(plan.key), self.with_proxy_protocol(document)))
        });
        let gateway_documents: Vec<(String, Value)> = gateway_documents.collect();
        let gateway_documents = self.pooled(gateway_documents);
        let (command_sets, closed) = (CommandSets::read(index, check), ClosedRoutes::read(index));
        let policies = TlsPolicies::read(index, &mut texts);
        let mut routes = RouteTranslation {
            index,
            gateways: &mut gateways,
            backends: BackendSet::new(policies, std::mem::take(&mut self.backends)),
            documents: DocumentList::default(),
            outcomes: OutcomeList::default(),
            others: Vec::new(),
            command_sets: &command_sets,
            closed: &closed,
        };
        routes.take_all(&mut self.routes, CommonRouteInputs::new(index, &gateway_documents));
        let RouteTranslation { mut backends, documents: route_documents, outcomes, others, .. } = routes;
        let IngressTranslation { documents: ingress_documents, outcomes: ingresses } =
            translate_ingresses(index, &mut texts, (&mut backends, &closed));
        let of_ingresses = backends.take_uses();
        backends.add_uses(&of_ingresses);
        let ingress_documents = ingress_documents.into_iter();
        let ingress_documents = ingress_documents.map(|(name, document)| (name, self.with_proxy_protocol(document)));
        let ingress_documents: Vec<(String, Value)> = ingress_documents.collect();
        // The listeners are known, and so are all realms. Departments come first: nothing takes an id from them.
        let departments = DepartmentSet::translate(index, &texts);
        let subjects =
            GrantSubjects { departments: &departments, gateways: &gateways, routes: &outcomes, ingresses: &ingresses };
        let (grant_documents, grants) = translate_grants(index, &subjects);
        let (backend_documents, backends, policies) = backends.into_parts();
        self.backends = backends;
        let backend_services: BTreeSet<ObjectKey> = backend_documents.iter().map(|one| one.service.clone()).collect();
        let mut documents = self.pooled(departments.documents);
        documents.append(gateway_documents);
        documents.append(backend_documents.iter().map(|backend| Arc::clone(&backend.document)).collect());
        documents.append(route_documents);
        documents.append(self.pooled(ingress_documents));
        documents.append(self.pooled(grant_documents));
        Translation {
            documents,
            texts: texts.texts,
            backend_services,
            classes: classes(index),
            gateways: gateways.into_iter().map(gateway_outcome).collect(),
            routes: outcomes,
            other_routes: others,
            policies,
            departments: departments.outcomes,
            command_sets: command_sets.outcomes,
            grants,
            client_auth_policies: auth_policies.into_outcomes(),
            ingresses,
            ingress_addresses: ingress_addresses(index, &self.settings),
            services,
            abandoned_services,
        }
    }

    fn pooled(&mut self, documents: Vec<(String, Value)>) -> DocumentList {
        documents.iter().map(|(name, content)| self.documents.take(name, content)).collect()
    }

    /// Adds the trusted load balancers to every listener of a document.
    fn with_proxy_protocol(&self, mut document: Value) -> Value {
        let ranges = &self.settings.proxy_protocol;
        if ranges.is_empty() {
            return document;
        }
        for listener in document.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
            listener["proxyProtocol"] = serde_json::json!(ranges);
        }
        document
    }
}

fn gateway_document_name(gateway: &ObjectKey) -> String {
    format!("Gateway {gateway}")
}

fn classes(index: &Index) -> Vec<(ObjectKey, i64)> {
    let classes = index
        .gateway_classes()
        .iter()
        .filter(|(_, fact)| fact.valid().is_some_and(|class| &*class.controller_name == CONTROLLER_NAME));
    classes.map(|(key, fact)| (key.clone(), fact.meta.generation)).collect()
}

fn gateway_outcome(plan: GatewayPlan<'_>) -> GatewayOutcome {
    let is_documented = plan.listeners.iter().any(GatewayListenerPlan::is_live);
    let listeners_of = |kind: &str, key: &ObjectKey| -> Vec<ListenerOutcome> {
        let owned = plan.listeners.iter().filter(|one| one.owner.kind == kind && one.owner.key == key);
        owned.map(|listener| listener_outcome(plan.key, listener)).collect()
    };
    let sets = plan.sets.iter().map(|set| ListenerSetOutcome {
        key: set.key.clone(),
        generation: set.generation,
        is_allowed: set.is_allowed,
        listeners: listeners_of("ListenerSet", set.key),
    });
    let requested = plan.gateway.addresses.iter().map(|address| address.value.to_string());
    GatewayOutcome {
        key: plan.key.clone(),
        generation: plan.fact.meta.generation,
        document: is_documented.then(|| gateway_document_name(plan.key)),
        requested_addresses: requested.filter(|address| !address.is_empty()).collect(),
        listeners: listeners_of("Gateway", plan.key),
        listener_sets: sets.collect(),
        conditions: plan.conditions,
    }
}

fn listener_outcome(gateway: &ObjectKey, listener: &GatewayListenerPlan<'_>) -> ListenerOutcome {
    ListenerOutcome {
        name: listener.listener.name.to_string(),
        configured: listener.is_live().then(|| names::listener(gateway, listener.listener.port)),
        supported_kinds: listener.supported_kinds.clone(),
        attached_routes: listener.attached_routes,
        is_served: listener.is_served(),
        conditions: listener.conditions.clone(),
    }
}

#[cfg(test)]
mod tests;

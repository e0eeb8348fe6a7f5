//! What the last translation has made of each route.
//!
//! Guarantees:
//! - The translation of a route is taken again only if everything that it depends on is the same: the route itself, the
//!   Services that it looked up, and what all routes share ([`CommonRouteInputs`]).
//! - A route that is translated again to the same document keeps the document.
//! - The time is in proportion to the routes that are translated, and to the number of pages.
//!
//! Leaves to others: translation (`routes`, `tls_routes`), and pages (`route_page`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::route_page::{PlacedRoute, RoutePage, RoutePages, RoutePlace, TranslatedRoute};
use crate::kube::index::{Index, RouteFact};
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::translate::named_document::DocumentList;
use crate::model::IdentityToken;

/// What the translation of every route depends on, beside the route and its Services.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::kube::translate) struct CommonRouteInputs {
    /// The facts that Gateways, references, policies, CommandSets and Grants are made of.
    revisions: [IdentityToken; 10],
    /// The documents of the Gateways: they show which listeners are live, which depends on Services and policies too.
    gateways: DocumentList,
}

impl CommonRouteInputs {
    pub(in crate::kube::translate) fn new(index: &Index, gateways: &DocumentList) -> Self {
        let revisions = [
            index.gateway_classes().revision(),
            index.gateways().revision(),
            index.listener_sets().revision(),
            index.reference_grants().revision(),
            index.backend_tls_policies().revision(),
            index.secrets().revision(),
            index.config_maps().revision(),
            index.namespaces().revision(),
            index.command_sets().revision(),
            index.grants().revision(),
        ];
        Self { revisions: revisions.map(IdentityToken::clone), gateways: gateways.clone() }
    }
}

/// Translates a route. `known` is what it was translated to before.
pub(super) type TranslateRoute<'a> =
    &'a mut dyn FnMut(&ObjectKey, &RouteFact, Option<&TranslatedRoute>) -> TranslatedRoute;

/// The translations of all routes.
#[derive(Debug, Default)]
pub(in crate::kube::translate) struct RouteMemo {
    common: Option<CommonRouteInputs>,
    revisions: RouteRevisions,
    /// When each route was created: the part of its place that an event about it does not say.
    created: HashMap<(ObjectKind, ObjectKey), Option<Timestamp>>,
    /// HTTPRoutes and GRPCRoutes.
    requests: RoutePages,
    /// TLSRoutes.
    connections: RoutePages,
}

/// The revisions of routes and Services at the last translation.
#[derive(Debug, Default)]
struct RouteRevisions {
    http: IdentityToken,
    grpc: IdentityToken,
    tls: IdentityToken,
    services: IdentityToken,
}

/// What has changed since the last translation.
struct RouteChanges {
    routes: HashSet<(ObjectKind, ObjectKey)>,
    services: HashSet<ObjectKey>,
}

impl RouteRevisions {
    fn new(index: &Index) -> Self {
        Self {
            http: index.http_routes().revision().clone(),
            grpc: index.grpc_routes().revision().clone(),
            tls: index.tls_routes().revision().clone(),
            services: index.services().revision().clone(),
        }
    }

    /// The changes since then; `None` if the index does not know them any more.
    fn changes(&self, index: &Index) -> Option<RouteChanges> {
        let of_kinds = [
            (ObjectKind::HttpRoute, index.http_routes().changed_since(&self.http)?),
            (ObjectKind::GrpcRoute, index.grpc_routes().changed_since(&self.grpc)?),
            (ObjectKind::TlsRoute, index.tls_routes().changed_since(&self.tls)?),
        ];
        let routes = of_kinds.into_iter().flat_map(|(kind, keys)| keys.into_iter().map(move |key| (kind, key.clone())));
        let services = index.services().changed_since(&self.services)?;
        Some(RouteChanges { routes: routes.collect(), services: services.into_iter().cloned().collect() })
    }
}

impl RouteMemo {
    /// Translates the routes that have changed, or all if the common inputs are others.
    pub(super) fn update(&mut self, index: &Index, common: CommonRouteInputs, translate: TranslateRoute<'_>) {
        let is_current = self.common.as_ref() == Some(&common);
        let changes = self.revisions.changes(index).filter(|_| is_current);
        self.common = Some(common);
        self.revisions = RouteRevisions::new(index);
        match changes {
            Some(changes) => self.translate_changed(index, changes, translate),
            None => self.translate_all(index, translate),
        }
    }

    /// The pages of all routes in their order: of equal matches the older route wins. TLSRoutes come last.
    pub(super) fn pages(&self) -> impl Iterator<Item = &Arc<RoutePage>> {
        self.requests.pages().iter().chain(self.connections.pages())
    }

    fn translate_all(&mut self, index: &Index, translate: TranslateRoute<'_>) {
        let routes = self.requests.routes().chain(self.connections.routes());
        let known: HashMap<_, _> = routes.map(|route| (route.place.id(), Arc::clone(&route.translated))).collect();
        let http = index.http_routes().iter_shared().map(|(key, fact)| (key, RouteFact::Http(Arc::clone(fact))));
        let grpc = index.grpc_routes().iter_shared().map(|(key, fact)| (key, RouteFact::Grpc(Arc::clone(fact))));
        let tls = index.tls_routes().iter_shared().map(|(key, fact)| (key, RouteFact::Tls(Arc::clone(fact))));
        self.created.clear();
        let mut pages_of = |facts: Vec<(&ObjectKey, RouteFact)>| {
            let placed = facts.into_iter().map(|(key, fact)| (place_of(key, &fact), fact));
            let mut placed: Vec<(RoutePlace, RouteFact)> = placed.collect();
            placed.sort_by(|(one, _), (other, _)| one.cmp(other));
            let routes = placed.into_iter().map(|(place, fact)| {
                self.created.insert(place.id(), place.created);
                let translated = translate(&place.key, &fact, known.get(&place.id()).map(|known| &**known));
                PlacedRoute { place, translated: Arc::new(translated) }
            });
            RoutePages::new(routes.collect())
        };
        self.requests = pages_of(http.chain(grpc).collect());
        self.connections = pages_of(tls.collect());
    }

    fn translate_changed(&mut self, index: &Index, changes: RouteChanges, translate: TranslateRoute<'_>) {
        let RouteChanges { mut routes, services } = changes;
        if !services.is_empty() {
            let pages = [&self.requests, &self.connections];
            let places = pages.into_iter().flat_map(|pages| pages.with_services(&services));
            routes.extend(places.map(RoutePlace::id));
        }
        let mut ids: Vec<(ObjectKind, ObjectKey)> = routes.into_iter().collect();
        ids.sort_unstable();
        let (mut requests, mut connections) = (PageReplacement::default(), PageReplacement::default());
        for (kind, key) in ids {
            let (pages, replacement) = match kind {
                ObjectKind::TlsRoute => (&self.connections, &mut connections),
                _ => (&self.requests, &mut requests),
            };
            let id = (kind, key);
            let before = self.created.get(&id).map(|created| RoutePlace { created: *created, key: id.1.clone(), kind });
            let known = before.as_ref().and_then(|place| pages.find(place));
            match index.route(kind, &id.1) {
                Some(fact) => {
                    let translated = translate(&id.1, &fact, known.map(|known| &*known.translated));
                    let place = place_of(&id.1, &fact);
                    self.created.insert(id, place.created);
                    replacement.added.push(PlacedRoute { place, translated: Arc::new(translated) });
                }
                None => drop(self.created.remove(&id)),
            }
            replacement.removed.extend(before);
        }
        self.requests.replace(&requests.removed, requests.added);
        self.connections.replace(&connections.removed, connections.added);
    }
}

/// The routes that a list of pages loses and gets.
#[derive(Default)]
struct PageReplacement {
    removed: HashSet<RoutePlace>,
    added: Vec<PlacedRoute>,
}

fn place_of(key: &ObjectKey, fact: &RouteFact) -> RoutePlace {
    RoutePlace { created: fact.meta().created, key: key.clone(), kind: fact.kind() }
}

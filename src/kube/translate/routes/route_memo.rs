//! What the last translation has made of each route.
//!
//! Guarantees:
//! - The translation of a route is taken again only if everything that it depends on is the same: the route itself, the
//!   Services that it looked up, and what all routes share ([`CommonRouteInputs`]).
//! - A route that is translated again to the same document keeps the document.
//!
//! Leaves to others: translation (`routes`, `tls_routes`).

use std::collections::HashMap;
use std::sync::Arc;

use super::RouteOutcome;
use crate::kube::index::{Index, RouteFact};
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::translate::backends::BackendUses;
use crate::kube::translate::named_document::{DocumentList, NamedDocument};
use crate::model::IdentityToken;

/// What a route was translated to.
#[derive(Debug, Default)]
pub(super) struct TranslatedRoute {
    /// `None` if it has no parent of this controller, or cannot be read.
    pub(super) outcome: Option<Arc<RouteOutcome>>,
    pub(super) document: Option<Arc<NamedDocument>>,
    /// The listeners that take it: positions of Gateways, and of listeners there.
    pub(super) attached: Vec<(usize, usize)>,
    pub(super) uses: BackendUses,
}

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

/// A route with its translation.
type KnownRoute = (RouteFact, Arc<TranslatedRoute>);

/// The translations of all routes: those of the last translation, and those of the one that is being made.
#[derive(Debug, Default)]
pub(in crate::kube::translate) struct RouteMemo {
    common: Option<CommonRouteInputs>,
    /// Whether the last translation had the same common inputs.
    is_current: bool,
    services: IdentityToken,
    /// Whether the last translation had the same Services.
    has_same_services: bool,
    before: HashMap<(ObjectKind, ObjectKey), KnownRoute>,
    now: HashMap<(ObjectKind, ObjectKey), KnownRoute>,
}

impl RouteMemo {
    /// Begins a translation.
    pub(in crate::kube::translate) fn begin(&mut self, index: &Index, common: CommonRouteInputs) {
        self.is_current = self.common.as_ref() == Some(&common);
        self.common = Some(common);
        self.has_same_services = self.services == *index.services().revision();
        self.services = index.services().revision().clone();
        self.before = std::mem::take(&mut self.now);
        self.now.reserve(self.before.len());
    }

    /// Ends a translation: routes that are gone are dropped.
    pub(in crate::kube::translate) fn end(&mut self) {
        self.before = HashMap::new();
    }

    /// The translation of a route, if it can be taken again.
    pub(super) fn find(&self, index: &Index, key: &ObjectKey, fact: &RouteFact) -> Option<Arc<TranslatedRoute>> {
        let (known, translated) = self.before.get(&(fact.kind(), key.clone())).filter(|_| self.is_current)?;
        let is_same = known.means_the_same(fact);
        let has_same_services = self.has_same_services || translated.uses.has_same_services(index);
        (is_same && has_same_services).then(|| Arc::clone(translated))
    }

    /// A new document of a route: that of the last translation, if it is the same.
    pub(super) fn document(&self, kind: ObjectKind, key: &ObjectKey, document: NamedDocument) -> Arc<NamedDocument> {
        let known = self.before.get(&(kind, key.clone())).and_then(|(_, translated)| translated.document.as_ref());
        document.shared_with(known)
    }

    /// Keeps the translation of a route for the next time.
    pub(super) fn keep(&mut self, key: &ObjectKey, fact: RouteFact, translated: Arc<TranslatedRoute>) {
        self.now.insert((fact.kind(), key.clone()), (fact, translated));
    }
}

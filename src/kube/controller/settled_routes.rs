//! Routes whose status was as it should be when they were compared last.
//!
//! Guarantees:
//! - A route is settled only as long as neither its translation nor the object itself has changed, its shown status
//!   included. Then a comparison would find nothing, and report nothing that was not reported.
//! - The routes of a page that has settled are not looked at one by one.
//! - Bounded: at most one entry for each route that is known, and one for each page of the translation.
//!
//! Leaves to others: the comparison (`event_loop`), and which routes may settle (`wanted_status`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::kube::index::{Index, RouteFact};
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::translate::{OutcomeList, RouteOutcome};
use crate::model::IdentityToken;

/// The settled routes.
#[derive(Debug, Default)]
pub(super) struct SettledRoutes {
    routes: HashMap<(ObjectKind, ObjectKey), SettledRoute>,
    /// The settled pages of outcomes, by their addresses. They are kept, so that no other page gets the address.
    pages: HashMap<usize, OutcomePage>,
    /// The revisions that the pages have settled with.
    revisions: ShownRevisions,
}

/// A page of routes of a translation.
type OutcomePage = Arc<[Arc<RouteOutcome>]>;

/// What a route was compared with.
#[derive(Debug)]
struct SettledRoute {
    outcome: Option<Arc<RouteOutcome>>,
    fact: RouteFact,
    /// The address of the page that it was in.
    page: Option<usize>,
}

/// The revisions of routes, with what the server shows of them.
#[derive(Debug, Default)]
struct ShownRevisions {
    http: IdentityToken,
    grpc: IdentityToken,
    tls: IdentityToken,
}

impl ShownRevisions {
    fn new(index: &Index) -> Self {
        Self {
            http: index.http_routes().shown_revision().clone(),
            grpc: index.grpc_routes().shown_revision().clone(),
            tls: index.tls_routes().shown_revision().clone(),
        }
    }

    /// The routes that have changed since then; `None` if the index does not know them any more.
    fn changes(&self, index: &Index) -> Option<Vec<(ObjectKind, ObjectKey)>> {
        let of_kinds = [
            (ObjectKind::HttpRoute, index.http_routes().shown_since(&self.http)?),
            (ObjectKind::GrpcRoute, index.grpc_routes().shown_since(&self.grpc)?),
            (ObjectKind::TlsRoute, index.tls_routes().shown_since(&self.tls)?),
        ];
        let keys = of_kinds.into_iter().flat_map(|(kind, keys)| keys.into_iter().map(move |key| (kind, key.clone())));
        Some(keys.collect())
    }
}

impl SettledRoutes {
    /// Begins a comparison of a translation with an index. The pages with a route that has changed are settled no more.
    pub(super) fn begin(&mut self, index: &Index, outcomes: &OutcomeList) {
        match self.revisions.changes(index) {
            Some(changed) => {
                for route in changed {
                    let page = self.routes.get(&route).and_then(|settled| settled.page);
                    page.and_then(|page| self.pages.remove(&page));
                }
            }
            None => self.pages.clear(),
        }
        self.revisions = ShownRevisions::new(index);
        let current: HashSet<usize> = outcomes.pages().iter().map(address_of).collect();
        self.pages.retain(|page, _| current.contains(page));
    }

    /// Whether all routes of a page have settled.
    pub(super) fn has_page(&self, page: &OutcomePage) -> bool {
        self.pages.contains_key(&address_of(page))
    }

    /// Notes that all routes of a page have settled.
    pub(super) fn note_page(&mut self, page: &OutcomePage) {
        let address = address_of(page);
        for outcome in page.iter() {
            if let Some(settled) = self.routes.get_mut(&(outcome.kind, outcome.key.clone())) {
                settled.page = Some(address);
            }
        }
        self.pages.insert(address, Arc::clone(page));
    }

    /// Whether a route has settled with this outcome; `None` if it has no parent of this controller.
    pub(super) fn has(&self, key: &ObjectKey, outcome: Option<&Arc<RouteOutcome>>, fact: &RouteFact) -> bool {
        self.routes.get(&(fact.kind(), key.clone())).is_some_and(|settled| {
            let is_same_outcome = match (&settled.outcome, outcome) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            is_same_outcome && settled.fact.is_same(fact)
        })
    }

    /// Notes whether a route has settled.
    pub(super) fn note(
        &mut self,
        key: &ObjectKey,
        (outcome, fact): (Option<&Arc<RouteOutcome>>, RouteFact),
        has_settled: bool,
    ) {
        let id = (fact.kind(), key.clone());
        if has_settled {
            self.routes.insert(id, SettledRoute { outcome: outcome.map(Arc::clone), fact, page: None });
        } else {
            self.routes.remove(&id);
        }
    }

    /// Forgets routes that are gone, if there are more than `known` ones.
    pub(super) fn trim(&mut self, known: usize, is_known: impl Fn(ObjectKind, &ObjectKey) -> bool) {
        if self.routes.len() > known {
            self.routes.retain(|(kind, key), _| is_known(*kind, key));
        }
    }

    /// Forgets all: every route is compared again.
    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.pages.clear();
    }
}

fn address_of(page: &OutcomePage) -> usize {
    page.as_ptr().addr()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::index::Index;

    fn outcome() -> Arc<RouteOutcome> {
        let key = ObjectKey::new("shop", "cart");
        let kind = ObjectKind::HttpRoute;
        Arc::new(RouteOutcome { kind, key, generation: 1, parents: Vec::new(), document: None })
    }

    fn apply(index: &mut Index, version: &str) -> RouteFact {
        let metadata = json!({ "namespace": "shop", "name": "cart", "resourceVersion": version });
        index.apply(ObjectKind::HttpRoute, json!({ "metadata": metadata, "spec": {} }));
        index.route(ObjectKind::HttpRoute, &ObjectKey::new("shop", "cart")).expect("a route")
    }

    #[test]
    fn a_change_of_the_outcome_or_of_the_object_unsettles() {
        let (mut index, key, first) = (Index::default(), ObjectKey::new("shop", "cart"), outcome());
        let fact = apply(&mut index, "1");
        let mut settled = SettledRoutes::default();
        assert!(!settled.has(&key, Some(&first), &fact));
        settled.note(&key, (Some(&first), fact.clone()), true);
        assert!(settled.has(&key, Some(&first), &fact));
        assert!(!settled.has(&key, Some(&outcome()), &fact), "another outcome");
        assert!(!settled.has(&key, None, &fact), "no parent any more");
        let written = apply(&mut index, "2");
        assert!(!settled.has(&key, Some(&first), &written), "the server shows another version");
        settled.note(&key, (Some(&first), written.clone()), false);
        assert!(!settled.has(&key, Some(&first), &fact));
    }

    #[test]
    fn page_is_settled_until_one_of_its_routes_changes() {
        let (mut index, key, first) = (Index::default(), ObjectKey::new("shop", "cart"), outcome());
        let fact = apply(&mut index, "1");
        let outcomes: OutcomeList = [Arc::clone(&first)].into_iter().collect();
        let page = &outcomes.pages()[0];
        let mut settled = SettledRoutes::default();
        let settle = |settled: &mut SettledRoutes, fact: &RouteFact| {
            settled.note(&key, (Some(&first), fact.clone()), true);
            settled.note_page(page);
        };
        settled.begin(&index, &outcomes);
        assert!(!settled.has_page(page));
        settle(&mut settled, &fact);
        settled.begin(&index, &outcomes);
        assert!(settled.has_page(page));
        let written = apply(&mut index, "2");
        settled.begin(&index, &outcomes);
        assert!(!settled.has_page(page), "the server shows another version");
        settle(&mut settled, &written);
        assert!(settled.has_page(page));
        for number in 0..1000 {
            apply(&mut index, &number.to_string());
        }
        settled.begin(&index, &outcomes);
        assert!(!settled.has_page(page), "too many changes to know them all");
        settle(&mut settled, &written);
        settled.begin(&index, &[outcome()].into_iter().collect());
        assert!(!settled.has_page(page), "the translation has another page");
        settle(&mut settled, &written);
        settled.clear();
        assert!(!settled.has_page(page) && !settled.has(&key, Some(&first), &written));
    }

    #[test]
    fn routes_that_are_gone_are_forgotten() {
        let (mut index, key) = (Index::default(), ObjectKey::new("shop", "cart"));
        let fact = apply(&mut index, "1");
        let mut settled = SettledRoutes::default();
        settled.note(&key, (None, fact.clone()), true);
        settled.trim(1, |_, _| false);
        assert!(settled.has(&key, None, &fact), "there is room");
        settled.trim(0, |_, _| false);
        assert!(!settled.has(&key, None, &fact));
    }
}

//! Routes whose status was as it should be when they were compared last.
//!
//! Guarantees:
//! - A route is settled only as long as neither its translation nor the object itself has changed, its shown status
//!   included. Then a comparison would find nothing, and report nothing that was not reported.
//! - Bounded: at most one entry for each route that is known.
//!
//! Leaves to others: the comparison (`event_loop`), and which routes may settle (`wanted_status`).

use std::collections::HashMap;
use std::sync::Arc;

use crate::kube::index::RouteFact;
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::translate::RouteOutcome;

/// The settled routes.
#[derive(Debug, Default)]
pub(super) struct SettledRoutes(HashMap<(ObjectKind, ObjectKey), SettledRoute>);

/// What a route was compared with.
#[derive(Debug)]
struct SettledRoute {
    outcome: Option<Arc<RouteOutcome>>,
    fact: RouteFact,
}

impl SettledRoutes {
    /// Whether a route has settled with this outcome; `None` if it has no parent of this controller.
    pub(super) fn has(&self, key: &ObjectKey, outcome: Option<&Arc<RouteOutcome>>, fact: &RouteFact) -> bool {
        self.0.get(&(fact.kind(), key.clone())).is_some_and(|settled| {
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
            self.0.insert(id, SettledRoute { outcome: outcome.map(Arc::clone), fact });
        } else {
            self.0.remove(&id);
        }
    }

    /// Forgets routes that are gone, if there are more than `known` ones.
    pub(super) fn trim(&mut self, known: usize, is_known: impl Fn(ObjectKind, &ObjectKey) -> bool) {
        if self.0.len() > known {
            self.0.retain(|(kind, key), _| is_known(*kind, key));
        }
    }

    /// Forgets all: every route is compared again.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
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

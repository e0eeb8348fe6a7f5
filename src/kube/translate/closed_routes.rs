//! The routes that Grants close. An Ingress is such a route.
//!
//! Guarantees:
//! - A route that is the target of a Grant is closed to all callers without a grant, whatever becomes of the Grant.
//! - A Grant closes routes of its own namespace only.
//!
//! Leaves to others: what opens them again (`grants`).

use std::collections::BTreeSet;

use crate::kube::index::Index;
use crate::kube::objects::{ObjectKey, ObjectKind};

/// The routes that are closed to callers without a grant.
#[derive(Debug, Default)]
pub(super) struct ClosedRoutes {
    routes: BTreeSet<(ObjectKind, ObjectKey)>,
    /// The namespaces with a Grant that cannot be read: its targets are not known, so all their routes are closed.
    namespaces: BTreeSet<Box<str>>,
}

impl ClosedRoutes {
    pub(super) fn read(index: &Index) -> Self {
        let mut closed = Self::default();
        for (key, fact) in index.grants().iter() {
            let Some(grant) = fact.valid() else {
                closed.namespaces.insert((&*key.namespace).into());
                continue;
            };
            let targets = grant.target_refs.iter();
            closed
                .routes
                .extend(targets.map(|one| (one.kind.object_kind(), ObjectKey::new(&key.namespace, &one.name))));
        }
        closed
    }

    /// Whether only grants open a route.
    pub(super) fn contains(&self, kind: ObjectKind, route: &ObjectKey) -> bool {
        self.namespaces.contains(&*route.namespace) || self.routes.contains(&(kind, route.clone()))
    }
}

//! References from one object to another: whether they are permitted, and where they lead.
//!
//! Guarantees: a reference to another namespace needs a ReferenceGrant there. A missing object and one that may not be
//! named are told apart only by the reason.
//!
//! Leaves to others: what follows from a reference that leads nowhere.

use crate::kube::index::Index;
use crate::kube::objects::{GATEWAY_GROUP, GrantFrom, OWN_GROUP, ObjectKey, ObjectKind};

/// The object that refers: its kind, and its namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referrer<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
}

/// The object that is referred to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referent<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    /// `None` for the namespace of the referrer.
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

/// Why a reference leads nowhere: a reason of the Gateway API and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrokenReference {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Referent<'_> {
    /// The key of the object, seen from the namespace of the referrer.
    pub(super) fn key(&self, from: Referrer<'_>) -> ObjectKey {
        ObjectKey::new(self.namespace.unwrap_or(from.namespace), self.name)
    }
}

/// Checks that a reference is permitted.
///
/// # Errors
/// `RefNotPermitted`, if it crosses namespaces without a ReferenceGrant.
pub(super) fn check_permission(
    index: &Index,
    from: Referrer<'_>,
    to: Referent<'_>,
) -> Result<ObjectKey, BrokenReference> {
    let key = to.key(from);
    if &*key.namespace == from.namespace {
        return Ok(key);
    }
    let group = if from.kind == ObjectKind::ClientAuthPolicy.api().kind { OWN_GROUP } else { GATEWAY_GROUP };
    let wanted = GrantFrom { group: group.into(), kind: from.kind.into(), namespace: from.namespace.into() };
    let target = (to.group, to.kind, to.name);
    let is_permitted = index
        .reference_grants()
        .in_namespace(&key.namespace)
        .any(|(_, fact)| fact.valid().is_some_and(|grant| grant.permits(&wanted, target)));
    if is_permitted {
        return Ok(key);
    }
    let message = format!(
        "{} {key} is in another namespace; a ReferenceGrant there has to permit {} of the namespace {}",
        to.kind, from.kind, from.namespace
    );
    Err(BrokenReference { reason: "RefNotPermitted", message })
}

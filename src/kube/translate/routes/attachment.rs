//! Attachment of routes to listeners: which listeners of which Gateways a route names, and which of them take it.
//!
//! Guarantees: of the reasons why a listener does not take a route, the one is shown that is closest to success, in the
//! order of the Gateway API: no such listener, not allowed, no common hostname.
//!
//! Leaves to others: what the route does (`http_route`, `grpc_route`).

use crate::kube::index::Index;
use crate::kube::objects::{GATEWAY_GROUP, ObjectKey, ParentReference};
use crate::kube::translate::condition::{ACCEPTED, Condition};
use crate::kube::translate::gateways::{GatewayListenerPlan, GatewayPlan, allows_namespace};
use crate::kube::translate::hostnames;
use crate::kube::translate::names;

/// A route, as far as attachment needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttachingRoute<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) kind: &'a str,
    pub(super) parents: &'a [ParentReference],
    pub(super) hostnames: &'a [Box<str>],
}

/// The attachment of a route to one parent.
#[derive(Clone, Debug)]
pub(super) struct Attachment<'a> {
    pub(super) parent: &'a ParentReference,
    /// The position of the Gateway.
    pub(super) gateway: usize,
    /// The positions of its listeners that take the route.
    pub(super) listeners: Vec<usize>,
    /// `Accepted` for this parent.
    pub(super) accepted: Condition,
}

/// The attachments to Gateways of this controller. Parents of other controllers are left out.
pub(super) fn attach<'a>(
    index: &Index,
    gateways: &[GatewayPlan<'_>],
    route: AttachingRoute<'a>,
) -> Vec<Attachment<'a>> {
    route.parents.iter().filter_map(|parent| attach_to(index, gateways, route, parent)).collect()
}

fn attach_to<'a>(
    index: &Index,
    gateways: &[GatewayPlan<'_>],
    route: AttachingRoute<'a>,
    parent: &'a ParentReference,
) -> Option<Attachment<'a>> {
    if &*parent.group != GATEWAY_GROUP {
        return None;
    }
    let key = ObjectKey::new(parent.namespace.as_deref().unwrap_or(&route.key.namespace), &parent.name);
    let is_parent = |plan: &GatewayPlan<'_>| match &*parent.kind {
        "Gateway" => *plan.key == key,
        "ListenerSet" => plan.sets.iter().any(|set| *set.key == key),
        _ => false,
    };
    let position = gateways.iter().position(is_parent)?;
    let listeners = &gateways[position].listeners;
    let named = |(_, plan): &(usize, &GatewayListenerPlan<'_>)| {
        plan.owner.kind == &*parent.kind
            && *plan.owner.key == key
            && parent.section_name.as_ref().is_none_or(|section| *section == plan.listener.name)
            && parent.port.is_none_or(|port| port == plan.listener.port)
    };
    let named: Vec<_> = listeners.iter().enumerate().filter(named).collect();
    let allowed = |(_, plan): &(usize, &GatewayListenerPlan<'_>)| allows(index, plan, route);
    let allowed: Vec<_> = named.iter().copied().filter(allowed).collect();
    let fitting = |(_, plan): &&(usize, &GatewayListenerPlan<'_>)| {
        hostnames::intersect(plan.listener.hostname.as_deref(), route.hostnames)
    };
    let fitting: Vec<usize> = allowed.iter().filter(fitting).map(|(position, _)| *position).collect();
    let accepted = match (named.len(), allowed.len(), fitting.len()) {
        (0, ..) => Condition::fails(ACCEPTED, "NoMatchingParent", "the Gateway has no listener of this name and port"),
        (_, 0, _) => {
            let message = format!("no such listener takes a {} of the namespace {}", route.kind, route.key.namespace);
            Condition::fails(ACCEPTED, "NotAllowedByListeners", message)
        }
        (.., 0) => {
            let message = "no hostname of the route matches that of a listener";
            Condition::fails(ACCEPTED, "NoMatchingListenerHostname", message)
        }
        _ => Condition::holds(ACCEPTED, "Accepted"),
    };
    Some(Attachment { parent, gateway: position, listeners: fitting, accepted })
}

/// Whether a listener takes routes of this kind and namespace.
fn allows(index: &Index, plan: &GatewayListenerPlan<'_>, route: AttachingRoute<'_>) -> bool {
    if !plan.supported_kinds.iter().any(|kind| &*kind.kind == route.kind) {
        return false;
    }
    let choice = &plan.listener.allowed_routes.namespaces;
    let own = &plan.owner.key.namespace;
    allows_namespace(index, (&choice.from, choice.selector.as_ref()), own, &route.key.namespace)
}

/// The bindings of a subsystem to the virtual hosts of these listeners: `LISTENER/VIRTUALHOST`.
pub(super) fn bindings(
    gateways: &[GatewayPlan<'_>],
    attachments: &[Attachment<'_>],
    is_meant: impl Fn(&GatewayListenerPlan<'_>) -> bool,
) -> Vec<String> {
    let mut bindings = Vec::new();
    for attachment in attachments.iter().filter(|attachment| attachment.accepted.holds) {
        let plan = &gateways[attachment.gateway];
        let served =
            attachment.listeners.iter().map(|at| &plan.listeners[*at]).filter(|one| one.is_live() && is_meant(one));
        bindings.extend(served.map(|one| {
            let listener = names::listener(plan.key, one.listener.port);
            format!("{listener}/{}", one.virtual_host())
        }));
    }
    bindings.sort();
    bindings.dedup(); // two parents may lead to one listener
    bindings
}

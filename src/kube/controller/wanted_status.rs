//! The status that each object should show: from the translation, and from what the data plane has made of it.
//!
//! Guarantees:
//! - `Programmed` holds only for what is bound and has an address.
//! - An object whose document the data plane left out is not accepted, with the problem as the message.
//! - Every condition has the generation that it is for.
//!
//! Leaves to others: the comparison with what is shown, and writing (`status`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::applied::AppliedTranslation;
use super::data_plane::AppliedConfig;
use super::features::SUPPORTED;
use crate::config::ExcludedSource;
use crate::kube::objects::{GatewayAddress, ObjectKey, ObjectKind};
use crate::kube::status::{WantedCondition, WantedIngress, WantedListener, WantedParent, WantedStatus};
use crate::kube::translate::{
    ACCEPTED, CONFLICTED, Condition, GatewayOutcome, ListenerOutcome, ListenerSetOutcome, PROGRAMMED, RouteOutcome,
    ServicePlan, Translation,
};

/// An object with the status that it should show.
pub(super) type WantedObject = (ObjectKind, ObjectKey, WantedStatus);

/// The problems of the documents that the data plane left out.
pub(super) type DocumentFaults<'a> = HashMap<&'a str, String>;

/// The problems of the documents that a configuration leaves out.
pub(super) fn document_faults(applied: &AppliedConfig) -> DocumentFaults<'_> {
    applied.excluded.iter().map(fault_of).collect()
}

/// A route with what became of it.
pub(super) struct WantedRoute<'a> {
    pub(super) kind: ObjectKind,
    pub(super) key: &'a ObjectKey,
    /// `None` if it has no parent of this controller: its status shows nothing of ours.
    pub(super) outcome: Option<&'a Arc<RouteOutcome>>,
    applied: &'a AppliedConfig,
    fault: Option<&'a String>,
}

impl WantedRoute<'_> {
    /// Whether its status follows from its translation alone.
    pub(super) fn may_settle(&self) -> bool {
        self.fault.is_none() && self.applied.rejected.is_none()
    }

    pub(super) fn status(&self) -> WantedStatus {
        let parents = self.outcome.map(|route| route_status(route, self.applied, self.fault));
        WantedStatus::Route(parents.unwrap_or_default())
    }
}

/// The statuses that routes should show.
#[derive(Clone, Copy)]
pub(super) struct WantedRoutes<'a> {
    applied: &'a AppliedConfig,
    faults: &'a DocumentFaults<'a>,
}

impl<'a> WantedRoutes<'a> {
    pub(super) fn new(applied: &'a AppliedConfig, faults: &'a DocumentFaults<'a>) -> Self {
        Self { applied, faults }
    }

    /// Whether the status of every route follows from its translation alone.
    pub(super) fn may_settle_all(&self) -> bool {
        self.faults.is_empty() && self.applied.rejected.is_none()
    }

    pub(super) fn route(&self, route: &'a Arc<RouteOutcome>) -> WantedRoute<'a> {
        let fault = route.document.as_ref().and_then(|document| self.faults.get(document.as_str()));
        WantedRoute { kind: route.kind, key: &route.key, outcome: Some(route), applied: self.applied, fault }
    }

    /// A route without a parent of this controller.
    pub(super) fn other_route(&self, kind: ObjectKind, key: &'a ObjectKey) -> WantedRoute<'a> {
        WantedRoute { kind, key, outcome: None, applied: self.applied, fault: None }
    }
}

/// The status of every object of this controller, beside routes.
pub(super) fn wanted_statuses(
    translation: &Translation,
    applied: &AppliedConfig,
    faults: &DocumentFaults<'_>,
) -> Vec<WantedObject> {
    let mut wanted = Vec::new();
    for (key, generation) in &translation.classes {
        wanted.push((ObjectKind::GatewayClass, key.clone(), class_status(*generation)));
    }
    let services: HashMap<&ObjectKey, &ServicePlan> =
        translation.services.iter().map(|service| (&service.gateway, service)).collect();
    for gateway in &translation.gateways {
        let service = services.get(&gateway.key).copied();
        let status = gateway_status(gateway, service, (applied, faults));
        wanted.push((ObjectKind::Gateway, gateway.key.clone(), status));
        for set in &gateway.listener_sets {
            let status = listener_set_status(gateway, set, (applied, faults));
            wanted.push((ObjectKind::ListenerSet, set.key.clone(), status));
        }
    }
    for policy in &translation.policies {
        let ancestors = policy.ancestors.iter().map(|(parent, conditions)| WantedParent {
            parent: parent.clone(),
            conditions: conditions.iter().map(|one| with_generation(one, policy.generation)).collect(),
        });
        wanted.push((ObjectKind::BackendTlsPolicy, policy.key.clone(), WantedStatus::Policy(ancestors.collect())));
    }
    wanted.extend(own_statuses(translation, (applied, faults)));
    for ingress in &translation.ingresses {
        let addresses = translation.ingress_addresses.clone();
        let status = WantedStatus::Ingress(WantedIngress { addresses, former: Vec::new() });
        wanted.push((ObjectKind::Ingress, ingress.key.clone(), status));
    }
    wanted
}

/// The status of the objects of our own kinds.
fn own_statuses(
    translation: &Translation,
    (applied, faults): (&AppliedConfig, &DocumentFaults<'_>),
) -> Vec<WantedObject> {
    let mut wanted = Vec::new();
    let dated = |conditions: &[Condition], generation: i64| -> Vec<WantedCondition> {
        conditions.iter().map(|one| with_generation(one, generation)).collect()
    };
    for department in &translation.departments {
        let mut conditions = live_conditions(&department.conditions, department.document.as_ref(), (applied, faults));
        if !department.has_listener
            && let Some(programmed) = conditions.iter_mut().find(|one| one.kind == PROGRAMMED && one.holds)
        {
            let message = "no listener accepts callers of these authorities and of no others, so no certificate counts \
                           anywhere; name the authorities in a ClientAuthPolicy, or add those of the listener here";
            *programmed = Condition::fails(PROGRAMMED, "NoListener", message);
        }
        let status = WantedStatus::Conditions(dated(&conditions, department.generation));
        wanted.push((ObjectKind::Department, department.key.clone(), status));
    }
    for grant in &translation.grants {
        let conditions = live_conditions(&grant.conditions, grant.document.as_ref(), (applied, faults));
        let status = WantedStatus::Conditions(dated(&conditions, grant.generation));
        wanted.push((ObjectKind::Grant, grant.key.clone(), status));
    }
    for set in &translation.command_sets {
        let status = WantedStatus::Conditions(dated(&set.conditions, set.generation));
        wanted.push((ObjectKind::CommandSet, set.key.clone(), status));
    }
    for policy in &translation.client_auth_policies {
        let ancestors = policy.targets.iter().map(|(parent, conditions)| WantedParent {
            parent: parent.clone(),
            conditions: dated(conditions, policy.generation),
        });
        let status = WantedStatus::Policy(ancestors.collect());
        wanted.push((ObjectKind::ClientAuthPolicy, policy.key.clone(), status));
    }
    wanted
}

/// The conditions of an object with a document of its own, with `Programmed`: what the data plane has made of it.
fn live_conditions(
    conditions: &[Condition],
    document: Option<&String>,
    (applied, faults): (&AppliedConfig, &DocumentFaults<'_>),
) -> Vec<Condition> {
    let fault = document.and_then(|document| faults.get(document.as_str()));
    let programmed = match (document, fault, &applied.rejected) {
        (None, ..) => Condition::fails(PROGRAMMED, "Invalid", "it is not live; see its other conditions"),
        (_, Some(fault), _) => Condition::fails(PROGRAMMED, "Invalid", fault.clone()),
        (_, None, Some(rejected)) => Condition::fails(PROGRAMMED, "Pending", rejected.clone()),
        (_, None, None) => Condition::holds(PROGRAMMED, "Programmed"),
    };
    let judged = conditions.iter().map(|one| match fault {
        Some(fault) if one.kind == ACCEPTED && one.holds => Condition::fails(ACCEPTED, "Invalid", fault.clone()),
        _ => one.clone(),
    });
    judged.chain([programmed]).collect()
}

/// The events of Ingresses: for each reason all its sentences, and the problem of a document that was left out.
pub(super) fn ingress_events(latest: &AppliedTranslation) -> Vec<(ObjectKey, &'static str, String)> {
    let excluded = document_faults(&latest.config);
    let mut events = Vec::new();
    for ingress in &latest.translation.ingresses {
        let mut notes: BTreeMap<&'static str, Vec<&str>> = BTreeMap::new();
        for (reason, sentence) in &ingress.faults {
            notes.entry(reason).or_default().push(sentence);
        }
        let problem = ingress.document.as_ref().and_then(|document| excluded.get(document.as_str()));
        if let Some(problem) = problem {
            notes.entry("Invalid").or_default().push(problem);
        }
        events.extend(notes.into_iter().map(|(reason, notes)| (ingress.key.clone(), reason, notes.join("; "))));
    }
    events
}

fn fault_of(excluded: &ExcludedSource) -> (&str, String) {
    let problem = excluded.problems.first();
    (&excluded.source, problem.map(ToString::to_string).unwrap_or_default())
}

fn class_status(generation: i64) -> WantedStatus {
    let accepted = Condition::holds(ACCEPTED, "Accepted");
    WantedStatus::GatewayClass {
        conditions: vec![with_generation(&accepted, generation)],
        supported_features: SUPPORTED.iter().map(|name| (*name).into()).collect(),
    }
}

fn with_generation(condition: &Condition, generation: i64) -> WantedCondition {
    WantedCondition::new(condition.kind, condition.holds, condition.reason, condition.message.clone(), generation)
}

fn gateway_status(
    gateway: &GatewayOutcome,
    service: Option<&ServicePlan>,
    (applied, faults): (&AppliedConfig, &DocumentFaults<'_>),
) -> WantedStatus {
    let fault = gateway.document.as_ref().and_then(|document| faults.get(document.as_str()));
    let addresses: Vec<GatewayAddress> = service.map(addresses_of).unwrap_or_default();
    let programmed = |listener: &ListenerOutcome| listener_programmed(listener, fault, applied);
    let own = gateway_programmed(gateway, &addresses, programmed);
    let conditions = gateway.conditions.iter().chain([&own]);
    let attached =
        gateway.listener_sets.iter().filter(|set| set.is_allowed && set.listeners.iter().any(|one| one.is_served));
    WantedStatus::Gateway {
        conditions: conditions.map(|one| with_generation(one, gateway.generation)).collect(),
        addresses,
        listeners: wanted_listeners(&gateway.listeners, gateway.generation, programmed),
        attached_listener_sets: u32::try_from(attached.count()).ok().filter(|_| !gateway.listener_sets.is_empty()),
    }
}

fn wanted_listeners(
    listeners: &[ListenerOutcome],
    generation: i64,
    programmed: impl Fn(&ListenerOutcome) -> Condition,
) -> Vec<WantedListener> {
    let wanted = |listener: &ListenerOutcome| {
        let own = programmed(listener);
        let conditions = listener.conditions.iter().chain([&own]);
        WantedListener {
            name: listener.name.as_str().into(),
            supported_kinds: listener.supported_kinds.clone(),
            attached_routes: u32::try_from(listener.attached_routes).unwrap_or(u32::MAX),
            conditions: conditions.map(|one| with_generation(one, generation)).collect(),
        }
    };
    listeners.iter().map(wanted).collect()
}

/// The status of a ListenerSet: its own conditions follow from those of its listeners.
fn listener_set_status(
    gateway: &GatewayOutcome,
    set: &ListenerSetOutcome,
    (applied, faults): (&AppliedConfig, &DocumentFaults<'_>),
) -> WantedStatus {
    let fault = gateway.document.as_ref().and_then(|document| faults.get(document.as_str()));
    let programmed = |listener: &ListenerOutcome| listener_programmed(listener, fault, applied);
    let both = |reason: &'static str, message: &str| {
        [ACCEPTED, PROGRAMMED].map(|kind| Condition::fails(kind, reason, message)).to_vec()
    };
    let conditions = if !set.is_allowed {
        both("NotAllowed", "the Gateway does not allow ListenerSets of this namespace (allowedListeners)")
    } else if set.listeners.iter().all(|listener| !listener.is_served) {
        both("ListenersNotValid", "no listener is valid; see their conditions")
    } else {
        let is_whole = set.listeners.iter().all(|listener| listener.is_served);
        let accepted = Condition::holds(ACCEPTED, if is_whole { "Accepted" } else { "ListenersNotValid" });
        let served = set.listeners.iter().filter(|listener| listener.is_served);
        let pending = served.map(programmed).find(|one| !one.holds);
        let own = pending.map_or_else(
            || Condition::holds(PROGRAMMED, "Programmed"),
            |pending| Condition { reason: "Pending", ..pending },
        );
        vec![accepted, own]
    };
    WantedStatus::ListenerSet {
        conditions: conditions.iter().map(|one| with_generation(one, set.generation)).collect(),
        listeners: wanted_listeners(&set.listeners, set.generation, programmed),
    }
}

fn addresses_of(service: &ServicePlan) -> Vec<GatewayAddress> {
    let address = |kind: &str, value: &str| GatewayAddress { kind: kind.into(), value: value.into() };
    let addresses = service.addresses.iter().filter_map(|one| match (&one.ip, &one.hostname) {
        (Some(ip), _) => Some(address("IPAddress", ip)),
        (None, Some(hostname)) => Some(address("Hostname", hostname)),
        (None, None) => None,
    });
    addresses.collect()
}

fn listener_programmed(listener: &ListenerOutcome, fault: Option<&String>, applied: &AppliedConfig) -> Condition {
    let is_bound = |configured: &String| applied.live_listeners.contains(configured);
    let conflict = listener.conditions.iter().find(|one| one.kind == CONFLICTED && one.holds);
    if let Some(conflict) = conflict {
        return Condition::fails(PROGRAMMED, conflict.reason, conflict.message.clone());
    }
    match (&listener.configured, fault) {
        _ if !listener.is_served => {
            Condition::fails(PROGRAMMED, "Invalid", "the listener is not valid; see its other conditions")
        }
        (_, Some(fault)) => Condition::fails(PROGRAMMED, "Invalid", fault.clone()),
        (Some(configured), None) if is_bound(configured) => Condition::holds(PROGRAMMED, "Programmed"),
        (Some(_), None) => Condition::fails(PROGRAMMED, "Pending", rejection(applied)),
        (None, None) => Condition::fails(PROGRAMMED, "Pending", "the Service of the Gateway is being made"),
    }
}

fn rejection(applied: &AppliedConfig) -> String {
    applied.rejected.clone().unwrap_or_else(|| "the data plane has not bound the listener yet".to_owned())
}

fn gateway_programmed(
    gateway: &GatewayOutcome,
    addresses: &[GatewayAddress],
    programmed: impl Fn(&ListenerOutcome) -> Condition,
) -> Condition {
    let is_accepted = gateway.conditions.iter().any(|one| one.kind == ACCEPTED && one.holds);
    if !is_accepted {
        return Condition::fails(PROGRAMMED, "Invalid", "the Gateway is not accepted");
    }
    let pending = gateway.listeners.iter().filter(|listener| listener.is_served).map(programmed).find(|one| !one.holds);
    if let Some(pending) = pending {
        return Condition { reason: "Pending", ..pending };
    }
    let unusable =
        gateway.requested_addresses.iter().find(|wanted| addresses.iter().all(|one| *one.value != ***wanted));
    match unusable {
        Some(unusable) if !addresses.is_empty() || !gateway.requested_addresses.is_empty() => {
            let message = format!("the load balancer has not assigned the address {unusable}");
            Condition::fails(PROGRAMMED, "AddressNotUsable", message)
        }
        _ if addresses.is_empty() => {
            Condition::fails(PROGRAMMED, "AddressNotAssigned", "the load balancer has not assigned an address yet")
        }
        _ => Condition::holds(PROGRAMMED, "Programmed"),
    }
}

fn route_status(route: &RouteOutcome, applied: &AppliedConfig, fault: Option<&String>) -> Vec<WantedParent> {
    let parents = route.parents.iter().map(|(parent, conditions)| {
        let conditions = conditions.iter().map(|one| match (one.kind, fault, &applied.rejected) {
            (ACCEPTED, Some(fault), _) if one.holds => Condition::fails(ACCEPTED, "UnsupportedValue", fault.clone()),
            (ACCEPTED, None, Some(rejected)) if one.holds => Condition::fails(ACCEPTED, "Pending", rejected.clone()),
            _ => one.clone(),
        });
        WantedParent {
            parent: parent.clone(),
            conditions: conditions.map(|one| with_generation(&one, route.generation)).collect(),
        }
    });
    parents.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::ConfigProblem;
    use crate::kube::objects::{IngressAddress, ParentReference};
    use crate::kube::status::ConditionStatus;

    fn listener(name: &str, is_served: bool) -> ListenerOutcome {
        ListenerOutcome {
            name: name.to_owned(),
            configured: is_served.then(|| format!("infra.web_{name}")),
            supported_kinds: Vec::new(),
            attached_routes: 1,
            is_served,
            conditions: Vec::new(),
        }
    }

    fn translation(listeners: Vec<ListenerOutcome>, requested: &[&str], assigned: &[&str]) -> Translation {
        let key = ObjectKey::new("infra", "web");
        let gateway = GatewayOutcome {
            key: key.clone(),
            generation: 7,
            document: Some("Gateway infra/web".to_owned()),
            requested_addresses: requested.iter().map(|one| (*one).to_owned()).collect(),
            conditions: vec![Condition::holds(ACCEPTED, "Accepted")],
            listeners,
            listener_sets: Vec::new(),
        };
        let service = ServicePlan {
            gateway: key,
            service: ObjectKey::new("system", "gw"),
            wanted: json!({}),
            is_current: true,
            wanted_slice: json!({}),
            is_slice_current: true,
            addresses: assigned.iter().map(|ip| IngressAddress { ip: Some((*ip).into()), hostname: None }).collect(),
        };
        Translation { gateways: vec![gateway], services: vec![service], ..Translation::default() }
    }

    fn applied(live: &[&str], excluded: &[&str], rejected: Option<&str>) -> AppliedConfig {
        let exclusion = |source: &&str| ExcludedSource {
            source: (*source).to_owned(),
            problems: vec![ConfigProblem::new("x", "is wrong")],
        };
        AppliedConfig {
            excluded: excluded.iter().map(exclusion).collect(),
            rejected: rejected.map(str::to_owned),
            live_listeners: live.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    /// `Programmed` of the Gateway and of its listeners, with `!` if it does not hold.
    fn programmed(translation: &Translation, applied: &AppliedConfig) -> Vec<String> {
        let (_, _, status) = wanted_statuses(translation, applied, &document_faults(applied)).remove(0);
        let WantedStatus::Gateway { conditions, listeners, .. } = status else { panic!("a Gateway") };
        let lists = [conditions].into_iter().chain(listeners.into_iter().map(|listener| listener.conditions));
        let shown = |one: WantedCondition| {
            assert_eq!(one.generation, 7);
            format!("{}{}", if one.status == ConditionStatus::True { "" } else { "!" }, one.reason)
        };
        lists.map(|list| shown(list.into_iter().find(|one| one.kind == PROGRAMMED).expect("Programmed"))).collect()
    }

    #[test]
    fn programmed_follows_from_the_data_plane_and_the_address() {
        let (bound, none) = (applied(&["infra.web_a"], &[], None), applied(&[], &[], None));
        for (listeners, requested, assigned, applied, expected) in [
            (vec![listener("a", true)], &[][..], &["10.0.0.1"][..], &bound, &["Programmed", "Programmed"][..]),
            (vec![listener("a", true)], &[], &["10.0.0.1"], &none, &["!Pending", "!Pending"]),
            (vec![listener("a", true)], &[], &[], &bound, &["!AddressNotAssigned", "Programmed"]),
            (vec![listener("a", true)], &["10.0.0.2"], &["10.0.0.1"], &bound, &["!AddressNotUsable", "Programmed"]),
            (vec![listener("a", true)], &["10.0.0.1"], &["10.0.0.1"], &bound, &["Programmed", "Programmed"]),
            (
                vec![listener("a", true), listener("b", false)],
                &[],
                &["10.0.0.1"],
                &bound,
                &["Programmed", "Programmed", "!Invalid"],
            ),
        ] {
            let translation = translation(listeners, requested, assigned);
            assert_eq!(programmed(&translation, applied), expected, "{translation:?} {applied:?}");
        }
        let translation = translation(vec![listener("a", true)], &[], &["10.0.0.1"]);
        let excluded = applied(&["infra.web_a"], &["Gateway infra/web"], None);
        assert_eq!(programmed(&translation, &excluded), ["!Pending", "!Invalid"]);
    }

    #[test]
    fn a_route_that_the_data_plane_left_out_is_not_accepted() {
        let parent: ParentReference = serde_json::from_value(json!({ "name": "web" })).expect("a parent");
        let route = RouteOutcome {
            kind: ObjectKind::HttpRoute,
            key: ObjectKey::new("shop", "cart"),
            generation: 3,
            parents: vec![(parent, vec![Condition::holds(ACCEPTED, "Accepted")])],
            document: Some("HTTPRoute shop/cart".to_owned()),
        };
        let translation = Translation { routes: vec![Arc::new(route)].into(), ..Translation::default() };
        for (applied, reason, status) in [
            (applied(&[], &[], None), "Accepted", ConditionStatus::True),
            (applied(&[], &["HTTPRoute shop/cart"], None), "UnsupportedValue", ConditionStatus::False),
            (applied(&[], &["HTTPRoute shop/other"], None), "Accepted", ConditionStatus::True),
            (applied(&[], &[], Some("a port is in use")), "Pending", ConditionStatus::False),
        ] {
            let faults = document_faults(&applied);
            let route = translation.routes.iter().next().expect("a route");
            let wanted = WantedRoutes::new(&applied, &faults).route(route);
            assert_eq!(wanted.may_settle(), reason == "Accepted");
            let WantedStatus::Route(parents) = wanted.status() else { panic!("a route") };
            let accepted = &parents[0].conditions[0];
            assert_eq!((&*accepted.reason, accepted.status, accepted.generation), (reason, status, 3));
        }
    }

    #[test]
    fn faults_of_an_ingress_are_one_event_for_each_reason() {
        let faults = [("A", "one"), ("B", "two"), ("A", "three")].map(|(reason, why)| (reason, why.to_owned()));
        let key = ObjectKey::new("shop", "cart");
        let document = Some("Ingress shop/cart".to_owned());
        let ingress = crate::kube::translate::IngressOutcome {
            key: key.clone(),
            document,
            faults: faults.into(),
            annotations: crate::kube::translate::AnnotationCounts::default(),
            subsystems: Vec::new(),
        };
        let translation = std::sync::Arc::new(Translation { ingresses: vec![ingress], ..Translation::default() });
        let events = |config| {
            let latest = AppliedTranslation { translation: std::sync::Arc::clone(&translation), config };
            ingress_events(&latest).into_iter().map(|(_, reason, note)| (reason, note)).collect::<Vec<_>>()
        };
        let own = [("A", "one; three".to_owned()), ("B", "two".to_owned())];
        assert_eq!(events(applied(&[], &[], None)), own);
        let excluded = events(applied(&[], &["Ingress shop/cart"], None));
        assert_eq!((&excluded[..2], excluded[2].0), (&own[..], "Invalid"));
    }
}

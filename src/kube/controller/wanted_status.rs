//! The status that each object should show: from the translation, and from what the data plane has made of it.
//!
//! Guarantees:
//! - `Programmed` holds only for what is bound and has an address.
//! - An object whose document the data plane left out is not accepted, with the problem as the message.
//! - Every condition has the generation that it is for.
//!
//! Leaves to others: the comparison with what is shown, and writing (`status`).

use std::collections::HashMap;

use super::data_plane::AppliedConfig;
use super::features::SUPPORTED;
use crate::config::ExcludedSource;
use crate::kube::objects::{GatewayAddress, ObjectKey, ObjectKind};
use crate::kube::status::{WantedCondition, WantedListener, WantedParent, WantedStatus};
use crate::kube::translate::{
    ACCEPTED, Condition, GatewayOutcome, ListenerOutcome, PROGRAMMED, RouteOutcome, ServicePlan, Translation,
};

/// An object with the status that it should show.
pub(super) type WantedObject = (ObjectKind, ObjectKey, WantedStatus);

/// The status of every object of this controller.
pub(super) fn wanted_statuses(translation: &Translation, applied: &AppliedConfig) -> Vec<WantedObject> {
    let faults: HashMap<&str, String> = applied.excluded.iter().map(fault_of).collect();
    let mut wanted = Vec::new();
    for (key, generation) in &translation.classes {
        wanted.push((ObjectKind::GatewayClass, key.clone(), class_status(*generation)));
    }
    let services: HashMap<&ObjectKey, &ServicePlan> =
        translation.services.iter().map(|service| (&service.gateway, service)).collect();
    for gateway in &translation.gateways {
        let service = services.get(&gateway.key).copied();
        let status = gateway_status(gateway, service, (applied, &faults));
        wanted.push((ObjectKind::Gateway, gateway.key.clone(), status));
    }
    for route in &translation.routes {
        wanted.push((route.kind, route.key.clone(), route_status(route, applied, &faults)));
    }
    wanted
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
    (applied, faults): (&AppliedConfig, &HashMap<&str, String>),
) -> WantedStatus {
    let fault = gateway.document.as_ref().and_then(|document| faults.get(document.as_str()));
    let addresses: Vec<GatewayAddress> = service.map(addresses_of).unwrap_or_default();
    let programmed = |listener: &ListenerOutcome| listener_programmed(listener, fault, applied);
    let listeners: Vec<WantedListener> = gateway
        .listeners
        .iter()
        .map(|listener| {
            let own = programmed(listener);
            let conditions = listener.conditions.iter().chain([&own]);
            WantedListener {
                name: listener.name.as_str().into(),
                supported_kinds: listener.supported_kinds.clone(),
                attached_routes: u32::try_from(listener.attached_routes).unwrap_or(u32::MAX),
                conditions: conditions.map(|one| with_generation(one, gateway.generation)).collect(),
            }
        })
        .collect();
    let own = gateway_programmed(gateway, &addresses, programmed);
    let conditions = gateway.conditions.iter().chain([&own]);
    WantedStatus::Gateway {
        conditions: conditions.map(|one| with_generation(one, gateway.generation)).collect(),
        addresses,
        listeners,
        attached_listener_sets: None,
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
    let unusable = gateway.requested_addresses.iter().find(|wanted| addresses.iter().all(|one| *one.value != ***wanted));
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

fn route_status(route: &RouteOutcome, applied: &AppliedConfig, faults: &HashMap<&str, String>) -> WantedStatus {
    let fault = route.document.as_ref().and_then(|document| faults.get(document.as_str()));
    let parents = route.parents.iter().map(|(parent, conditions)| {
        let conditions = conditions.iter().map(|one| match (one.kind, fault, &applied.rejected) {
            (ACCEPTED, Some(fault), _) if one.holds => {
                Condition::fails(ACCEPTED, "UnsupportedValue", fault.clone())
            }
            (ACCEPTED, None, Some(rejected)) if one.holds => {
                Condition::fails(ACCEPTED, "Pending", rejected.clone())
            }
            _ => one.clone(),
        });
        WantedParent {
            parent: parent.clone(),
            conditions: conditions.map(|one| with_generation(&one, route.generation)).collect(),
        }
    });
    WantedStatus::Route(parents.collect())
}

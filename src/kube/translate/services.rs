//! The Services of Gateways: each Gateway has one of the type LoadBalancer, whose ports lead to ports of the data plane.
//!
//! Guarantees:
//! - The Service is the record of the ports: what it publishes is kept, so all gateways bind the same ports, after a
//!   restart too.
//! - No two listeners share a port of the data plane.
//! - A Service that is as it should be is not written.
//!
//! Leaves to others: writing (`controller`), and addresses (the load balancer of the cluster).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::gateways::GatewayPlan;
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{IngressAddress, ObjectKey, Service};
use crate::model::hex_text;

/// The ports of the data plane for listeners of Gateways. Each has one, so this bounds their number.
pub const TARGET_PORTS: RangeInclusive<u16> = 20_000..=29_999;
/// The label with the name of the Gateway (GEP-1762).
const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The annotation with the namespace and the name of the Gateway.
const GATEWAY_ANNOTATION: &str = "tallygate.io/gateway";
/// The annotation with the hash of the wanted Service.
const WANTED_ANNOTATION: &str = "tallygate.io/wanted";
/// The longest name of a Service (RFC 1123 label).
const SERVICE_NAME_MAX: usize = 63;

/// Where the Services of Gateways are, and which pods they lead to.
#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    /// The namespace of the data plane.
    pub namespace: String,
    /// The labels of the pods of the data plane.
    pub selector: BTreeMap<String, String>,
}

/// The Service of a Gateway.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// The Gateway.
    pub gateway: ObjectKey,
    /// The Service.
    pub service: ObjectKey,
    /// The Service as it should be.
    pub wanted: Value,
    /// The version of the Service as it is; `None` if there is none.
    pub resource_version: Option<String>,
    /// Whether it is as it should be.
    pub is_current: bool,
    /// The addresses that the load balancer gave to it.
    pub addresses: Vec<IngressAddress>,
}

/// The Services of all Gateways, and the Services of Gateways that are gone. Sets the port of the data plane of each
/// listener that is published.
pub(super) fn plan_services(
    index: &Index,
    gateways: &mut [GatewayPlan<'_>],
    settings: &ServiceSettings,
) -> (Vec<ServicePlan>, Vec<ObjectKey>) {
    let mut existing: BTreeMap<String, (&ObjectKey, &Fact<Service>)> = BTreeMap::new();
    for (key, fact) in index.services().in_namespace(&settings.namespace) {
        if let Some(gateway) = fact.meta.annotation(GATEWAY_ANNOTATION) {
            existing.insert(gateway.to_owned(), (key, fact));
        }
    }
    let mut taken: BTreeSet<u16> =
        existing.values().flat_map(|(_, fact)| published_ports(fact).into_values()).collect();
    let mut plans = Vec::with_capacity(gateways.len());
    for plan in gateways {
        let known = existing.remove(&plan.key.to_string());
        plans.push(plan_service(plan, known.map(|(_, fact)| fact), &mut taken, settings));
    }
    (plans, existing.into_values().map(|(key, _)| key.clone()).collect())
}

fn plan_service(
    plan: &mut GatewayPlan<'_>,
    existing: Option<&Fact<Service>>,
    taken: &mut BTreeSet<u16>,
    settings: &ServiceSettings,
) -> ServicePlan {
    let published = existing.map(published_ports).unwrap_or_default();
    let mut ports: BTreeMap<u16, u16> = BTreeMap::new();
    for listener in plan.listeners.iter_mut().filter(|listener| listener.is_served()) {
        let port = listener.listener.port;
        listener.target_port = published.get(&port).copied();
        let target = listener.target_port.or_else(|| ports.get(&port).copied());
        if let Some(target) = target.or_else(|| free_port(&plan.fact.meta.uid, port, taken)) {
            taken.insert(target);
            ports.insert(port, target);
        }
    }
    let service = ObjectKey::new(&settings.namespace, &service_name(plan.key));
    let wanted = service_object(plan, &service, &ports, settings);
    let hash = |object: &Value| object["metadata"]["annotations"][WANTED_ANNOTATION].as_str().map(str::to_owned);
    let shown = existing.and_then(|fact| fact.meta.annotation(WANTED_ANNOTATION)).map(str::to_owned);
    ServicePlan {
        gateway: plan.key.clone(),
        service,
        is_current: ports.is_empty() && existing.is_none() || shown.is_some() && shown == hash(&wanted),
        wanted,
        resource_version: existing.map(|fact| fact.meta.resource_version.to_string()),
        addresses: existing
            .and_then(|fact| fact.valid())
            .map(|service| service.status.load_balancer.ingress.clone())
            .unwrap_or_default(),
    }
}

/// The ports of a Service: those that callers use, with those of the data plane.
fn published_ports(fact: &Fact<Service>) -> BTreeMap<u16, u16> {
    let ports = fact.valid().map(|service| service.spec.ports.as_slice()).unwrap_or_default();
    let target = |port: &Value| u16::try_from(port.as_u64()?).ok().filter(|port| TARGET_PORTS.contains(port));
    ports.iter().filter_map(|port| Some((port.port, target(port.target_port.as_ref()?)?))).collect()
}

/// A port that is not taken. It depends on the Gateway first, so that few gateways differ in their choice before the
/// Service records it.
fn free_port(uid: &str, port: u16, taken: &BTreeSet<u16>) -> Option<u16> {
    let digest = Sha256::digest(format!("{uid}/{port}"));
    let start = usize::from(u16::from_be_bytes([digest[0], digest[1]]));
    let count = TARGET_PORTS.len();
    let candidates = (0..count).map(|step| TARGET_PORTS.start() + ((start + step) % count) as u16);
    candidates.into_iter().find(|candidate| !taken.contains(candidate))
}

fn service_name(gateway: &ObjectKey) -> String {
    let name = format!("{}-{}", gateway.namespace, gateway.name).replace('.', "-");
    let digest = Sha256::digest(gateway.to_string());
    let kept = name.floor_char_boundary(SERVICE_NAME_MAX - "gw--".len() - 8);
    format!("gw-{}-{}", &name[..kept.min(name.len())], hex_text(&digest[..4]))
}

fn service_object(
    plan: &GatewayPlan<'_>,
    key: &ObjectKey,
    ports: &BTreeMap<u16, u16>,
    settings: &ServiceSettings,
) -> Value {
    let infrastructure = &plan.gateway.infrastructure;
    let mut labels: BTreeMap<&str, &str> = infrastructure.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    labels.insert(GATEWAY_NAME_LABEL, &plan.key.name);
    labels.insert("app.kubernetes.io/managed-by", "tallygate");
    let gateway = plan.key.to_string();
    let mut annotations: BTreeMap<&str, &str> = infrastructure.annotations.iter().map(|(k, v)| (&**k, &**v)).collect();
    annotations.insert(GATEWAY_ANNOTATION, &gateway);
    let ports: Vec<Value> = ports
        .iter()
        .map(|(port, target)| {
            json!({ "name": format!("p{port}"), "port": port, "targetPort": target, "protocol": "TCP" })
        })
        .collect();
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": &*key.namespace,
            "name": &*key.name,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "selector": settings.selector,
            "ports": ports,
        },
    });
    if let Some(address) = plan.gateway.addresses.iter().find(|address| !address.value.is_empty()) {
        object["spec"]["loadBalancerIP"] = json!(address.value);
    }
    let hash = hex_text(&Sha256::digest(object.to_string())[..8]);
    object["metadata"]["annotations"][WANTED_ANNOTATION] = json!(hash);
    object
}

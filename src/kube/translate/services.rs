//! The Services of Gateways: each has one of the type LoadBalancer in its own namespace (GEP-1762), whose ports lead to
//! ports of the data plane. The pods are in another namespace, so the Service has no selector, and an EndpointSlice
//! that is a copy of their addresses.
//!
//! Guarantees:
//! - The Service is the record of the ports: what it publishes is kept, so all gateways bind the same ports, after a
//!   restart too.
//! - No two listeners share a port of the data plane. A port that an older Gateway has is not taken from a Service.
//! - What is as it should be is not written. What belongs to a Gateway is owned by it, so it goes with it.
//!
//! Leaves to others: writing (`controller`), and addresses (the load balancer of the cluster).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::gateways::GatewayPlan;
use crate::kube::index::{EndpointState, Fact, Index, KnownEndpoint};
use crate::kube::objects::{GATEWAY_GROUP, IngressAddress, ObjectKey, Service};
use crate::model::hex_text;

/// The ports of the data plane for listeners of Gateways. Each has one, so this bounds their number.
pub const TARGET_PORTS: RangeInclusive<u16> = 20_000..=29_999;
/// The label with the name of the Gateway (GEP-1762).
const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The annotation with the namespace and the name of the Gateway.
const GATEWAY_ANNOTATION: &str = "tallygate.io/gateway";
/// The annotation with the hash of the wanted Service.
const WANTED_ANNOTATION: &str = "tallygate.io/wanted";
/// The label of the Service that leads to the pods of the data plane.
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The longest name of a Service (RFC 1123 label).
const SERVICE_NAME_MAX: usize = 63;

/// Where the data plane is.
#[derive(Clone, Debug, Default)]
pub struct ServiceSettings {
    /// The namespace of the data plane. A Service there with the label `app.kubernetes.io/component: ingress` leads to
    /// its pods.
    pub namespace: String,
    /// The ranges of load balancers that begin each connection with a PROXY protocol header.
    pub proxy_protocol: Vec<String>,
}

/// The Service of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePlan {
    /// The Gateway.
    pub gateway: ObjectKey,
    /// The Service.
    pub service: ObjectKey,
    /// The Service as it should be.
    pub wanted: Value,
    /// Whether it is as it should be.
    pub is_current: bool,
    /// Its EndpointSlice as it should be.
    pub wanted_slice: Value,
    /// Whether the EndpointSlice is as it should be.
    pub is_slice_current: bool,
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
    let mut existing: BTreeMap<ObjectKey, (&ObjectKey, &Fact<Service>)> = BTreeMap::new();
    for (key, fact) in index.services().iter() {
        if let Some(gateway) = gateway_of(key, fact) {
            existing.insert(gateway, (key, fact));
        }
    }
    let pods = data_plane_pods(index, settings);
    let mut order: Vec<usize> = (0..gateways.len()).collect();
    order.sort_by_cached_key(|at| (gateways[*at].fact.meta.created, gateways[*at].key.clone()));
    let mut taken = BTreeSet::new();
    let mut plans = Vec::with_capacity(gateways.len());
    for at in order {
        let plan = &mut gateways[at];
        let known = existing.remove(plan.key).map(|(_, fact)| fact);
        plans.push(plan_service(index, plan, known, (&mut taken, &pods)));
    }
    (plans, existing.into_values().map(|(key, _)| key.clone()).collect())
}

/// The Gateway of a Service that this controller has made: one in the same namespace.
fn gateway_of(key: &ObjectKey, fact: &Fact<Service>) -> Option<ObjectKey> {
    let gateway = fact.meta.annotation(GATEWAY_ANNOTATION)?;
    let (namespace, name) = gateway.split_once('/')?;
    (*namespace == *key.namespace).then(|| ObjectKey::new(namespace, name))
}

/// Whether a translation depends on the endpoints of this Service, beside the data plane: those of the data plane, and
/// of the Services of Gateways.
pub fn depends_on_endpoints(index: &Index, settings: &ServiceSettings, service: &ObjectKey) -> bool {
    let is_of_gateway = index.services().get(service).is_some_and(|fact| gateway_of(service, fact).is_some());
    is_of_gateway || ingress_service(index, settings).is_some_and(|(ingress, _)| ingress == service)
}

/// The pods of the data plane. If none of them is ready or serves while it ends, all count as ready: after the API
/// server was away, the node lifecycle controller marks all pods of all nodes unready for seconds, although they serve.
/// Without an address the Services of Gateways would refuse every connection; a pod that does not serve refuses it as
/// well.
fn data_plane_pods(index: &Index, settings: &ServiceSettings) -> Vec<KnownEndpoint> {
    let Some((service, _)) = ingress_service(index, settings) else { return Vec::new() };
    let known = index.endpoints().endpoints_of_service(service);
    let mut pods: Vec<KnownEndpoint> = known.into_iter().map(|(endpoint, _)| endpoint).collect();
    pods.sort_by_key(|pod| pod.address);
    pods.dedup_by_key(|pod| pod.address);
    if pods.iter().all(|pod| pod.state == EndpointState::Unready) {
        pods.iter_mut().for_each(|pod| pod.state = EndpointState::Ready);
    }
    pods
}

/// The Service that leads to the pods of the data plane. Ingresses have its addresses.
pub(super) fn ingress_service<'a>(
    index: &'a Index,
    settings: &ServiceSettings,
) -> Option<(&'a ObjectKey, &'a Fact<Service>)> {
    let is_ingress =
        |fact: &Fact<Service>| fact.meta.labels.get(COMPONENT_LABEL).is_some_and(|one| &**one == "ingress");
    index.services().in_namespace(&settings.namespace).find(|(_, fact)| is_ingress(fact))
}

fn plan_service(
    index: &Index,
    plan: &mut GatewayPlan<'_>,
    existing: Option<&Fact<Service>>,
    (taken, pods): (&mut BTreeSet<u16>, &[KnownEndpoint]),
) -> ServicePlan {
    let mut published = existing.map(published_ports).unwrap_or_default();
    published.retain(|_, target| taken.insert(*target)); // an older Gateway has the others
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
    let service = ObjectKey::new(&plan.key.namespace, &service_name(plan.key));
    let wanted = service_object(plan, &service, &ports);
    let wanted_slice = slice_object(plan, &service, &ports, pods);
    let hash = wanted["metadata"]["annotations"][WANTED_ANNOTATION].as_str();
    let shown = existing.and_then(|fact| fact.meta.annotation(WANTED_ANNOTATION));
    let is_needed = !ports.is_empty() || existing.is_some();
    ServicePlan {
        gateway: plan.key.clone(),
        is_current: !is_needed || shown.is_some() && shown == hash,
        wanted,
        is_slice_current: !is_needed || is_slice_current(index, &service, &ports, pods),
        wanted_slice,
        service,
        addresses: existing
            .and_then(|fact| fact.valid())
            .map(|service| service.status.load_balancer.ingress.clone())
            .unwrap_or_default(),
    }
}

/// Whether the endpoints of a Service are those of the data plane with these ports.
fn is_slice_current(index: &Index, service: &ObjectKey, ports: &BTreeMap<u16, u16>, pods: &[KnownEndpoint]) -> bool {
    let mut shown = index.endpoints().endpoints_of_service(service);
    shown.sort_by_key(|(endpoint, _)| endpoint.address);
    let wanted_ports: BTreeMap<Box<str>, u16> =
        ports.iter().map(|(port, target)| (port_name(*port).into(), *target)).collect();
    let is_same = |(endpoint, ports): &(KnownEndpoint, BTreeMap<Box<str>, u16>), pod: &KnownEndpoint| {
        (endpoint.address, endpoint.state, &endpoint.node) == (pod.address, pod.state, &pod.node)
            && *ports == wanted_ports
    };
    shown.len() == pods.len() && shown.iter().zip(pods).all(|(shown, pod)| is_same(shown, pod))
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
    let digest = Sha256::digest(gateway.to_string());
    let name = format!("gw-{}", gateway.name).replace('.', "-");
    let kept = name.floor_char_boundary(SERVICE_NAME_MAX - 1 - 8).min(name.len());
    format!("{}-{}", &name[..kept], hex_text(&digest[..4]))
}

fn port_name(port: u16) -> String {
    format!("p{port}")
}

fn metadata(plan: &GatewayPlan<'_>, key: &ObjectKey) -> Value {
    let infrastructure = &plan.gateway.infrastructure;
    let mut labels: BTreeMap<&str, &str> = infrastructure.labels.iter().map(|(k, v)| (&**k, &**v)).collect();
    labels.insert(GATEWAY_NAME_LABEL, &plan.key.name);
    labels.insert("app.kubernetes.io/managed-by", "tallygate");
    let gateway = plan.key.to_string();
    let mut annotations: BTreeMap<&str, &str> = infrastructure.annotations.iter().map(|(k, v)| (&**k, &**v)).collect();
    annotations.insert(GATEWAY_ANNOTATION, &gateway);
    json!({
        "namespace": &*key.namespace,
        "name": &*key.name,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [{
            "apiVersion": format!("{GATEWAY_GROUP}/v1"),
            "kind": "Gateway",
            "name": &*plan.key.name,
            "uid": &*plan.fact.meta.uid,
        }],
    })
}

fn service_object(plan: &GatewayPlan<'_>, key: &ObjectKey, ports: &BTreeMap<u16, u16>) -> Value {
    let port = |(port, target): (&u16, &u16)| json!({ "name": port_name(*port), "port": port, "targetPort": target, "protocol": "TCP" });
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan, key),
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "ports": ports.iter().map(port).collect::<Vec<_>>(),
        },
    });
    if let Some(address) = plan.gateway.addresses.iter().find(|address| !address.value.is_empty()) {
        object["spec"]["loadBalancerIP"] = json!(address.value);
    }
    let hash = hex_text(&Sha256::digest(object.to_string())[..8]);
    object["metadata"]["annotations"][WANTED_ANNOTATION] = json!(hash);
    object
}

fn slice_object(
    plan: &GatewayPlan<'_>,
    service: &ObjectKey,
    ports: &BTreeMap<u16, u16>,
    pods: &[KnownEndpoint],
) -> Value {
    let is_ipv6 = pods.first().is_some_and(|pod| pod.address.is_ipv6());
    let endpoint = |pod: &KnownEndpoint| {
        let (ready, serving) = (pod.state == EndpointState::Ready, pod.state != EndpointState::Unready);
        let mut endpoint = json!({
            "addresses": [pod.address.to_string()],
            "conditions": { "ready": ready, "serving": serving, "terminating": serving && !ready },
        });
        if let Some(node) = &pod.node {
            endpoint["nodeName"] = json!(node);
        }
        if let Some(zone) = &pod.zone {
            endpoint["zone"] = json!(zone);
        }
        endpoint
    };
    let port = |(port, target): (&u16, &u16)| json!({ "name": port_name(*port), "port": target, "protocol": "TCP" });
    let mut metadata = metadata(plan, service);
    metadata["labels"]["kubernetes.io/service-name"] = json!(&*service.name);
    metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = json!("tallygate.io");
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": if is_ipv6 { "IPv6" } else { "IPv4" },
        "endpoints": pods.iter().filter(|pod| pod.address.is_ipv6() == is_ipv6).map(endpoint).collect::<Vec<_>>(),
        "ports": ports.iter().map(port).collect::<Vec<_>>(),
    })
}

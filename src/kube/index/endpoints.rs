//! The endpoints of Services, reduced from EndpointSlices.
//!
//! Guarantees:
//! - Stands alone: no other kind is needed to apply a slice or to choose endpoints.
//! - An endpoint that several slices show is one endpoint.
//! - The choice is a function of the slices: the same slices in any order give the same list.
//!
//! Leaves to others:
//! - port numbers of a Service to port names: [`super::Index::endpoints_of`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;

use super::change::Change;
use super::event::IndexEvent;
use super::fact::Fact;
use super::kind_state::{KindState, OBJECTS_MAX};
use crate::kube::objects::{EndpointConditions, EndpointSlice, ObjectKey, SliceAddressKind, SliceEndpoint, SlicePort};
use crate::policy::ServiceEndpoints;

/// The largest number of endpoints of a slice: the maximum of the API.
const SLICE_ENDPOINTS_MAX: usize = 1000;

/// Endpoints by Service.
#[derive(Clone, Debug, Default)]
pub struct EndpointIndex {
    slices: BTreeMap<ObjectKey, StoredSlice>,
    /// The names of the slices of each Service.
    services: BTreeMap<ObjectKey, BTreeSet<Arc<str>>>,
    zone: Option<Box<str>>,
    state: KindState,
}

#[derive(Clone, Debug)]
struct StoredSlice {
    service: ObjectKey,
    slice: Arc<ReducedSlice>,
    /// The relist that showed the slice last.
    relist: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct ReducedSlice {
    endpoints: Vec<KnownEndpoint>,
    /// TCP ports by name.
    ports: BTreeMap<Box<str>, u16>,
}

/// One endpoint of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEndpoint {
    /// The address.
    pub address: IpAddr,
    /// Whether it takes requests.
    pub state: EndpointState,
    /// Its zone.
    pub zone: Option<Box<str>>,
    /// Its node.
    pub node: Option<Box<str>>,
    /// The zones whose clients should use it; empty without a hint.
    pub zone_hints: Vec<Box<str>>,
}

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// It takes new requests.
    Ready,
    /// It ends, and still serves. It takes new requests only while no endpoint of the Service is ready.
    ServingWhileTerminating,
    /// It takes no requests.
    Unready,
}

impl EndpointIndex {
    /// Sets the zone of this gateway. Endpoints with a hint for it are preferred.
    pub fn set_zone(&mut self, zone: Option<&str>) {
        self.zone = zone.map(Box::from);
    }

    /// Takes an event of the watch of EndpointSlices.
    pub fn take(&mut self, event: IndexEvent) -> Change {
        match event {
            IndexEvent::Begin(_) => {
                self.begin_relist();
                Change::default()
            }
            IndexEvent::Apply(_, object) => self.apply(object),
            IndexEvent::Delete(_, key) => self.delete(&key),
            IndexEvent::End(_) => self.end_relist(),
        }
    }

    /// Takes an EndpointSlice that was created or changed, or that a relist shows.
    pub fn apply(&mut self, object: Value) -> Change {
        let Some(fact) = Fact::<EndpointSlice>::read(object) else {
            self.state.leave_out();
            return Change::default();
        };
        let key = fact.meta.key();
        let service = fact.meta.labels.get(EndpointSlice::SERVICE_LABEL);
        let service = service.map(|service| ObjectKey::new(&fact.meta.namespace, service));
        let Some(service) = service.filter(|_| self.slices.len() < OBJECTS_MAX || self.slices.contains_key(&key))
        else {
            self.state.leave_out();
            return self.delete(&key);
        };
        // A slice that cannot be read has no endpoints: requests do not go to addresses that may be others' by now.
        let slice = fact.parsed.map(|slice| self.reduce(slice)).unwrap_or_default();
        self.keep(key, service, slice)
    }

    /// Takes the deletion of an EndpointSlice.
    pub fn delete(&mut self, key: &ObjectKey) -> Change {
        let Some(stored) = self.slices.remove(key) else { return Change::default() };
        if let Some(names) = self.services.get_mut(&stored.service) {
            names.remove(&key.name);
            if names.is_empty() {
                self.services.remove(&stored.service);
            }
        }
        Change { endpoints: BTreeSet::from([stored.service]), ..Change::default() }
    }

    /// Begins a relist.
    pub fn begin_relist(&mut self) {
        self.state.begin();
    }

    /// Ends a relist: slices that it did not show are removed.
    pub fn end_relist(&mut self) -> Change {
        let mut change = Change::default();
        if !self.state.end() {
            return change;
        }
        let relist = self.state.relist;
        let gone = self.slices.iter().filter(|(_, stored)| stored.relist != relist);
        let gone: Vec<ObjectKey> = gone.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            change.merge(self.delete(key));
        }
        change
    }

    /// Whether a relist has ended.
    pub fn is_synced(&self) -> bool {
        self.state.is_synced
    }

    /// The number of slices.
    pub fn slice_count(&self) -> usize {
        self.slices.len()
    }

    /// The Services with slices.
    pub fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    /// The addresses that serve each port of a Service, by the port's name.
    pub fn addresses_by_port(&self, service: &ObjectKey) -> ServiceEndpoints {
        let names: BTreeSet<&str> =
            self.slices_of(service).flat_map(|slice| slice.ports.keys().map(AsRef::as_ref)).collect();
        names.into_iter().map(|name| (name.into(), self.addresses(service, name))).collect()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.state.left_out
    }

    /// All endpoints of a Service with their ports, for display. An endpoint may occur in several slices.
    pub fn endpoints_of_service(
        &self,
        service: &ObjectKey,
    ) -> impl Iterator<Item = (&KnownEndpoint, &BTreeMap<Box<str>, u16>)> {
        self.slices_of(service).flat_map(|slice| slice.endpoints.iter().map(|endpoint| (endpoint, &slice.ports)))
    }

    fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &ReducedSlice> {
        let names = self.services.get(service).into_iter().flatten();
        let keys = names.map(|name| ObjectKey { namespace: Arc::clone(&service.namespace), name: Arc::clone(name) });
        keys.filter_map(|key| self.slices.get(&key)).map(|stored| &*stored.slice)
    }

    /// The addresses that serve the port with this name, sorted: those that are ready, of them those with a hint for
    /// our zone; if none is ready, those that serve while they terminate. Of a Service with both families the IPv4
    /// addresses, if there are any.
    pub fn addresses(&self, service: &ObjectKey, port_name: &str) -> Vec<SocketAddr> {
        let known = self.endpoints_of_service(service);
        let with_port = known.filter_map(|(endpoint, ports)| Some((endpoint, *ports.get(port_name)?)));
        let known: Vec<(&KnownEndpoint, u16)> = with_port.collect();
        let mut chosen = in_state(&known, EndpointState::Ready);
        if chosen.is_empty() {
            chosen = in_state(&known, EndpointState::ServingWhileTerminating);
        }
        if let Some(zone) = &self.zone {
            prefer_zone(&mut chosen, zone);
        }
        let addresses: BTreeSet<SocketAddr> =
            chosen.into_iter().map(|(endpoint, port)| SocketAddr::new(endpoint.address, port)).collect();
        addresses.into_iter().collect()
    }

    /// A slice of names (FQDN) has no addresses.
    fn reduce(&mut self, slice: EndpointSlice) -> ReducedSlice {
        if matches!(slice.address_type, SliceAddressKind::Other(_)) {
            return ReducedSlice::default();
        }
        if slice.endpoints.len() > SLICE_ENDPOINTS_MAX {
            self.state.leave_out();
        }
        let endpoints = slice.endpoints.into_iter().take(SLICE_ENDPOINTS_MAX).filter_map(reduced_endpoint);
        let ports = slice.ports.into_iter().filter(is_tcp).filter_map(|port| Some((port.name, port.port?)));
        ReducedSlice { endpoints: endpoints.collect(), ports: ports.collect() }
    }

    fn keep(&mut self, key: ObjectKey, service: ObjectKey, slice: ReducedSlice) -> Change {
        let relist = self.state.relist;
        if let Some(stored) = self.slices.get_mut(&key)
            && stored.service == service
            && *stored.slice == slice
        {
            stored.relist = relist;
            return Change::default();
        }
        let mut change = self.delete(&key);
        change.endpoints.insert(service.clone());
        self.services.entry(service.clone()).or_default().insert(Arc::clone(&key.name));
        self.slices.insert(key, StoredSlice { service, slice: Arc::new(slice), relist });
        change
    }
}

fn is_tcp(port: &SlicePort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// All addresses of an endpoint are the same pod: the first one counts, as for kube-proxy. Text that is no
/// address makes no endpoint.
fn reduced_endpoint(endpoint: SliceEndpoint) -> Option<KnownEndpoint> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    let zone_hints = endpoint.hints.for_zones.into_iter().map(|hint| hint.name).collect();
    let (zone, node) = (endpoint.zone, endpoint.node_name);
    Some(KnownEndpoint { address, state: state(&endpoint.conditions), zone, node, zone_hints })
}

fn state(conditions: &EndpointConditions) -> EndpointState {
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (ready, serving && conditions.terminating.unwrap_or(false)) {
        (true, _) => EndpointState::Ready,
        (false, true) => EndpointState::ServingWhileTerminating,
        (false, false) => EndpointState::Unready,
    }
}

/// The endpoints in this state: the IPv4 ones, or else the IPv6 ones.
fn in_state<'a>(known: &[(&'a KnownEndpoint, u16)], state: EndpointState) -> Vec<(&'a KnownEndpoint, u16)> {
    let in_state = known.iter().copied().filter(|(endpoint, _)| endpoint.state == state);
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = in_state.partition(|(endpoint, _)| endpoint.address.is_ipv4());
    if ipv4.is_empty() { ipv6 } else { ipv4 }
}

/// Keeps the endpoints with a hint for `zone`. Hints are ignored if an endpoint has none, or if none is for the zone:
/// as kube-proxy does.
fn prefer_zone(chosen: &mut Vec<(&KnownEndpoint, u16)>, zone: &str) {
    let is_for_zone = |endpoint: &KnownEndpoint| endpoint.zone_hints.iter().any(|hint| &**hint == zone);
    let all_have_hints = chosen.iter().all(|(endpoint, _)| !endpoint.zone_hints.is_empty());
    if all_have_hints && chosen.iter().any(|(endpoint, _)| is_for_zone(endpoint)) {
        chosen.retain(|(endpoint, _)| is_for_zone(endpoint));
    }
}

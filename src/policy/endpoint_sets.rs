//! The endpoints of discovered backends: which addresses serve the ports of which services.
//!
//! A discovered backend names a service and a port instead of servers. Its servers are the endpoints that are known
//! when the snapshot is published, and they change between two configurations.
//!
//! Guarantees:
//! - Pure.
//! - A snapshot with other endpoints shares everything else with the snapshot before it, also the backends whose
//!   endpoints are the same.
//!
//! Leaves to others:
//! - the discovery: `kube`;
//! - the publication: `app`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::backend::{Backend, EndpointDiscovery, UpstreamAddress, UpstreamServer};
use super::snapshot::PolicySnapshot;

/// The addresses of one service, by the names of its ports.
pub type ServiceEndpoints = BTreeMap<Box<str>, Vec<SocketAddr>>;

/// The addresses of all services.
#[derive(Clone, Debug, Default)]
pub struct EndpointSets(HashMap<Box<str>, ServiceEndpoints>);

impl EndpointSets {
    /// Replaces the addresses of a service. A service without ports is forgotten.
    pub fn set(&mut self, service: &str, endpoints: ServiceEndpoints) {
        if endpoints.is_empty() {
            self.0.remove(service);
        } else {
            self.0.insert(service.into(), endpoints);
        }
    }

    /// The addresses that serve a port; empty if none is known.
    fn addresses(&self, discovery: &EndpointDiscovery) -> &[SocketAddr] {
        let ports = self.0.get(&*discovery.service);
        ports.and_then(|ports| ports.get(&*discovery.port)).map(Vec::as_slice).unwrap_or_default()
    }
}

impl PolicySnapshot {
    /// Whether both are snapshots of one configuration.
    pub fn differs_only_in_endpoints(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.routes, &other.routes)
    }

    /// This snapshot with the addresses of `sets` in its discovered backends; `None` if it has no address. `known` are
    /// an earlier configuration, and its published snapshot with the addresses of `sets`: it shares its backends.
    pub fn with_known_endpoints(&self, sets: &EndpointSets, known: Option<(&Self, &Self)>) -> Option<Self> {
        let known_as = |backend: &Arc<Backend>| {
            let (configuration, published) = known?;
            let position = *configuration.backend_positions.get(&backend.number)?;
            let is_same = Arc::ptr_eq(&configuration.backends[position], backend);
            published.backends.get(position).filter(|_| is_same).map(Arc::clone)
        };
        let one = |backend: &Arc<Backend>| match known_as(backend) {
            Some(known) => known,
            None => with_addresses(backend, sets).map_or_else(|| Arc::clone(backend), Arc::new),
        };
        let backends: Vec<_> = self.backends.iter().map(one).collect();
        let is_same = backends.iter().zip(&self.backends).all(|(one, other)| Arc::ptr_eq(one, other));
        (!is_same).then(|| Self { backends, ..self.clone() })
    }

    /// This snapshot with the addresses of `sets` in those discovered backends that `concerns` selects; `None` if they
    /// have these addresses.
    pub fn with_endpoints(&self, sets: &EndpointSets, concerns: impl Fn(&EndpointDiscovery) -> bool) -> Option<Self> {
        let one = |(position, backend): (usize, &Arc<Backend>)| {
            backend.discovery.as_ref().filter(|discovery| concerns(discovery))?;
            Some((position, with_addresses(backend, sets)?))
        };
        let changed: Vec<_> = self.backends.iter().enumerate().filter_map(one).collect();
        if changed.is_empty() {
            return None;
        }
        let mut snapshot = self.clone();
        for (position, backend) in changed {
            snapshot.backends[position] = Arc::new(backend);
        }
        Some(snapshot)
    }
}

/// A discovered backend with the addresses of `sets`; `None` if it has them.
fn with_addresses(backend: &Backend, sets: &EndpointSets) -> Option<Backend> {
    let discovery = backend.discovery.as_ref()?;
    let upstreams = discovered_servers(sets.addresses(discovery), discovery);
    (upstreams != backend.upstreams).then(|| Backend { upstreams, ..backend.clone() })
}

/// The servers at these addresses, at most [`Backend::UPSTREAMS_MAX`].
fn discovered_servers(addresses: &[SocketAddr], discovery: &EndpointDiscovery) -> Vec<UpstreamServer> {
    let server = |address: &SocketAddr| UpstreamServer {
        address: UpstreamAddress::Tcp(address.ip().to_string(), address.port()),
        secure: discovery.is_secure,
        authority: address.to_string(),
        max_requests: None,
        weight: 1,
    };
    addresses.iter().take(Backend::UPSTREAMS_MAX).map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_fixtures::compile_with_documents;

    const BACKENDS: &str = r#"{ "backends": [
        { "id": "a", "endpoints": { "service": "apps/a", "port": "http", "secure": false } },
        { "id": "b", "endpoints": { "service": "apps/b", "port": "", "secure": false } },
        { "id": "c", "upstreams": [{ "url": "http://127.0.0.1:1" }] }
    ] }"#;

    fn sets(services: &[(&str, &str, &[&str])]) -> EndpointSets {
        let mut sets = EndpointSets::default();
        for (service, port, addresses) in services {
            let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
            sets.set(service, ServiceEndpoints::from([((*port).into(), addresses)]));
        }
        sets
    }

    fn servers(snapshot: &PolicySnapshot, id: &str) -> Vec<String> {
        let backend = snapshot.backends.iter().find(|backend| backend.id.as_str() == id).expect("a backend");
        backend.upstreams.iter().map(|server| server.authority.clone()).collect()
    }

    #[test]
    fn discovered_backends_have_the_endpoints_of_their_port() {
        let snapshot = compile_with_documents(&[BACKENDS]);
        let known =
            sets(&[("apps/a", "http", &["10.0.0.1:80", "[fd00::1]:80"]), ("apps/b", "other", &["10.0.0.2:80"])]);

        let filled = snapshot.with_endpoints(&known, |_| true).expect("a change");

        assert_eq!(servers(&filled, "a"), ["10.0.0.1:80", "[fd00::1]:80"]);
        assert_eq!(filled.backends[0].upstreams[1].address, UpstreamAddress::Tcp("fd00::1".to_owned(), 80));
        assert_eq!(servers(&filled, "b"), [""; 0], "the service has no such port");
        assert_eq!(servers(&filled, "c"), ["127.0.0.1:1"], "listed by the configuration");
    }

    #[test]
    fn what_is_the_same_is_shared() {
        let empty = compile_with_documents(&[BACKENDS]);
        assert!(empty.with_endpoints(&EndpointSets::default(), |_| true).is_none());
        let known = sets(&[("apps/a", "http", &["10.0.0.1:80"]), ("apps/b", "", &["10.0.0.2:80"])]);
        assert!(empty.with_endpoints(&known, |_| false).is_none(), "none is concerned");
        let filled = empty.with_endpoints(&known, |_| true).expect("a change");
        assert!(filled.with_endpoints(&known, |_| true).is_none());

        let known = sets(&[("apps/a", "http", &["10.0.0.9:80"]), ("apps/b", "", &["10.0.0.2:80"])]);
        let next = filled.with_endpoints(&known, |_| true).expect("a change");

        let is_shared = |at: usize| Arc::ptr_eq(&next.backends[at], &filled.backends[at]);
        assert_eq!([is_shared(0), is_shared(1), is_shared(2)], [false, true, true]);
        assert!(next.differs_only_in_endpoints(&filled) && Arc::ptr_eq(&next.subsystems, &empty.subsystems));
        assert!(!next.differs_only_in_endpoints(&compile_with_documents(&[BACKENDS])), "another configuration");
        assert!(filled.difference(&next).is_empty(), "endpoints are no part of the configuration");
    }

    #[test]
    fn a_service_without_ports_is_forgotten() {
        let mut known = sets(&[("apps/a", "http", &["10.0.0.1:80"])]);
        let filled = compile_with_documents(&[BACKENDS]).with_endpoints(&known, |_| true).expect("a change");
        known.set("apps/a", ServiceEndpoints::default());
        assert!(known.0.is_empty());

        let gone = filled.with_endpoints(&known, |one| &*one.service == "apps/a").expect("a change");

        assert_eq!(servers(&gone, "a"), [""; 0]);
    }
}

//! The endpoints of Services, shared by the path that makes them live and the translation, which compares the endpoints
//! of the Services of Gateways.
//!
//! Guarantees: the lock is held for one event or one lookup, never while something else is waited for.
//!
//! Leaves to others: the choice of endpoints (`endpoints`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::change::Change;
use super::endpoints::{EndpointIndex, KnownEndpoint};
use super::event::IndexEvent;
use crate::kube::objects::ObjectKey;
use crate::policy::ServiceEndpoints;

/// A handle to the endpoints of all Services. Cheap to clone; all clones show the same endpoints.
#[derive(Clone, Debug, Default)]
pub struct SharedEndpoints(Arc<Mutex<EndpointIndex>>);

impl SharedEndpoints {
    /// Takes an event of the watch of EndpointSlices.
    pub fn take(&self, event: IndexEvent) -> Change {
        self.lock().take(event)
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        self.lock().is_synced()
    }

    /// The Services with endpoints.
    pub fn services(&self) -> Vec<ObjectKey> {
        self.lock().services().cloned().collect()
    }

    /// The addresses that serve each port of a Service; see [`EndpointIndex::addresses`].
    pub fn addresses_by_port(&self, service: &ObjectKey) -> ServiceEndpoints {
        self.lock().addresses_by_port(service)
    }

    /// All endpoints of a Service with their ports; see [`EndpointIndex::endpoints_of_service`].
    pub fn endpoints_of_service(&self, service: &ObjectKey) -> Vec<(KnownEndpoint, BTreeMap<Box<str>, u16>)> {
        let endpoints = self.lock();
        let known = endpoints.endpoints_of_service(service);
        known.map(|(endpoint, ports)| (endpoint.clone(), ports.clone())).collect()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, EndpointIndex> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

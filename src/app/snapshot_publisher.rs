//! The publication of policy snapshots: by a reload, and when the endpoints of a discovered backend change.
//!
//! Guarantees:
//! - A published snapshot has the latest endpoints, although its configuration was loaded before they changed.
//! - A backend that a new configuration does not change is the same value in the snapshots before and after.
//! - A change of endpoints waits for at most one other publication, and never for the load of a configuration. It takes
//!   time in proportion to the number of backends, not to that of routes, and allocates for the backends that change.
//! - No thread with traffic drops a snapshot: replaced ones are kept until nothing else refers to them.
//!
//! Leaves to others: the configuration (`reload`), and the discovery (`kube`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::policy::{EndpointSets, PolicySnapshot, ServiceEndpoints};

/// The services of which the endpoints change, each with its endpoints; see [`EndpointSets::set`].
pub(crate) type EndpointChanges = Vec<(String, ServiceEndpoints)>;

/// Publishes snapshots.
#[derive(Debug)]
pub(crate) struct SnapshotPublisher {
    published: Arc<ArcSwap<PolicySnapshot>>,
    state: Mutex<PublisherState>,
}

#[derive(Debug, Default)]
struct PublisherState {
    endpoints: EndpointSets,
    /// Whether the endpoints are those of the cluster, not those of an earlier process.
    is_discovered: bool,
    /// The configuration of the published snapshot, without discovered endpoints.
    configuration: Option<Arc<PolicySnapshot>>,
    /// Replaced snapshots that a worker or a command may still hold.
    retired: Vec<Arc<PolicySnapshot>>,
}

impl SnapshotPublisher {
    /// A publisher that replaces the value of `published`.
    pub(crate) fn new(published: Arc<ArcSwap<PolicySnapshot>>) -> Self {
        Self { published, state: Mutex::default() }
    }

    /// Publishes the snapshot of a new configuration.
    pub(crate) fn publish(&self, snapshot: &Arc<PolicySnapshot>) {
        let mut state = self.lock();
        let live = self.published.load();
        let known = state.configuration.as_deref().map(|configuration| (configuration, &**live));
        let discovered = snapshot.with_known_endpoints(&state.endpoints, known);
        state.configuration = Some(Arc::clone(snapshot));
        self.swap(&mut state, discovered.map_or_else(|| Arc::clone(snapshot), Arc::new));
    }

    /// Replaces the endpoints of these services, also in the published snapshot.
    pub(crate) fn set_endpoints(&self, changes: EndpointChanges) {
        let mut state = self.lock();
        let mut changed = HashSet::with_capacity(changes.len());
        for (service, endpoints) in changes {
            state.endpoints.set(&service, endpoints);
            changed.insert(service);
        }
        let current = self.published.load();
        if let Some(snapshot) = current.with_endpoints(&state.endpoints, |one| changed.contains(&*one.service)) {
            self.swap(&mut state, Arc::new(snapshot));
        }
    }

    /// Replaces the endpoints of all services, also in the published snapshot.
    pub(crate) fn replace_endpoints(&self, all: EndpointChanges) {
        let mut state = self.lock();
        state.is_discovered = true;
        self.replace_in(&mut state, all);
    }

    /// Sets the endpoints of an earlier process, unless those of the cluster are known: these are newer.
    pub(crate) fn seed_endpoints(&self, all: EndpointChanges) {
        let mut state = self.lock();
        if !state.is_discovered {
            self.replace_in(&mut state, all);
        }
    }

    fn replace_in(&self, state: &mut PublisherState, all: EndpointChanges) {
        state.endpoints = EndpointSets::default();
        all.into_iter().for_each(|(service, endpoints)| state.endpoints.set(&service, endpoints));
        if let Some(snapshot) = self.published.load().with_endpoints(&state.endpoints, |_| true) {
            self.swap(state, Arc::new(snapshot));
        }
    }

    /// Drops the replaced snapshots without other references.
    pub(crate) fn drop_unused(&self) {
        Self::retain_used(&mut self.lock());
    }

    fn swap(&self, state: &mut PublisherState, snapshot: Arc<PolicySnapshot>) {
        state.retired.push(self.published.swap(snapshot));
        Self::retain_used(state);
    }

    fn retain_used(state: &mut PublisherState) {
        state.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, PublisherState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_fixtures::compile_with_documents;

    fn snapshot() -> Arc<PolicySnapshot> {
        let endpoints = r#"{ "service": "apps/a", "port": "", "secure": false }"#;
        compile_with_documents(&[&format!(r#"{{ "backends": [{{ "id": "a", "endpoints": {endpoints} }}] }}"#)])
    }

    fn publisher() -> SnapshotPublisher {
        SnapshotPublisher::new(Arc::new(ArcSwap::new(snapshot())))
    }

    fn change(service: &str, addresses: &[&str]) -> EndpointChanges {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address")).collect();
        vec![(service.to_owned(), ServiceEndpoints::from([("".into(), addresses)]))]
    }

    fn servers(publisher: &SnapshotPublisher) -> Vec<String> {
        let published = publisher.published.load();
        published.backends[0].upstreams.iter().map(|server| server.authority.clone()).collect()
    }

    #[test]
    fn endpoints_are_live_at_once_and_in_every_later_configuration() {
        let publisher = publisher();
        assert_eq!(servers(&publisher), [""; 0]);
        publisher.set_endpoints(change("apps/a", &["10.0.0.1:80"]));
        assert_eq!(servers(&publisher), ["10.0.0.1:80"]);
        // The load of this configuration began before the next change.
        let loaded = snapshot();
        publisher.set_endpoints(change("apps/a", &["10.0.0.2:80"]));
        publisher.publish(&loaded);
        assert_eq!(servers(&publisher), ["10.0.0.2:80"]);
    }

    #[test]
    fn a_complete_list_replaces_all_others() {
        let publisher = publisher();
        publisher.set_endpoints(change("apps/a", &["10.0.0.1:80"]));
        publisher.replace_endpoints(change("apps/b", &["10.0.0.2:80"]));
        assert_eq!(servers(&publisher), [""; 0]);
    }

    #[test]
    fn endpoints_of_an_earlier_process_never_replace_those_of_the_cluster() {
        let publisher = publisher();
        publisher.seed_endpoints(change("apps/a", &["10.0.0.1:80"]));
        assert_eq!(servers(&publisher), ["10.0.0.1:80"]);
        publisher.replace_endpoints(change("apps/a", &["10.0.0.2:80"]));
        publisher.seed_endpoints(change("apps/a", &["10.0.0.1:80"]));
        assert_eq!(servers(&publisher), ["10.0.0.2:80"]);
    }

    #[test]
    fn endpoints_of_others_publish_nothing() {
        let publisher = publisher();
        let before = publisher.published.load_full();
        publisher.set_endpoints(change("apps/other", &["10.0.0.1:80"]));
        assert!(Arc::ptr_eq(&before, &publisher.published.load()));
    }

    #[test]
    fn a_replaced_snapshot_is_kept_while_a_worker_holds_it() {
        let publisher = publisher();
        let held = publisher.published.load_full();
        let weak = Arc::downgrade(&held);
        publisher.set_endpoints(change("apps/a", &["10.0.0.1:80"]));
        publisher.drop_unused();
        assert_eq!(weak.strong_count(), 2, "the worker's reference is not the last one");
        drop(held);
        publisher.drop_unused();
        assert!(weak.upgrade().is_none());
    }
}

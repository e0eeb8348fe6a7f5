//! The path of endpoints: from the watch of EndpointSlices to the data plane, beside the loop of the controller.
//!
//! Guarantees:
//! - No translation and no load of a configuration delays a change of endpoints.
//! - The data plane has the endpoints of a complete list, and then every change. The first complete list replaces what
//!   the data plane had before: a part of a list would look like endpoints that are gone.
//! - Changes that wait together are applied together, at most [`EVENTS_MAX`] at a time.
//!
//! Leaves to others: which backend has which endpoints (`translate`), and the publication (`app`).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::data_plane::DataPlane;
use crate::kube::index::{Change, IndexEvent, SharedEndpoints};
use crate::kube::objects::ObjectKey;
use crate::kube::watch::EVENTS_MAX;

/// The Services of which the endpoints have changed in the data plane, for the loop of the controller.
#[derive(Debug, Default)]
pub(super) struct EndpointNews {
    changed: Mutex<BTreeSet<ObjectKey>>,
    notify: Notify,
}

impl EndpointNews {
    /// Waits for news and takes them.
    pub(super) async fn take(&self) -> BTreeSet<ObjectKey> {
        self.notify.notified().await;
        std::mem::take(&mut self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, services: impl IntoIterator<Item = ObjectKey>) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(services);
        self.notify.notify_one();
    }
}

/// Follows the events until the watch ends.
pub(super) async fn follow_endpoints(
    mut events: mpsc::Receiver<IndexEvent>,
    endpoints: SharedEndpoints,
    data_plane: Arc<dyn DataPlane>,
    news: Arc<EndpointNews>,
) {
    let mut waiting = Vec::with_capacity(EVENTS_MAX);
    let mut is_live = false;
    while events.recv_many(&mut waiting, EVENTS_MAX).await > 0 {
        let mut change = Change::default();
        waiting.drain(..).for_each(|event| change.merge(endpoints.take(event)));
        if !endpoints.is_synced() {
            continue;
        }
        let is_first = !std::mem::replace(&mut is_live, true);
        if is_first {
            change.endpoints.extend(endpoints.services());
            tracing::info!(services = change.endpoints.len(), "the endpoints of all services are known");
        } else if change.endpoints.is_empty() {
            continue;
        }
        let with_addresses = |service: &ObjectKey| (service.clone(), endpoints.addresses_by_port(service));
        let list = change.endpoints.iter().map(with_addresses).collect();
        match is_first {
            true => data_plane.replace_endpoints(list),
            false => data_plane.set_endpoints(list),
        }
        news.add(change.endpoints);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::config::{ConfigProblems, ExcludedSource};
    use crate::kube::controller::data_plane::EndpointList;
    use crate::kube::objects::ObjectKind;
    use crate::kube::translate::MemoryTextMap;
    use crate::policy::ServiceEndpoints;

    /// Keeps what it is given.
    #[derive(Default)]
    struct RecordingPlane {
        endpoints: Mutex<BTreeMap<String, Vec<String>>>,
    }

    impl DataPlane for RecordingPlane {
        fn apply(
            &self,
            _: &str,
            _: &crate::kube::translate::DocumentList,
            _: &MemoryTextMap,
        ) -> Result<Vec<ExcludedSource>, ConfigProblems> {
            Ok(Vec::new())
        }

        fn seed_endpoints(&self, all: EndpointList) {
            self.replace_endpoints(all);
        }

        fn replace_endpoints(&self, all: EndpointList) {
            self.endpoints.lock().unwrap().clear();
            self.set_endpoints(all);
        }

        fn set_endpoints(&self, changes: EndpointList) {
            let text = |(service, ports): (ObjectKey, ServiceEndpoints)| {
                let addresses = ports.values().flatten().map(ToString::to_string).collect();
                (service.to_string(), addresses)
            };
            self.endpoints.lock().unwrap().extend(changes.into_iter().map(text));
        }

        fn live_listeners(&self) -> BTreeSet<String> {
            BTreeSet::new()
        }

        fn set_ready(&self) {}
    }

    fn apply(service: &str, addresses: &[&str]) -> IndexEvent {
        let endpoints: Vec<_> = addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
        let labels = json!({ "kubernetes.io/service-name": service });
        let slice = json!({
            "metadata": { "namespace": "apps", "name": service, "labels": labels },
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{ "name": "http", "port": 80 }],
        });
        IndexEvent::Apply(ObjectKind::EndpointSlice, slice)
    }

    struct Bench {
        events: mpsc::Sender<IndexEvent>,
        plane: Arc<RecordingPlane>,
        news: Arc<EndpointNews>,
    }

    impl Bench {
        fn start() -> Self {
            let (sender, events) = mpsc::channel(EVENTS_MAX);
            let (plane, news) = (Arc::new(RecordingPlane::default()), Arc::new(EndpointNews::default()));
            let of_task: Arc<dyn DataPlane> = Arc::clone(&plane) as _;
            tokio::spawn(follow_endpoints(events, SharedEndpoints::default(), of_task, Arc::clone(&news)));
            Self { events: sender, plane, news }
        }

        async fn send(&self, events: impl IntoIterator<Item = IndexEvent>) {
            for event in events {
                self.events.send(event).await.unwrap();
            }
        }

        async fn news(&self) -> Vec<String> {
            self.news.take().await.iter().map(ToString::to_string).collect()
        }

        fn live(&self, service: &str) -> Option<Vec<String>> {
            self.plane.endpoints.lock().unwrap().get(service).cloned()
        }
    }

    #[tokio::test]
    async fn nothing_is_live_before_the_first_list_is_complete() {
        let bench = Bench::start();
        bench.send([IndexEvent::Begin(ObjectKind::EndpointSlice), apply("shop", &["10.0.0.1"])]).await;
        while bench.events.capacity() < EVENTS_MAX {
            tokio::task::yield_now().await; // both events are taken
        }
        assert_eq!(bench.live("apps/shop"), None);

        bench.send([IndexEvent::End(ObjectKind::EndpointSlice)]).await;

        assert_eq!(bench.news().await, ["apps/shop"]);
        assert_eq!(bench.live("apps/shop"), Some(vec!["10.0.0.1:80".to_owned()]));
    }

    #[tokio::test]
    async fn a_change_is_live_and_names_its_service() {
        let bench = Bench::start();
        let first = [apply("shop", &["10.0.0.1", "10.0.0.2"]), apply("other", &["10.0.0.9"])];
        let (begin, end) = (ObjectKind::EndpointSlice, ObjectKind::EndpointSlice);
        bench.send([IndexEvent::Begin(begin)].into_iter().chain(first).chain([IndexEvent::End(end)])).await;
        while bench.live("apps/other").is_none() {
            bench.news().await;
        }

        bench.send([apply("shop", &["10.0.0.2"])]).await;
        assert_eq!(bench.news().await, ["apps/shop"]);
        assert_eq!(bench.live("apps/shop"), Some(vec!["10.0.0.2:80".to_owned()]));

        bench.send([IndexEvent::Delete(ObjectKind::EndpointSlice, ObjectKey::new("apps", "shop"))]).await;
        assert_eq!(bench.news().await, ["apps/shop"]);
        assert_eq!(bench.live("apps/shop"), Some(vec![]));
    }

    #[tokio::test]
    async fn a_list_without_slices_is_complete_too() {
        let bench = Bench::start();
        bench.send([IndexEvent::Begin(ObjectKind::EndpointSlice), IndexEvent::End(ObjectKind::EndpointSlice)]).await;
        assert_eq!(bench.news().await, [""; 0]);
    }
}

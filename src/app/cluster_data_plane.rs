//! The data plane as the Kubernetes controller sees it: documents and texts in memory, made live by a reload.
//!
//! Guarantees:
//! - `apply` returns after the reload: what it reports is live, or is known to be rejected.
//! - Texts are in place before the documents that name them, and are removed after these are gone.
//! - A document that is the same as before is not parsed again.
//! - The gateway is not ready until the first configuration of the cluster is live.
//!
//! Leaves to others: what the documents say (`kube`), and the reload itself (`reload`).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::config::{ConfigProblems, ExcludedSource, MemoryDocument, MemoryDocuments, SharedDocuments};
use crate::identity::MemoryTexts;
use crate::kube::controller::{ControllerGauge, DataPlane, EndpointList};
use crate::kube::translate::{MemoryTextMap, NamedDocument};
use crate::lifecycle::{Readiness, ReadinessBlock};
use crate::telemetry::ConfigStatus;

use super::live_listeners::LiveListeners;
use super::reload::ReloadHandle;
use super::snapshot_publisher::{EndpointChanges, SnapshotPublisher};

/// The documents and texts of a cluster, shared with the loader of the configuration. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClusterDocuments {
    pub(crate) documents: SharedDocuments,
    pub(crate) texts: MemoryTexts,
    /// What the controller counts.
    pub(crate) gauge: Arc<ControllerGauge>,
}

/// Documents by their names, each as the loader takes it.
type ParsedDocuments = HashMap<Arc<str>, (Arc<NamedDocument>, MemoryDocument)>;

/// The data plane of this process.
pub struct ClusterDataPlane {
    cluster: ClusterDocuments,
    reload: ReloadHandle,
    live: LiveListeners,
    publisher: Arc<SnapshotPublisher>,
    status: Arc<ArcSwap<ConfigStatus>>,
    parsed: Mutex<ParsedDocuments>,
    /// Held until the first configuration of the cluster is live.
    unready: Mutex<Option<ReadinessBlock>>,
}

impl ClusterDataPlane {
    pub(crate) fn new(
        cluster: ClusterDocuments,
        (reload, live, publisher): (ReloadHandle, LiveListeners, Arc<SnapshotPublisher>),
        status: Arc<ArcSwap<ConfigStatus>>,
        ready: &Readiness,
    ) -> Self {
        let unready = Mutex::new(Some(ready.block("the first configuration of the cluster")));
        Self { cluster, reload, live, publisher, status, parsed: Mutex::default(), unready }
    }

    /// What the controller of this data plane counts.
    pub(crate) fn gauge(&self) -> Arc<ControllerGauge> {
        Arc::clone(&self.cluster.gauge)
    }

    /// The documents as the loader takes them. Those that cannot be read are among them, with their problems.
    fn parse(&self, documents: &[Arc<NamedDocument>]) -> Vec<MemoryDocument> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut known, mut all) = (HashMap::with_capacity(documents.len()), Vec::with_capacity(documents.len()));
        for named in documents {
            let before = parsed.remove(named.name()).filter(|(before, _)| Arc::ptr_eq(before, named));
            let document = match before {
                Some((_, document)) => document,
                None => MemoryDocument::readable_or_faulty(named.name(), &named.content()),
            };
            all.push(document.clone());
            known.insert(Arc::clone(named.name()), (Arc::clone(named), document));
        }
        *parsed = known;
        all
    }

    fn set_texts(&self, texts: &MemoryTextMap) -> Result<(), ConfigProblems> {
        let set = |(name, text): (&String, &bytes::Bytes)| self.cluster.texts.set(name, text.to_vec());
        let result = texts.0.iter().try_for_each(set);
        result.map_err(|error| ConfigProblems::of_whole_file(error.to_string()))
    }
}

/// The services by the names that the documents have for them.
fn named(list: EndpointList) -> EndpointChanges {
    list.into_iter().map(|(service, endpoints)| (service.to_string(), endpoints)).collect()
}

impl DataPlane for ClusterDataPlane {
    fn apply(
        &self,
        version: &str,
        documents: &[Arc<NamedDocument>],
        texts: &MemoryTextMap,
    ) -> Result<Vec<ExcludedSource>, ConfigProblems> {
        self.set_texts(texts)?;
        let documents = self.parse(documents);
        self.cluster.documents.store(Arc::new(MemoryDocuments { version: version.to_owned(), documents }));
        self.reload.request()?;
        self.cluster.texts.retain(|name| texts.0.contains_key(name));
        Ok(self.status.load().excluded.clone())
    }

    fn set_endpoints(&self, changes: EndpointList) {
        self.publisher.set_endpoints(named(changes));
    }

    fn replace_endpoints(&self, all: EndpointList) {
        self.publisher.replace_endpoints(named(all));
    }

    fn seed_endpoints(&self, all: EndpointList) {
        self.publisher.seed_endpoints(named(all));
    }

    fn live_listeners(&self) -> BTreeSet<String> {
        self.live.current().listeners.iter().map(|listener| listener.name.to_string()).collect()
    }

    fn set_ready(&self) {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

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
use crate::kube::translate::{DocumentList, MemoryTextMap, NamedDocument};
use crate::lifecycle::{Readiness, ReadinessBlock};
use crate::model::PagedList;
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

/// Pages of documents, each with the same documents as the loader takes them.
type ParsedPages = Vec<(Arc<[Arc<NamedDocument>]>, Arc<[MemoryDocument]>)>;

/// The data plane of this process.
pub struct ClusterDataPlane {
    cluster: ClusterDocuments,
    reload: ReloadHandle,
    live: LiveListeners,
    publisher: Arc<SnapshotPublisher>,
    status: Arc<ArcSwap<ConfigStatus>>,
    parsed: Mutex<ParsedPages>,
    /// Held until the first configuration of the cluster is live.
    unready: Mutex<Option<ReadinessBlock>>,
}

/// What to do about a cluster that is not known yet.
const CLUSTER_REMEDY: &str = "look at tallygate_kube_watch_state on /metrics: the API server must be reachable, and each kind must have been listed";

impl ClusterDataPlane {
    pub(crate) fn new(
        cluster: ClusterDocuments,
        (reload, live, publisher): (ReloadHandle, LiveListeners, Arc<SnapshotPublisher>),
        status: Arc<ArcSwap<ConfigStatus>>,
        ready: &Readiness,
    ) -> Self {
        let unready = Mutex::new(Some(ready.block("the first configuration of the cluster", CLUSTER_REMEDY)));
        Self { cluster, reload, live, publisher, status, parsed: Mutex::default(), unready }
    }

    /// What the controller of this data plane counts.
    pub(crate) fn gauge(&self) -> Arc<ControllerGauge> {
        Arc::clone(&self.cluster.gauge)
    }

    /// The documents as the loader takes them. Those that cannot be read are among them, with their problems.
    fn parse(&self, documents: &DocumentList) -> PagedList<MemoryDocument> {
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *parsed);
        let mut known: HashMap<*const Arc<NamedDocument>, _> =
            before.into_iter().map(|page| (page.0.as_ptr(), page)).collect();
        let pages = documents.pages().iter().map(|page| known.remove(&page.as_ptr()).ok_or(page));
        let pages: Vec<_> = pages.collect();
        // What is left are pages of which some documents may be in a new page.
        let documents_of = |(named, parsed): &(Arc<[Arc<NamedDocument>]>, Arc<[MemoryDocument]>)| {
            let named: Vec<_> = named.iter().map(Arc::as_ptr).collect();
            named.into_iter().zip(parsed.to_vec())
        };
        let changed: HashMap<*const NamedDocument, MemoryDocument> = known.values().flat_map(documents_of).collect();
        let parse_one = |named: &Arc<NamedDocument>| match changed.get(&Arc::as_ptr(named)) {
            Some(document) => document.clone(),
            None => MemoryDocument::readable_or_faulty(named.name(), &named.content()),
        };
        let mut all = PagedList::default();
        for page in pages {
            let (named, page) =
                page.unwrap_or_else(|page| (Arc::clone(page), page.iter().map(parse_one).collect::<Arc<[_]>>()));
            all.push_page(Arc::clone(&page));
            parsed.push((named, page));
        }
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
        documents: &DocumentList,
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

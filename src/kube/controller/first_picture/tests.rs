//! The start of a controller whose API server is away, silent, or there, with and without a last good configuration.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::last_good::samples;
use super::super::last_good::tests::FailingDisk;
use super::*;
use crate::config::{ConfigProblems, ExcludedSource};
use crate::kube::controller::{ControllerSettings, EndpointList, run_controller};
use crate::kube::fake_api::{FakeAnswer, SeenRequest, SeenRequests, fake_api};
use crate::kube::lease::{LeaseSettings, LeaseTimes};
use crate::kube::objects::ObjectKind;
use crate::kube::translate::{DocumentList, MemoryTextMap, ServiceSettings};
use crate::lifecycle::{DrainTrigger, drain};

/// The longest time that a test waits for a state.
const WAIT_MAX: Duration = Duration::from_secs(20);

const AWAY: u8 = 0;
const SILENT: u8 = 1;
const THERE: u8 = 2;

/// A data plane that takes everything, and logs the names of the documents.
#[derive(Debug, Default)]
struct LoggingPlane {
    applied: Mutex<Vec<Vec<String>>>,
    endpoints: Mutex<Vec<String>>,
    ready: std::sync::atomic::AtomicBool,
}

impl DataPlane for LoggingPlane {
    fn apply(
        &self,
        _version: &str,
        documents: &DocumentList,
        _texts: &MemoryTextMap,
    ) -> Result<Vec<ExcludedSource>, ConfigProblems> {
        let names = documents.iter().map(|document| document.name().to_string()).collect();
        self.applied.lock().unwrap().push(names);
        Ok(Vec::new())
    }

    fn set_endpoints(&self, changes: EndpointList) {
        self.endpoints.lock().unwrap().extend(changes.into_iter().map(|(service, _)| service.to_string()));
    }

    fn seed_endpoints(&self, all: EndpointList) {
        self.replace_endpoints(all);
    }

    fn replace_endpoints(&self, all: EndpointList) {
        self.endpoints.lock().unwrap().clear();
        self.set_endpoints(all);
    }

    fn live_listeners(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

/// What the API server has of a kind.
fn objects_of(plural: &str) -> Vec<Value> {
    match plural {
        "ingressclasses" => vec![json!({ "metadata": { "name": "tallygate", "resourceVersion": "1" },
            "spec": { "controller": crate::kube::CONTROLLER_NAME } })],
        "ingresses" => vec![json!({ "metadata": { "namespace": "shop", "name": "web", "resourceVersion": "1" },
            "spec": { "ingressClassName": "tallygate", "rules": [{ "host": "shop.example", "http": { "paths": [
                { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "number": 80 } } } }
            ] } }] } })],
        _ => vec![],
    }
}

fn answer(request: &SeenRequest) -> FakeAnswer {
    let last = request.path.rsplit('/').next().unwrap_or_default();
    if request.path.contains("/leases") || request.path.contains("/events") {
        return FakeAnswer::status(403, "Forbidden");
    }
    if request.is_streaming_list() {
        let added = objects_of(last).into_iter().map(|object| json!({ "type": "ADDED", "object": object }));
        let mark = json!({ "type": "BOOKMARK", "object": { "apiVersion": "v1", "kind": "List", "metadata": {
            "resourceVersion": "5", "annotations": { "k8s.io/initial-events-end": "true" } } } });
        return FakeAnswer::LinesThenSilence(added.chain([mark]).collect());
    }
    if request.is_watch() {
        return FakeAnswer::LinesThenSilence(vec![]);
    }
    // A question about versions: all kinds are served.
    let resources = ObjectKind::ALL.map(|kind| {
        let api = kind.api();
        json!({ "name": api.plural, "singularName": "", "namespaced": api.namespaced, "kind": api.kind, "verbs": [] })
    });
    FakeAnswer::ok(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": last,
        "resources": resources }))
}

/// A controller with a fake API server, and a store in a temporary folder.
struct ControllerBench {
    _folder: tempfile::TempDir,
    store: Arc<LastGoodStore>,
    disk: FailingDisk,
    server: Arc<AtomicU8>,
    seen: SeenRequests,
    plane: Arc<LoggingPlane>,
    gauge: Arc<ControllerGauge>,
    running: Option<(DrainTrigger, JoinHandle<()>)>,
}

impl ControllerBench {
    fn new(server: u8) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = FailingDisk::default();
        let store = LastGoodStore::new(folder.path().join("last-good"), Box::new(disk.clone()));
        Self {
            _folder: folder,
            store: Arc::new(store),
            disk,
            server: Arc::new(AtomicU8::new(server)),
            seen: SeenRequests::default(),
            plane: Arc::default(),
            gauge: Arc::default(),
            running: None,
        }
    }

    /// Writes the last good configuration of an earlier process.
    fn write_last_good(&self) {
        let sample = samples::sample();
        self.store.write(&samples::to_write(&sample)).unwrap();
    }

    fn start(&mut self, wait: Duration) {
        let server = Arc::clone(&self.server);
        let (client, seen) = fake_api(move |request| match server.load(Ordering::Relaxed) {
            AWAY => FakeAnswer::Broken,
            SILENT => FakeAnswer::Silence,
            _ => answer(request),
        });
        self.seen = seen;
        let settings = ControllerSettings {
            services: ServiceSettings { namespace: "system".to_owned(), proxy_protocol: Vec::new() },
            lease: LeaseSettings {
                namespace: "system".to_owned(),
                name: "lease".to_owned(),
                identity: "test".to_owned(),
                times: LeaseTimes::default(),
            },
            scope: crate::kube::watch::WatchScope::default(),
            last_good: Some(LastGoodSettings { store: Arc::clone(&self.store), wait }),
        };
        let (trigger, watcher) = drain();
        let plane: Arc<dyn DataPlane> = Arc::clone(&self.plane) as Arc<dyn DataPlane>;
        let parts = (plane, Arc::clone(&self.gauge), Clock::system());
        self.running = Some((trigger, tokio::spawn(run_controller(client, settings, parts, watcher))));
    }

    fn applied(&self) -> Vec<Vec<String>> {
        self.plane.applied.lock().unwrap().clone()
    }

    fn is_ready(&self) -> bool {
        self.plane.ready.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn until(&self, is_so: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let poll = async {
                while !is_so(self) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let applied = || self.applied();
            timeout(WAIT_MAX, poll).await.unwrap_or_else(|_| panic!("{place}: {:?} {:?}", applied(), self.seen));
        }
    }

    async fn stop(&mut self) {
        let (trigger, task) = self.running.take().unwrap();
        trigger.begin();
        timeout(WAIT_MAX, task).await.unwrap().unwrap();
    }
}

/// The documents of the last good configuration.
fn last_good_names() -> Vec<String> {
    vec!["Gateway a/web".to_owned(), "HTTPRoute a/cart".to_owned()]
}

fn has_ingress(names: &[String]) -> bool {
    names.iter().any(|name| name.starts_with("Ingress shop/web"))
}

#[tokio::test]
async fn last_good_configuration_is_served_until_the_cluster_has_been_listed() {
    for (state, wait) in [(AWAY, Duration::from_secs(60)), (SILENT, Duration::from_millis(200))] {
        let mut bench = ControllerBench::new(state);
        bench.write_last_good();
        bench.start(wait); // an unreachable server is not waited for
        bench.until(|bench| bench.is_ready()).await;
        assert_eq!(bench.applied(), [last_good_names()]);
        let served = bench.gauge.served_last_good().expect("it is shown");
        assert_eq!(served.written_at.to_string(), "2026-11-30T04:00:00Z");
        if state == SILENT {
            bench.stop().await; // its requests hang for longer than a test
            continue;
        }
        bench.server.store(THERE, Ordering::Relaxed);
        bench.until(|bench| bench.gauge.served_last_good().is_none()).await;
        let applied = bench.applied();
        assert_eq!(applied.len(), 2, "nothing in between: {applied:?}");
        assert!(has_ingress(&applied[1]), "{applied:?}");
        bench.stop().await;
        let written = bench.store.read().unwrap().expect("the last write is made before the end");
        assert!(written.documents.iter().any(|document| document.name().starts_with("Ingress shop/web")));
    }
}

#[tokio::test]
async fn picture_that_comes_in_time_is_the_first_configuration_and_is_kept() {
    let mut bench = ControllerBench::new(THERE);
    bench.write_last_good();
    bench.start(Duration::from_secs(60));
    bench.until(|bench| bench.is_ready()).await;
    assert!(!bench.disk.log.lock().unwrap().contains(&"read"), "the file is read only when it is needed");
    assert!(has_ingress(&bench.applied()[0]), "{:?}", bench.applied());
    assert!(bench.gauge.served_last_good().is_none());
    let is_written = |bench: &ControllerBench| {
        let read = bench.store.read().unwrap().expect("never without a file");
        read.documents.iter().any(|document| document.name().starts_with("Ingress shop/web"))
    };
    bench.until(is_written).await;
    bench.until(|bench| bench.gauge.view().last_good.written_at.is_some()).await;
    let before = std::fs::metadata(bench.store.path()).unwrap().modified().unwrap();
    bench.stop().await;
    assert_eq!(std::fs::metadata(bench.store.path()).unwrap().modified().unwrap(), before, "nothing has changed");
}

#[tokio::test]
async fn without_a_usable_file_the_gateway_waits_for_the_api_server() {
    for altered in [false, true] {
        let mut bench = ControllerBench::new(AWAY);
        if altered {
            bench.write_last_good();
            let text = std::fs::read_to_string(bench.store.path()).unwrap().replace("cart", "card");
            std::fs::write(bench.store.path(), text).unwrap();
        }
        bench.start(Duration::ZERO);
        bench.until(|bench| bench.seen.lock().unwrap().len() > 2 * ObjectKind::ALL.len()).await;
        assert!(!bench.is_ready() && bench.applied().is_empty(), "{:?}", bench.applied());
        bench.server.store(THERE, Ordering::Relaxed);
        bench.until(|bench| bench.is_ready()).await;
        bench.until(|bench| bench.store.read().is_ok_and(|read| read.is_some())).await;
        bench.stop().await;
    }
}

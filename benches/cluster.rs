//! What a change of a cluster costs with 5,000 routes: the translation of all objects, documents with one new route
//! until they are live, both together, one changed route, and one change of endpoints until it is live.
//!
//! The gateway runs without traffic. The time in which a worker takes a new snapshot up is not included.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use tallygate::app::{self, ClusterDataPlane, ClusterDocuments, RunningGateway, StartOptions};
use tallygate::clock::Clock;
use tallygate::kube::CONTROLLER_NAME;
use tallygate::kube::controller::DataPlane;
use tallygate::kube::index::Index;
use tallygate::kube::objects::{ObjectKey, ObjectKind};
use tallygate::kube::translate::{AuthorityDigests, ServiceSettings, TextCheck, Translation, Translator, translate};
use tallygate::policy::ServiceEndpoints;

const ROUTES: usize = 5_000;
const SERVICES: usize = 500;

/// No object of the bench has a certificate.
struct NoTexts;

impl TextCheck for NoTexts {
    fn check_key_pair(&self, _: &Bytes, _: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn check_client_pair(&self, _: &Bytes, _: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn check_authorities(&self, _: &Bytes) -> Result<(), String> {
        Ok(())
    }

    fn authority_digests(&self, _: &Bytes) -> Result<AuthorityDigests, String> {
        Ok(AuthorityDigests::new())
    }

    fn check_client_auth(&self, _: &[Bytes], _: &[Bytes], _: bool) -> Result<(), String> {
        Ok(())
    }

    fn check_commands(&self, _: &Value) -> Result<(), String> {
        Ok(())
    }
}

fn object(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name, "generation": 1 }, "spec": spec })
}

fn route(number: usize) -> Value {
    named_route("route", number)
}

/// A route whose name begins with `prefix`: documents are in the order of their names.
fn named_route(prefix: &str, number: usize) -> Value {
    let spec = json!({
        "parentRefs": [{ "name": "web", "namespace": "infra" }],
        "hostnames": [format!("host-{number}.example")],
        "rules": [{
            "matches": [{ "path": { "type": "PathPrefix", "value": "/shop" } }],
            "backendRefs": [{ "name": format!("service-{}", number % SERVICES), "port": 80 }],
        }],
    });
    object("apps", &format!("{prefix}-{number}"), &spec)
}

/// A route with another path.
fn changed_route(number: usize, version: usize) -> Value {
    let mut changed = route(number);
    changed["metadata"]["generation"] = json!(version);
    changed["spec"]["rules"][0]["matches"][0]["path"]["value"] = json!(format!("/shop/{version}"));
    changed
}

fn cluster(port: u16) -> Index {
    let mut index = Index::default();
    index.apply(ObjectKind::GatewayClass, object("", "ours", &json!({ "controllerName": CONTROLLER_NAME })));
    let listener =
        json!({ "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } } });
    let gateway = json!({ "gatewayClassName": "ours", "listeners": [listener] });
    index.apply(ObjectKind::Gateway, object("infra", "web", &gateway));
    let mut published = object("infra", "gw", &json!({ "ports": [{ "port": 80, "targetPort": port }] }));
    published["metadata"]["annotations"] = json!({ "tallygate.io/gateway": "infra/web" });
    index.apply(ObjectKind::Service, published);
    for number in 0..SERVICES {
        let spec = json!({ "ports": [{ "port": 80 }] });
        index.apply(ObjectKind::Service, object("apps", &format!("service-{number}"), &spec));
    }
    for number in 0..ROUTES {
        index.apply(ObjectKind::HttpRoute, route(number));
    }
    index
}

struct Bench {
    index: Index,
    translator: Translator,
    plane: ClusterDataPlane,
    version: u64,
    _running: RunningGateway,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("tallygate.yaml");
        std::fs::write(&config, "ledger: { path: ledger.db }\n").expect("a file");
        let documents = ClusterDocuments::default();
        let options = StartOptions { cluster: Some(documents.clone()), ..StartOptions::new(config, Clock::system()) };
        let running = app::start(options).expect("a gateway");
        let plane = running.cluster_data_plane(documents);
        let translator = Translator::new(ServiceSettings::default());
        let bench = Self { index: cluster(20_080), translator, plane, version: 0, _running: running, _folder: folder };
        (0..SERVICES).for_each(|number| bench.set_endpoints(number, 8080));
        bench
    }

    fn translate_all(&mut self) -> Translation {
        self.translator.translate(&self.index, &NoTexts)
    }

    fn apply(&mut self) {
        let translation = self.translate_all();
        self.apply_translation(&translation);
    }

    fn apply_translation(&mut self, translation: &Translation) {
        self.version += 1;
        let applied = self.plane.apply(&self.version.to_string(), &translation.documents, &translation.texts);
        assert!(applied.expect("a valid configuration").is_empty());
    }

    fn set_endpoints(&self, service: usize, port: u16) {
        let address = ([10, 0, 0, 1], port).into();
        let endpoints = ServiceEndpoints::from([("".into(), vec![address])]);
        self.plane.set_endpoints(vec![(ObjectKey::new("apps", &format!("service-{service}")), endpoints)]);
    }
}

fn benches(criterion: &mut Criterion) {
    let mut bench = Bench::new();
    bench.apply();
    criterion.bench_function("translate 5,000 routes", |bencher| {
        bencher.iter(|| translate(&bench.index, &ServiceSettings::default(), &NoTexts).documents.len());
    });
    criterion.bench_function("translate 5,000 routes again", |bencher| {
        bencher.iter(|| bench.translate_all().documents.len());
    });
    let mut number = ROUTES;
    for (place, prefix) in [("last", "z-route"), ("in the middle", "route-15")] {
        criterion.bench_function(&format!("documents with one more route, {place}"), |bencher| {
            // Routes are added before they are measured.
            let added = std::cell::RefCell::new(&mut bench);
            let add = || {
                let mut bench = added.borrow_mut();
                bench.index.apply(ObjectKind::HttpRoute, named_route(prefix, number));
                number += 1;
                bench.translate_all()
            };
            bencher.iter_batched(add, |all| added.borrow_mut().apply_translation(&all), BatchSize::PerIteration);
        });
    }
    criterion.bench_function("one more route live", |bencher| {
        bencher.iter(|| {
            bench.index.apply(ObjectKind::HttpRoute, route(number));
            number += 1;
            bench.apply();
        });
    });
    let mut version = 1;
    criterion.bench_function("one changed route live", |bencher| {
        bencher.iter(|| {
            version += 1;
            bench.index.apply(ObjectKind::HttpRoute, changed_route(version * 7 % ROUTES, version));
            bench.apply();
        });
    });
    let mut port = 1;
    criterion.bench_function("one change of endpoints live", |bencher| {
        bencher.iter(|| {
            port = port % 60_000 + 1;
            bench.set_endpoints(usize::from(port) % SERVICES, port);
        });
    });
}

criterion_group! { name = cluster_changes; config = Criterion::default().sample_size(20); targets = benches }
criterion_main!(cluster_changes);

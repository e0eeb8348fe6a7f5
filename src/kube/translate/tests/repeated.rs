//! A translator that has translated before gives what a new one gives, whatever has changed meanwhile.

use fastrand::Rng;
use k8s_openapi::ByteString;

use super::*;
use crate::kube::objects::ObjectKind::{
    BackendTlsPolicy, ClientAuthPolicy, CommandSet, ConfigMap, Department, Gateway, GatewayClass, Grant, GrpcRoute,
    HttpRoute, Ingress, IngressClass, ListenerSet, Namespace, ReferenceGrant, Secret, Service, TlsRoute,
};

/// The steps of one history.
const STEPS: usize = 80;
/// The number of further names of routes, for more than one page.
const ROUTES: u32 = 400;

/// A cluster that changes at random. Few names, so that objects refer to each other, and come and go.
struct ChangingCluster {
    cluster: Cluster,
    rng: Rng,
    version: u64,
}

impl ChangingCluster {
    fn new(seed: u64) -> Self {
        let mut cluster = Cluster::with_gateway();
        cluster.add(IngressClass, "", "ours", json!({ "controller": CONTROLLER_NAME }));
        Self { cluster, rng: Rng::with_seed(seed), version: 0 }
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }

    /// Mostly one, so that objects there refer to each other.
    fn namespace(&mut self) -> &'static str {
        self.one_of(&["shop", "shop", "shop", "shop", "tenant", "infra"])
    }

    fn put(&mut self, kind: ObjectKind, (namespace, name): (&str, &str), content: Value) {
        self.version += 1;
        let generation = self.rng.i64(1..3);
        let created = self.one_of(&["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]);
        let mut object = json!({
            "metadata": {
                "namespace": namespace, "name": name, "generation": generation, "creationTimestamp": created,
                "resourceVersion": self.version.to_string(),
            },
        });
        merge_objects(&mut object, content);
        self.cluster.add_object(kind, object);
    }

    fn delete(&mut self, kind: ObjectKind, (namespace, name): (&str, &str)) {
        self.cluster.0.delete(kind, &ObjectKey::new(namespace, name));
    }

    fn backend(&mut self) -> Value {
        let mut backend = json!({ "name": self.one_of(&["a", "b", "none"]), "port": self.one_of(&[80, 81]) });
        if self.rng.bool() {
            backend["namespace"] = json!(self.namespace());
        }
        backend
    }

    fn parents(&mut self) -> Value {
        let mut parent = self.one_of(&["Gateway", "ListenerSet", "Foreign"]);
        if self.rng.u8(..4) > 0 {
            parent = "Gateway";
        }
        match parent {
            "Gateway" => json!([{ "name": "web", "namespace": "infra" }]),
            "ListenerSet" => json!([{ "kind": "ListenerSet", "name": "more", "namespace": "infra" }]),
            _ => json!([{ "name": "of another controller" }]),
        }
    }

    fn filters(&mut self) -> Value {
        match self.rng.u8(..5) {
            0 => json!([{ "type": "RequestMirror", "requestMirror": { "backendRef": self.backend() } }]),
            1 => json!([{ "type": "ExtensionRef",
                "extensionRef": { "group": "tallygate.io", "kind": "CommandSet", "name": "set" } }]),
            2 => json!([{ "type": "Unknown" }]),
            _ => json!([]),
        }
    }

    fn change_route(&mut self) {
        let kind = self.one_of(&[HttpRoute, HttpRoute, HttpRoute, GrpcRoute, TlsRoute]);
        let many = format!("m{}", self.rng.u32(..ROUTES));
        let key = (self.namespace(), self.one_of(&["r0", "r1", "r2", &many]));
        if self.rng.u8(..5) == 0 {
            return self.delete(kind, key);
        }
        let mut rule = json!({ "backendRefs": [self.backend(), self.backend()] });
        if kind != TlsRoute {
            rule["filters"] = self.filters();
        }
        if kind == HttpRoute && self.rng.u8(..4) == 0 {
            rule["retry"] = json!({ "attempts": self.one_of(&[1, 2]), "codes": [503] });
        }
        let hostnames = self.one_of(&[&["a.example"][..], &["b.example", "*.c.example"], &[]]);
        let mut spec = json!({ "parentRefs": self.parents(), "rules": [rule], "hostnames": hostnames });
        if self.rng.u8(..8) == 0 {
            spec["rules"] = json!("malformed");
        }
        self.put(kind, key, json!({ "spec": spec }));
    }

    /// Changes more routes than a page has, and in some histories more than are remembered.
    fn change_many_routes(&mut self) {
        let count = self.one_of(&[30, 150, 300]);
        (0..count).for_each(|_| self.change_route());
    }

    fn change_service(&mut self) {
        let key = (self.namespace(), self.one_of(&["a", "b"]));
        if self.rng.u8(..4) == 0 {
            return self.delete(Service, key);
        }
        let protocol = self.one_of(&["http", "kubernetes.io/h2c", "unknown"]);
        let ports = json!([{ "port": self.one_of(&[80, 81]), "appProtocol": protocol }]);
        self.put(Service, key, json!({ "spec": { "ports": ports } }));
    }

    fn change_gateway(&mut self) {
        match self.rng.u8(..6) {
            0 => self.cluster.publish(&[]),
            1 => self.cluster.publish(&[(80, 20_080), (443, 20_443)]),
            2 => self.delete(GatewayClass, ("", "ours")),
            3 => self.put(GatewayClass, ("", "ours"), json!({ "spec": { "controllerName": CONTROLLER_NAME } })),
            _ => {
                let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "kind": "open" } } });
                let namespaces = if self.rng.bool() { json!({ "from": "All" }) } else { selector };
                let mut listeners = json!([{ "name": "http", "port": 80, "protocol": "HTTP" }]);
                listeners[0]["allowedRoutes"] = json!({ "namespaces": namespaces });
                if self.rng.bool() {
                    listeners[0]["hostname"] = json!("a.example");
                }
                if self.rng.bool() {
                    let tls = json!({ "mode": "Passthrough" });
                    let allowed = json!({ "namespaces": namespaces });
                    let entry = json!({
                        "name": "tls", "port": 443, "protocol": "TLS", "tls": tls, "allowedRoutes": allowed,
                    });
                    listeners.as_array_mut().expect("a list").push(entry);
                }
                let mut spec = json!({ "gatewayClassName": "ours", "listeners": listeners });
                spec["allowedListeners"] = json!({ "namespaces": { "from": "All" } });
                if self.rng.bool() {
                    spec["tls"] = json!({ "backend": { "clientCertificateRef": { "name": "own" } } });
                }
                self.put(Gateway, ("infra", "web"), json!({ "spec": spec }));
            }
        }
    }

    /// Changes an object that routes depend on in some way.
    fn change_surroundings(&mut self) {
        let (kind, namespace, name, content) = match self.rng.u8(..12) {
            0 => {
                let from = json!([{ "group": GATEWAY_GROUP, "kind": "HTTPRoute", "namespace": self.namespace() }]);
                let to = json!([{ "group": "", "kind": "Service" }]);
                (ReferenceGrant, self.namespace(), "grant", json!({ "spec": { "from": from, "to": to } }))
            }
            1 => {
                let label = self.one_of(&["open", "closed"]);
                (Namespace, "", self.namespace(), json!({ "metadata": { "labels": { "kind": label } } }))
            }
            2 | 3 => {
                let target = json!([{ "group": "", "kind": "Service", "name": self.one_of(&["a", "b"]) }]);
                let authority = json!([{ "group": "", "kind": "ConfigMap", "name": "ca" }]);
                let validation = json!({ "hostname": "a.example", "caCertificateRefs": authority });
                let name = self.one_of(&["p", "q"]);
                let spec = json!({ "targetRefs": target, "validation": validation });
                (BackendTlsPolicy, self.namespace(), name, json!({ "spec": spec }))
            }
            4 | 10 => {
                let text = self.one_of(&["good", "bad"]);
                (ConfigMap, self.namespace(), "ca", json!({ "data": { "ca.crt": text } }))
            }
            11 => {
                let text = self.one_of(&["good", "bad"]).as_bytes().to_vec();
                let texts = json!({ "tls.crt": ByteString(text.clone()), "tls.key": ByteString(text) });
                (Secret, "infra", "own", json!({ "data": texts }))
            }
            5 => {
                let path = self.one_of(&["/x", "/y", "no path"]);
                let commands = json!([{ "id": "read", "match": [{ "path": path }] }]);
                (CommandSet, self.namespace(), "set", json!({ "spec": { "commands": commands } }))
            }
            6 => {
                let target = json!([{ "kind": "HTTPRoute", "name": self.one_of(&["r0", "r1"]) }]);
                let spec = json!({ "targetRefs": target, "departments": ["police", "infra.web"] });
                (Grant, self.namespace(), "g", json!({ "spec": spec }))
            }
            7 => {
                let listener = json!({ "name": "set", "port": 80, "protocol": "HTTP", "hostname": "set.example" });
                let spec = json!({ "parentRef": { "name": "web" }, "listeners": [listener] });
                (ListenerSet, "infra", "more", json!({ "spec": spec }))
            }
            8 => {
                let path = json!({ "path": "/", "pathType": "Prefix",
                    "backend": { "service": { "name": self.one_of(&["a", "b"]), "port": { "number": 80 } } } });
                let rules = json!([{ "host": "i.example", "http": { "paths": [path] } }]);
                let name = self.one_of(&["i", "j"]);
                (Ingress, self.namespace(), name, json!({ "spec": { "ingressClassName": "ours", "rules": rules } }))
            }
            _ => {
                let name = self.one_of(&["police", "fire"]);
                let callers = json!([{ "dnsName": format!("{name}.example") }]);
                (Department, "", name, json!({ "spec": { "callers": callers } }))
            }
        };
        match self.rng.u8(..3) {
            0 => self.delete(kind, (namespace, name)),
            _ => self.put(kind, (namespace, name), content),
        }
    }

    /// What no translation depends on, or only that of others.
    fn change_nothing(&mut self) {
        let first = self.cluster.0.http_routes().iter().next().map(|(key, _)| key.clone());
        if let Some(ObjectKey { namespace, name }) = first.filter(|_| self.rng.bool()) {
            let status = json!({ "parents": [] });
            return self.put(HttpRoute, (&*namespace, &*name), json!({ "spec": {}, "status": status }));
        }
        self.put(Secret, ("tenant", "other"), json!({ "data": {} }));
        self.delete(ClientAuthPolicy, ("tenant", "none"));
    }

    fn step(&mut self) {
        match self.rng.u8(..12) {
            0..4 => self.change_route(),
            4..6 => self.change_service(),
            6 => self.change_gateway(),
            7..11 => self.change_surroundings(),
            _ => self.change_nothing(),
        }
    }
}

fn merge_objects(object: &mut Value, other: Value) {
    for (key, value) in other.as_object().cloned().unwrap_or_default() {
        match object.get_mut(&key) {
            Some(known) if known.is_object() => merge_objects(known, value),
            _ => object[key] = value,
        }
    }
}

#[test]
fn repeated_translations_are_those_of_a_new_translator() {
    let settings = ServiceSettings { namespace: "system".to_owned(), ..ServiceSettings::default() };
    let (mut documents, mut attached) = (0, 0);
    for seed in 0..60 {
        let mut changing = ChangingCluster::new(seed);
        let mut translator = Translator::new(settings.clone());
        for step in 0..STEPS {
            for _ in 0..changing.rng.usize(1..3) {
                changing.step();
            }
            if changing.rng.u8(..40) == 0 {
                changing.change_many_routes();
            }
            let index = &changing.cluster.0;
            let repeated = translator.translate(index, &FakeCheck);
            assert_eq!(repeated, translate(index, &settings, &FakeCheck), "seed {seed}, step {step}");
            documents += repeated.documents.len();
            attached +=
                repeated.gateways.iter().flat_map(|one| &one.listeners).map(|one| one.attached_routes).sum::<usize>();
        }
    }
    // The histories have something to translate.
    assert!(documents > 60 * STEPS && attached > 20 * STEPS, "{documents} documents, {attached} attachments");
}

/// The number of documents that two translations share.
fn shared_documents(one: &Translation, other: &Translation) -> usize {
    other.documents.iter().filter(|document| one.documents.iter().any(|known| Arc::ptr_eq(known, document))).count()
}

/// The number of outcomes of routes that two translations share.
fn shared_outcomes(one: &Translation, other: &Translation) -> usize {
    other.routes.iter().filter(|outcome| one.routes.iter().any(|known| Arc::ptr_eq(known, outcome))).count()
}

#[test]
fn what_has_not_changed_is_shared() {
    const ROUTES: usize = 50;
    let mut cluster = Cluster::with_gateway();
    let route = |cluster: &mut Cluster, number: usize, host: &str| {
        let backend = json!({ "name": format!("s{}", number % 5), "port": 80 });
        let spec = json!({ "hostnames": [host], "rules": [{ "backendRefs": [backend] }] });
        cluster.route("shop", &format!("r{number:02}"), spec);
    };
    (0..5).for_each(|number| cluster.service("shop", &format!("s{number}"), json!({ "port": 80 }), &[]));
    (0..ROUTES).for_each(|number| route(&mut cluster, number, "a.example"));
    let mut translator = Translator::new(ServiceSettings::default());
    let mut translated = |cluster: &Cluster| translator.translate(&cluster.0, &FakeCheck);
    let first = translated(&cluster);
    let all = first.documents.len();
    assert_eq!((all, first.routes.len()), (1 + 5 + ROUTES, ROUTES));
    let same = translated(&cluster);
    assert_eq!((shared_documents(&first, &same), shared_outcomes(&first, &same)), (all, ROUTES));
    route(&mut cluster, 7, "b.example");
    let changed = translated(&cluster);
    assert_eq!((shared_documents(&same, &changed), shared_outcomes(&same, &changed)), (all - 1, ROUTES - 1));
    route(&mut cluster, ROUTES, "a.example");
    let added = translated(&cluster);
    assert_eq!((shared_documents(&changed, &added), shared_outcomes(&changed, &added)), (all, ROUTES));
    // Another Service is looked up by its own routes only.
    cluster.service("shop", "s3", json!({ "port": 80, "appProtocol": "kubernetes.io/h2c" }), &[]);
    let others = shared_outcomes(&added, &translated(&cluster));
    assert_eq!(others, ROUTES + 1 - ROUTES / 5);
    // A change of what all routes depend on changes no document if the translation is the same.
    let before = translated(&cluster);
    cluster.add(ObjectKind::Namespace, "", "new", json!({}));
    let after = translated(&cluster);
    assert_eq!(shared_documents(&before, &after), before.documents.len());
}

#[test]
fn a_secret_of_the_gateway_reaches_its_backends() {
    let mut cluster = Cluster::with_gateway();
    let listeners = json!([{ "name": "http", "port": 80, "protocol": "HTTP",
        "allowedRoutes": { "namespaces": { "from": "All" } } }]);
    let tls = json!({ "backend": { "clientCertificateRef": { "name": "own" } } });
    let spec = json!({ "gatewayClassName": "ours", "listeners": listeners, "tls": tls });
    cluster.add(Gateway, "infra", "web", spec);
    cluster.service("shop", "a", json!({ "port": 80 }), &[]);
    cluster.add_object(
        ConfigMap,
        json!({ "metadata": { "namespace": "shop", "name": "ca" }, "data": { "ca.crt": "good" } }),
    );
    let target = json!([{ "group": "", "kind": "Service", "name": "a" }]);
    let authority = json!([{ "group": "", "kind": "ConfigMap", "name": "ca" }]);
    let validation = json!({ "hostname": "a.example", "caCertificateRefs": authority });
    cluster.add(BackendTlsPolicy, "shop", "p", json!({ "targetRefs": target, "validation": validation }));
    cluster.route("shop", "r", json!({ "rules": [{ "backendRefs": [{ "name": "a", "port": 80 }] }] }));
    let mut translator = Translator::new(ServiceSettings::default());
    let mut certificate = |cluster: &Cluster| {
        let documents = translator.translate(&cluster.0, &FakeCheck).documents;
        let backend = documents.iter().find(|document| document.name().starts_with("Service shop/a"));
        backend.expect("a backend").content()["backends"][0]["tls"]["certificate"].clone()
    };
    assert_eq!(certificate(&cluster), json!(null));
    let text = || ByteString(b"good".to_vec());
    let secret = json!({ "metadata": { "namespace": "infra", "name": "own" },
        "data": { "tls.crt": text(), "tls.key": text() } });
    cluster.add_object(Secret, secret);
    assert_eq!(certificate(&cluster), json!("memory:secret/infra/own/tls.crt"));
}

//! Tests of the translation as tables: objects in, documents and conditions out.

use std::sync::Arc;

mod ingress_annotations;
mod own_kinds;
mod repeated;
mod tls_routes;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::clock::Clock;
use crate::config::{ConfigLoader, MemoryDocument, MemoryDocuments, SharedDocuments, check_commands};
use crate::kube::objects::GATEWAY_GROUP;
use crate::model::NameInterner;

/// A check that refuses what begins with `bad`.
struct FakeCheck;

impl TextCheck for FakeCheck {
    fn check_key_pair(&self, certificate: &Bytes, _: &Bytes) -> Result<(), String> {
        if certificate.starts_with(b"bad") { Err("not a certificate".to_owned()) } else { Ok(()) }
    }

    fn check_client_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String> {
        self.check_key_pair(certificate, key)
    }

    fn check_authorities(&self, pem: &Bytes) -> Result<(), String> {
        if pem.starts_with(b"bad") { Err("not an authority".to_owned()) } else { Ok(()) }
    }

    /// A line is a certificate.
    fn authority_digests(&self, pem: &Bytes) -> Result<AuthorityDigests, String> {
        self.check_authorities(pem)?;
        let lines = pem.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        Ok(lines.map(|line| Sha256::digest(line).into()).collect())
    }

    fn check_client_auth(&self, _: &[Bytes], lists: &[Bytes], takes_expired: bool) -> Result<(), String> {
        match lists.iter().find(|list| list.starts_with(b"bad") || (list.starts_with(b"expired") && !takes_expired)) {
            Some(_) => Err("not a current revocation list".to_owned()),
            None => Ok(()),
        }
    }

    fn check_commands(&self, commands: &Value) -> Result<(), String> {
        check_commands(commands).map_err(|problem| format!("{}: {}", problem.path, problem.message))
    }
}

/// Objects of a cluster.
#[derive(Default)]
struct Cluster(Index);

impl Cluster {
    /// A cluster with a GatewayClass of ours and the Gateway `infra/web` with an HTTP listener on port 80, published.
    fn with_gateway() -> Self {
        let mut cluster = Self::default();
        cluster.add(ObjectKind::GatewayClass, "", "ours", json!({ "controllerName": CONTROLLER_NAME }));
        cluster.gateway(json!([{ "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } } }]));
        cluster.publish(&[(80, 20_080)]);
        cluster
    }

    fn add(&mut self, kind: ObjectKind, namespace: &str, name: &str, spec: Value) {
        self.add_object(
            kind,
            json!({ "metadata": { "namespace": namespace, "name": name, "generation": 3 }, "spec": spec }),
        );
    }

    fn add_object(&mut self, kind: ObjectKind, object: Value) {
        self.0.apply(kind, object);
    }

    fn gateway(&mut self, listeners: Value) {
        self.add(ObjectKind::Gateway, "infra", "web", json!({ "gatewayClassName": "ours", "listeners": listeners }));
    }

    /// The Service of the Gateway, with an address.
    fn publish(&mut self, ports: &[(u16, u16)]) {
        let ports: Vec<Value> =
            ports.iter().map(|(port, target)| json!({ "port": port, "targetPort": target })).collect();
        self.add_object(
            ObjectKind::Service,
            json!({
                "metadata": {
                    "namespace": "infra", "name": "gw", "annotations": { "tallygate.io/gateway": "infra/web" },
                },
                "spec": { "type": "LoadBalancer", "ports": ports },
                "status": { "loadBalancer": { "ingress": [{ "ip": "10.78.0.1" }] } },
            }),
        );
    }

    fn service(&mut self, namespace: &str, name: &str, port: Value, addresses: &[&str]) {
        self.add(ObjectKind::Service, namespace, name, json!({ "ports": [port] }));
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| json!({ "addresses": [address], "conditions": { "ready": true } }))
            .collect();
        self.add_object(
            ObjectKind::EndpointSlice,
            json!({
                "metadata": {
                    "namespace": namespace, "name": format!("{name}-1"),
                    "labels": { "kubernetes.io/service-name": name },
                },
                "addressType": "IPv4",
                "endpoints": endpoints,
                "ports": [{ "name": "", "port": 3000, "protocol": "TCP" }],
            }),
        );
    }

    fn route(&mut self, namespace: &str, name: &str, spec: Value) {
        let mut spec = spec;
        if spec.get("parentRefs").is_none() {
            spec["parentRefs"] = json!([{ "name": "web", "namespace": "infra" }]);
        }
        self.add(ObjectKind::HttpRoute, namespace, name, spec);
    }

    fn translated(&self) -> Translation {
        let settings = ServiceSettings { namespace: "system".to_owned(), ..ServiceSettings::default() };
        translate(&self.0, &settings, &FakeCheck)
    }

    /// The document of an object.
    fn document(&self, name: &str) -> Value {
        let documents = self.translated().documents;
        let found = documents.iter().find(|document| document.name().starts_with(name));
        found.map(|document| document.content()).unwrap_or_default()
    }

    /// The conditions of the first parent of a route, as `Type=reason`, with `!` if the condition does not hold.
    fn route_conditions(&self, name: &str) -> Vec<String> {
        let outcomes = self.translated().routes;
        let outcome = outcomes.iter().find(|outcome| &*outcome.key.name == name);
        outcome.map(|outcome| shown(&outcome.parents[0].1)).unwrap_or_default()
    }

    /// The conditions of a listener of the Gateway.
    fn listener_conditions(&self, name: &str) -> Vec<String> {
        let gateway = self.translated().gateways.remove(0);
        let listener = gateway.listeners.iter().find(|listener| listener.name == name).expect("a listener");
        shown(&listener.conditions)
    }
}

fn shown(conditions: &[Condition]) -> Vec<String> {
    let mark = |holds| if holds { "" } else { "!" };
    conditions.iter().map(|one| format!("{}{}={}", mark(one.holds), one.kind, one.reason)).collect()
}

fn backend(name: &str) -> Value {
    json!({ "name": name, "port": 8080 })
}

#[test]
fn a_route_is_a_subsystem_with_a_command_for_each_rule() {
    let mut cluster = Cluster::with_gateway();
    cluster.service("shop", "cart", json!({ "port": 8080 }), &["10.77.1.2", "10.77.1.3"]);
    cluster.route(
        "shop",
        "cart",
        json!({
            "hostnames": ["Shop.example", "*.shop.example"],
            "rules": [
                { "matches": [{ "path": { "type": "Exact", "value": "/cart" }, "method": "GET" }], "backendRefs": [backend("cart")] },
                { "name": "pay", "backendRefs": [backend("cart")], "timeouts": { "request": "1s", "backendRequest": "500ms" } },
            ],
        }),
    );
    let document = cluster.document("HTTPRoute shop/cart");
    let subsystem = &document["subsystems"][0];
    assert_eq!(subsystem["id"], "shop.cart");
    assert_eq!(subsystem["hosts"], json!(["shop.example", "**.shop.example"]));
    assert_eq!(subsystem["listeners"], json!(["infra.web_80/http"]));
    let commands = &subsystem["commands"];
    assert_eq!((&commands[0]["id"], &commands[1]["id"]), (&json!("rule-0"), &json!("rule_pay")));
    assert_eq!(commands[0]["match"], json!([{ "path": "/cart", "method": "GET", "headers": [], "query": [] }]));
    assert_eq!(commands[0]["backends"], json!([{ "backend": "shop.cart_8080", "weight": 1 }]));
    assert_eq!(commands[1]["match"], json!([{ "pathPrefix": "/", "headers": [], "query": [] }]));
    assert_eq!(commands[1]["timeouts"], json!({ "request": "1000ms", "attempt": "500ms" }));
    assert_eq!(document["grants"], json!([{ "department": "infra.web", "subsystem": "shop.cart", "commands": ["*"] }]));
    let backend = &cluster.document("Service shop/cart")["backends"][0];
    assert_eq!(backend["endpoints"], json!({ "service": "shop/cart", "port": "", "secure": false }));
    assert_eq!(backend.get("upstreams"), None, "endpoints have a way of their own");
    assert_eq!(cluster.route_conditions("cart"), ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]);
    let gateway = cluster.document("Gateway infra/web");
    assert_eq!(gateway["listeners"][0]["address"], "0.0.0.0:20080");
    assert_eq!(gateway["listeners"][0]["virtualHosts"], json!([{ "name": "http", "host": "*" }]));
    assert_eq!(gateway["departments"][0]["callers"], json!([{ "listener": "infra.web_80", "unclaimed": true }]));
}

#[test]
fn references_that_lead_nowhere_take_their_share() {
    for (backend, reason) in [
        (json!({ "name": "missing", "port": 8080 }), "BackendNotFound"),
        (json!({ "name": "cart", "port": 9 }), "BackendNotFound"),
        (json!({ "name": "cart" }), "BackendNotFound"),
        (json!({ "name": "cart", "port": 8080, "kind": "Bucket", "group": "store.example" }), "InvalidKind"),
        (json!({ "name": "cart", "port": 8080, "namespace": "other" }), "RefNotPermitted"),
    ] {
        let mut cluster = Cluster::with_gateway();
        cluster.service("shop", "cart", json!({ "port": 8080 }), &["10.77.1.2"]);
        cluster.service("other", "cart", json!({ "port": 8080 }), &["10.77.1.2"]);
        let backends = json!([{ "name": "cart", "port": 8080, "weight": 3 }, backend]);
        cluster.route("shop", "r", json!({ "rules": [{ "backendRefs": backends }] }));
        let expected = ["Accepted=Accepted".to_owned(), format!("!ResolvedRefs={reason}")];
        assert_eq!(cluster.route_conditions("r"), expected, "{backend}");
        let shares = &cluster.document("HTTPRoute shop/r")["subsystems"][0]["commands"][0]["backends"];
        assert_eq!(shares[0], json!({ "backend": "shop.cart_8080", "weight": 3 }));
        assert_eq!(shares[1], json!({ "status": 500, "weight": 1 }), "{backend}");
    }
}

#[test]
fn a_reference_grant_permits_a_reference() {
    let mut cluster = Cluster::with_gateway();
    cluster.service("other", "cart", json!({ "port": 8080 }), &["10.77.1.2"]);
    let reference = json!({ "name": "cart", "port": 8080, "namespace": "other" });
    cluster.route("shop", "r", json!({ "rules": [{ "backendRefs": [reference] }] }));
    for (from, to, permitted) in [
        ("GRPCRoute", json!({ "group": "", "kind": "Service" }), false),
        ("HTTPRoute", json!({ "group": "", "kind": "Service", "name": "other" }), false),
        ("HTTPRoute", json!({ "group": "", "kind": "Secret" }), false),
        ("HTTPRoute", json!({ "group": "", "kind": "Service", "name": "cart" }), true),
    ] {
        let from = json!({ "group": "gateway.networking.k8s.io", "kind": from, "namespace": "shop" });
        cluster.add(ObjectKind::ReferenceGrant, "other", "g", json!({ "from": [from], "to": [to] }));
        let resolved = cluster.route_conditions("r").remove(1);
        assert_eq!(resolved == "ResolvedRefs=ResolvedRefs", permitted, "{from} {to}");
    }
}

#[test]
fn routes_attach_to_the_listeners_that_take_them() {
    let listeners = json!([
        { "name": "open", "port": 80, "protocol": "HTTP", "hostname": "*.open.example", "allowedRoutes": { "namespaces": { "from": "All" } } },
        { "name": "own", "port": 80, "protocol": "HTTP", "hostname": "own.example" },
        { "name": "labelled", "port": 8080, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "Selector", "selector": { "matchLabels": { "tier": "gold" } } } } },
        { "name": "grpc", "port": 8080, "protocol": "HTTP", "hostname": "grpc.example", "allowedRoutes": { "namespaces": { "from": "All" }, "kinds": [{ "kind": "GRPCRoute" }] } },
    ]);
    for (namespace, parent, hostname, accepted, attached) in [
        ("shop", json!({}), "a.open.example", "Accepted=Accepted", &["infra.web_80/open"][..]),
        ("shop", json!({}), "own.example", "!Accepted=NoMatchingListenerHostname", &[]),
        ("shop", json!({ "sectionName": "own" }), "own.example", "!Accepted=NotAllowedByListeners", &[]),
        ("shop", json!({ "sectionName": "none" }), "own.example", "!Accepted=NoMatchingParent", &[]),
        ("shop", json!({ "port": 81 }), "own.example", "!Accepted=NoMatchingParent", &[]),
        ("shop", json!({ "sectionName": "grpc" }), "grpc.example", "!Accepted=NotAllowedByListeners", &[]),
        ("gold", json!({ "port": 8080 }), "own.example", "Accepted=Accepted", &["infra.web_8080/labelled"]),
        ("infra", json!({}), "own.example", "Accepted=Accepted", &["infra.web_80/own"]),
    ] {
        let mut cluster = Cluster::with_gateway();
        cluster.gateway(listeners.clone());
        cluster.publish(&[(80, 20_080), (8080, 20_081)]);
        cluster
            .add_object(ObjectKind::Namespace, json!({ "metadata": { "name": "gold", "labels": { "tier": "gold" } } }));
        let mut parent = parent;
        parent["name"] = json!("web");
        parent["namespace"] = json!("infra");
        cluster.route(namespace, "r", json!({ "parentRefs": [parent], "hostnames": [hostname], "rules": [{}] }));
        assert_eq!(cluster.route_conditions("r")[0], accepted, "{namespace} {parent} {hostname}");
        let bound = cluster.document("HTTPRoute")["subsystems"][0]["listeners"].clone();
        let expected = if attached.is_empty() { Value::Null } else { json!(attached) };
        assert_eq!(bound, expected, "{namespace} {parent} {hostname}");
    }
}

#[test]
fn faults_of_listeners_have_their_reasons() {
    let listener = |more: Value| {
        let mut listener = json!({ "name": "l", "port": 443, "protocol": "HTTPS" });
        listener.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        listener
    };
    let tls = |name: &str| json!({ "tls": { "certificateRefs": [{ "name": name }] } });
    for (listeners, expected) in [
        (
            json!([listener(tls("good"))]),
            &["Accepted=Accepted", "ResolvedRefs=ResolvedRefs", "!Conflicted=NoConflicts"][..],
        ),
        (
            json!([listener(tls("missing"))]),
            &["Accepted=Accepted", "!ResolvedRefs=InvalidCertificateRef", "!Conflicted=NoConflicts"],
        ),
        (
            json!([listener(tls("malformed"))]),
            &["Accepted=Accepted", "!ResolvedRefs=InvalidCertificateRef", "!Conflicted=NoConflicts"],
        ),
        (
            json!([listener(json!({ "tls": { "certificateRefs": [{ "name": "good", "namespace": "other" }] } }))]),
            &["Accepted=Accepted", "!ResolvedRefs=RefNotPermitted", "!Conflicted=NoConflicts"],
        ),
        (
            json!([listener(json!({ "protocol": "UDP" }))]),
            &["!Accepted=UnsupportedProtocol", "ResolvedRefs=ResolvedRefs", "!Conflicted=NoConflicts"],
        ),
        (
            json!([listener(json!({ "protocol": "HTTP", "allowedRoutes": { "kinds": [{ "kind": "Odd" }] } }))]),
            &["Accepted=Accepted", "!ResolvedRefs=InvalidRouteKinds", "!Conflicted=NoConflicts"],
        ),
        (
            json!([{ "name": "other", "port": 443, "protocol": "HTTP" }, listener(tls("good"))]),
            &["!Accepted=ProtocolConflict", "ResolvedRefs=ResolvedRefs", "Conflicted=ProtocolConflict"],
        ),
        (
            json!([{ "name": "other", "port": 443, "protocol": "HTTP" }, listener(json!({ "protocol": "HTTP" }))]),
            &["!Accepted=HostnameConflict", "ResolvedRefs=ResolvedRefs", "Conflicted=HostnameConflict"],
        ),
    ] {
        let mut cluster = Cluster::with_gateway();
        for (name, certificate) in [("good", "Z29vZA=="), ("malformed", "YmFk")] {
            let data = json!({ "tls.crt": certificate, "tls.key": "a2V5" });
            let metadata = json!({ "namespace": "infra", "name": name });
            cluster.add_object(
                ObjectKind::Secret,
                json!({ "metadata": metadata, "type": "kubernetes.io/tls", "data": data }),
            );
        }
        cluster.gateway(listeners.clone());
        assert_eq!(cluster.listener_conditions("l"), expected, "{listeners}");
    }
}

#[test]
fn a_listener_that_is_not_published_has_no_document() {
    let mut cluster = Cluster::with_gateway();
    cluster.publish(&[]);
    cluster.route("shop", "r", json!({ "rules": [{}] }));
    let translation = cluster.translated();
    assert!(translation.documents.is_empty(), "{:?}", translation.documents);
    assert!(translation.gateways[0].listeners[0].is_served);
    let service = &translation.services[0];
    assert!(!service.is_current);
    let target = service.wanted["spec"]["ports"][0]["targetPort"].as_u64().expect("a port");
    assert!(TARGET_PORTS.contains(&u16::try_from(target).expect("a port")), "{target}");
}

#[test]
fn a_service_is_current_once_it_is_as_wanted() {
    let mut cluster = Cluster::with_gateway();
    let mut wanted = cluster.translated().services[0].wanted.clone();
    assert_eq!(
        wanted["spec"]["ports"],
        json!([{ "name": "p80", "port": 80, "targetPort": 20_080, "protocol": "TCP" }])
    );
    wanted["metadata"]["name"] = json!("gw");
    cluster.add_object(ObjectKind::Service, wanted);
    let translation = cluster.translated();
    assert!(translation.services[0].is_current, "{:?}", translation.services);
    cluster.0.delete(ObjectKind::Gateway, &ObjectKey::new("infra", "web"));
    assert_eq!(cluster.translated().abandoned_services, [ObjectKey::new("infra", "gw")]);
}

#[test]
fn services_of_gateways_keep_their_pods_when_all_become_unready() {
    let (ready, ending, unready) = ((true, false), (false, true), (false, false));
    for (pods, expected) in [
        (&[ready, unready][..], &["10.77.1.0 true", "10.77.1.1 false"][..]),
        (&[unready, unready], &["10.77.1.0 true", "10.77.1.1 true"]),
        (&[unready, ending], &["10.77.1.0 false", "10.77.1.1 false"]), // the other one serves while it ends
        (&[], &[]),
    ] {
        let mut cluster = Cluster::with_gateway();
        let metadata = json!({ "namespace": "system", "name": "tallygate",
            "labels": { "app.kubernetes.io/component": "ingress" } });
        cluster.add_object(ObjectKind::Service, json!({ "metadata": metadata, "spec": {} }));
        let endpoint = |(number, (ready, ending)): (usize, &(bool, bool))| {
            let conditions = json!({ "ready": ready, "serving": *ready || *ending, "terminating": ending });
            json!({ "addresses": [format!("10.77.1.{number}")], "conditions": conditions })
        };
        let metadata = json!({ "namespace": "system", "name": "tallygate-1",
            "labels": { "kubernetes.io/service-name": "tallygate" } });
        let endpoints: Vec<Value> = pods.iter().enumerate().map(endpoint).collect();
        let ports = json!([{ "name": "", "port": 8080, "protocol": "TCP" }]);
        let slice = json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": ports });
        cluster.add_object(ObjectKind::EndpointSlice, slice);
        let slice = cluster.translated().services[0].wanted_slice.clone();
        let shown = slice["endpoints"].as_array().into_iter().flatten();
        let shown = shown.map(|one| format!("{} {}", one["addresses"][0], one["conditions"]["ready"]).replace('"', ""));
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{pods:?}");
    }
}

#[test]
fn what_is_not_supported_refuses_the_route() {
    for rule in [
        json!({ "sessionPersistence": {} }),
        json!({ "filters": [{ "type": "ExternalAuth" }] }),
        json!({ "filters": [{ "type": "ExtensionRef", "extensionRef": { "group": "x", "kind": "y", "name": "z" } }] }),
        json!({ "matches": [{ "path": { "type": "Glob", "value": "/*" } }] }),
    ] {
        let mut cluster = Cluster::with_gateway();
        cluster.route("shop", "r", json!({ "rules": [rule] }));
        assert_eq!(cluster.route_conditions("r")[0], "!Accepted=UnsupportedValue", "{rule}");
        assert_eq!(cluster.document("HTTPRoute"), Value::Null, "{rule}");
    }
}

#[test]
fn filters_are_keys_of_the_command() {
    let mut cluster = Cluster::with_gateway();
    cluster.service("shop", "copy", json!({ "port": 8080 }), &["10.77.1.2"]);
    let filters = json!([
        { "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "A", "value": "1" }], "remove": ["B"] } },
        { "type": "URLRewrite", "urlRewrite": { "hostname": "in.example", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } } },
        { "type": "RequestMirror", "requestMirror": { "backendRef": backend("copy"), "percent": 20 } },
        { "type": "RequestMirror", "requestMirror": { "backendRef": backend("copy"), "percent": 0 } },
    ]);
    cluster.route("shop", "r", json!({ "rules": [{ "filters": filters }] }));
    let command = cluster.document("HTTPRoute")["subsystems"][0]["commands"][0].clone();
    assert_eq!(command["headers"], json!({ "request": { "set": { "A": "1" }, "add": {}, "remove": ["B"] } }));
    assert_eq!(command["rewrite"], json!({ "host": "in.example", "replacePrefixMatch": "/new" }));
    assert_eq!(command["mirror"], json!([{ "backend": "shop.copy_8080", "percent": 20 }]));
    let redirect = json!([{ "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "statusCode": 301 } }]);
    cluster.route("shop", "r", json!({ "rules": [{ "filters": redirect }] }));
    let command = cluster.document("HTTPRoute")["subsystems"][0]["commands"][0].clone();
    assert_eq!(command["redirect"], json!({ "status": 301, "scheme": "https" }));
    assert_eq!(command.get("backends"), None);
}

#[test]
fn older_routes_come_first() {
    let mut cluster = Cluster::with_gateway();
    for (name, created) in [("a", "2026-03-01T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), ("c", "2026-01-01T00:00:00Z")]
    {
        let metadata = json!({ "namespace": "shop", "name": name, "creationTimestamp": created });
        let parents = json!([{ "name": "web", "namespace": "infra" }]);
        cluster.add_object(
            ObjectKind::HttpRoute,
            json!({ "metadata": metadata, "spec": { "parentRefs": parents, "rules": [{}] } }),
        );
    }
    let documents = cluster.translated().documents;
    let names: Vec<&str> =
        documents.iter().map(|document| &**document.name()).filter(|name| name.starts_with("HTTP")).collect();
    assert_eq!(names, ["HTTPRoute shop/b", "HTTPRoute shop/c", "HTTPRoute shop/a"]);
}

#[test]
fn grpc_methods_are_paths() {
    let mut cluster = Cluster::with_gateway();
    cluster.service("shop", "g", json!({ "port": 8080 }), &["10.77.1.2"]);
    let method = |method: Value| json!({ "method": method });
    let rule = json!({
        "matches": [
            method(json!({ "service": "a.B", "method": "C" })),
            method(json!({ "service": "a.B" })),
            method(json!({ "method": "C" })),
            {},
        ],
        "backendRefs": [backend("g")],
    });
    let parents = json!([{ "name": "web", "namespace": "infra" }]);
    cluster.add(ObjectKind::GrpcRoute, "shop", "r", json!({ "parentRefs": parents, "rules": [rule] }));
    let subsystem = cluster.document("GRPCRoute shop/r")["subsystems"][0].clone();
    assert_eq!(subsystem["id"], "shop.r_grpc");
    let matches = subsystem["commands"][0]["match"].clone();
    assert_eq!(matches[0]["path"], "/a.B/C");
    assert_eq!(matches[1]["pathPrefix"], "/a.B");
    assert_eq!(matches[2]["pathRegex"], "/[^/]+/C");
    assert_eq!(matches[3]["pathPrefix"], "/");
    assert_eq!(subsystem["commands"][0]["backends"][0]["backend"], "shop.g_8080_h2");
    assert_eq!(cluster.document("Service shop/g")["backends"][0]["protocol"], "http2");
}

/// Compiles the documents with a main file that has only a ledger. Returns the configuration.
fn compiled(translation: &Translation) -> crate::config::Configuration {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("tallygate.yaml");
    std::fs::write(&main, "ledger: { path: l.db }\n").expect("a file");
    let parse = |document: &Arc<NamedDocument>| {
        let (name, content) = (document.name(), document.content());
        MemoryDocument::from_json(name, &content).unwrap_or_else(|problem| panic!("{name}: {problem}"))
    };
    let documents = translation.documents.iter().map(parse).collect();
    let shared = SharedDocuments::default();
    shared.store(Arc::new(MemoryDocuments { version: "1".to_owned(), documents }));
    let mut loader = ConfigLoader::new(&main, Clock::system()).with_documents(shared);
    let loaded = loader.load(&NameInterner::default()).configuration;
    loaded.unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn documents_are_a_valid_configuration() {
    let mut cluster = Cluster::with_gateway();
    cluster.add(ObjectKind::IngressClass, "", "ours", json!({ "controller": CONTROLLER_NAME }));
    for name in ["cart", "copy"] {
        cluster.service("shop", name, json!({ "port": 8080 }), &["10.77.1.2", "10.77.1.3"]);
    }
    cluster.service("shop", "empty", json!({ "port": 8080, "appProtocol": "kubernetes.io/h2c" }), &[]);
    let header =
        |name: &str| json!({ "set": [{ "name": name, "value": "1" }], "add": [{ "name": "b", "value": "2" }] });
    let rules = json!([
        {
            "name": "all",
            "matches": [
                { "path": { "value": "/a" }, "headers": [{ "name": "v", "value": "1" }], "queryParams": [{ "name": "q", "value": "1" }] },
                { "path": { "value": "/b" }, "method": "POST" },
            ],
            "filters": [
                { "type": "RequestHeaderModifier", "requestHeaderModifier": header("x-a") },
                { "type": "ResponseHeaderModifier", "responseHeaderModifier": header("x-b") },
                { "type": "URLRewrite", "urlRewrite": { "hostname": "in.example", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "" } } },
                { "type": "RequestMirror", "requestMirror": { "backendRef": backend("copy"), "fraction": { "numerator": 1, "denominator": 3 } } },
                { "type": "CORS", "cors": { "allowOrigins": ["*"], "allowCredentials": true, "allowMethods": ["*"] } },
            ],
            "backendRefs": [
                { "name": "cart", "port": 8080, "weight": 3, "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": header("x-c") }] },
                { "name": "empty", "port": 8080 },
                { "name": "missing", "port": 8080 },
            ],
            "timeouts": { "request": "10s", "backendRequest": "1s" },
            "retry": { "codes": [500, 503], "attempts": 2, "backoff": "10ms" },
        },
        { "filters": [{ "type": "RequestRedirect", "requestRedirect": { "statusCode": 303 } }] },
        { "filters": [{ "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "path": { "type": "ReplaceFullPath", "replaceFullPath": "/x" } } }] },
        {},
    ]);
    cluster.route("shop", "one", json!({ "rules": rules.clone() }));
    cluster.route("shop", "same", json!({ "hostnames": ["*.shop.example", "shop.example"], "rules": rules.clone() }));
    cluster.route("shop", "twin", json!({ "rules": rules }));
    let method = json!([{ "method": { "service": "a.B", "method": "C" } }, { "method": { "service": "a.B" } }, {}]);
    let parents = json!([{ "name": "web", "namespace": "infra" }]);
    let grpc = json!({ "parentRefs": parents, "rules": [{ "matches": method, "backendRefs": [backend("cart")] }] });
    cluster.add(ObjectKind::GrpcRoute, "shop", "calls", grpc);
    let service = |name: &str| json!({ "service": { "name": name, "port": { "number": 8080 } } });
    let path = |path: &str, kind: &str| json!({ "path": path, "pathType": kind, "backend": service("cart") });
    let ingress = json!({
        "ingressClassName": "ours",
        "defaultBackend": service("missing"),
        "rules": [
            { "host": "a.example", "http": { "paths": [path("/", "Prefix"), path("/x", "Exact")] } },
            { "host": "*.a.example", "http": { "paths": [path("/", "ImplementationSpecific")] } },
        ],
    });
    cluster.add(ObjectKind::Ingress, "shop", "old", ingress);

    let translation = cluster.translated();
    let configuration = compiled(&translation);
    assert_eq!(configuration.excluded, []);
    let ids = configuration.snapshot.subsystems.iter().map(|subsystem| subsystem.id.to_string());
    assert_eq!(
        ids.collect::<Vec<_>>(),
        [
            "shop.calls_grpc",
            "shop.one",
            "shop.same",
            "shop.twin",
            "shop.old_ingress-0",
            "shop.old_ingress-1",
            "shop.old_ingress-default"
        ]
    );
    assert_eq!(translation.ingresses[0].faults.len(), 1, "{:?}", translation.ingresses);
}

#[test]
fn secret_of_a_namespace_that_is_not_watched_is_told_from_a_missing_one() {
    for (watched, expected) in [
        (&[][..], "there is no Secret infra/tls"),
        (&["infra", "shop"], "there is no Secret infra/tls"),
        (&["shop"], "Secrets of the namespace infra are not watched. Add it to secretNamespaces"),
    ] {
        let watched = watched.iter().map(|namespace| (*namespace).to_owned()).collect();
        let mut cluster = Cluster(Index::with_secrets_in(&watched));
        cluster.add(ObjectKind::GatewayClass, "", "ours", json!({ "controllerName": CONTROLLER_NAME }));
        let tls = json!({ "certificateRefs": [{ "name": "tls" }] });
        cluster.gateway(json!([{ "name": "l", "port": 443, "protocol": "HTTPS", "tls": tls }]));
        let translation = cluster.translated();
        let conditions = &translation.gateways[0].listeners[0].conditions;
        let resolved = conditions.iter().find(|one| one.kind == RESOLVED_REFS).expect("a condition");
        assert!(!resolved.holds && resolved.message.contains(expected), "{}", resolved.message);
    }
}

//! A Department with its ClientAuthPolicy, CommandSet and Grant, from the objects to requests with real certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use tallygate::clock::Clock;
use tallygate::identity::{
    ClientAuth, ExpiredCrlPolicy, MemoryTexts, PemStore, authority_digests, check_authorities, check_client_pair,
};
use tallygate::kube::CONTROLLER_NAME;
use tallygate::kube::index::Index;
use tallygate::kube::objects::ObjectKind;
use tallygate::kube::translate::{AuthorityDigests, NamedDocument, ServiceSettings, TextCheck, Translation, translate};

use crate::world::kube_documents::items_for_file;
use crate::world::{ANY_PORT, Client, Leaf, Pki, Server, World, empty, request, request_to, spiffe};

/// The checks of the loader, for certificates. Commands are compiled when the gateway starts.
struct LoaderChecks;

impl TextCheck for LoaderChecks {
    fn check_key_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String> {
        check_client_pair(certificate, key)
    }

    fn check_client_pair(&self, certificate: &Bytes, key: &Bytes) -> Result<(), String> {
        check_client_pair(certificate, key)
    }

    fn check_authorities(&self, pem: &Bytes) -> Result<(), String> {
        check_authorities(pem)
    }

    fn authority_digests(&self, pem: &Bytes) -> Result<AuthorityDigests, String> {
        authority_digests(pem)
    }

    fn check_client_auth(&self, authorities: &[Bytes], lists: &[Bytes], takes_expired: bool) -> Result<(), String> {
        let texts = MemoryTexts::default();
        let set = |kind: &str, all: &[Bytes]| -> Vec<PathBuf> {
            let names = (0..all.len()).map(|position| format!("memory:{kind}-{position}"));
            names.zip(all).for_each(|(name, text)| texts.set(&name, text.to_vec()).expect("room"));
            (0..all.len()).map(|position| PathBuf::from(format!("memory:{kind}-{position}"))).collect()
        };
        let auth = ClientAuth {
            authorities: set("authorities", authorities),
            revocation_lists: set("lists", lists),
            expired_crl: if takes_expired { ExpiredCrlPolicy::Allow } else { ExpiredCrlPolicy::Refuse },
            ..ClientAuth::default()
        };
        let checked = auth.check(&PemStore::new(&texts), &Clock::system());
        checked.map(drop).map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn check_commands(&self, _: &Value) -> Result<(), String> {
        Ok(())
    }
}

fn add(index: &mut Index, kind: ObjectKind, (namespace, name): (&str, &str), mut object: Value) {
    object["metadata"] = json!({ "namespace": namespace, "name": name, "generation": 1 });
    index.apply(kind, object);
}

fn spec(index: &mut Index, kind: ObjectKind, place: (&str, &str), spec: Value) {
    add(index, kind, place, json!({ "spec": spec }));
}

/// The value of an entry of a Secret.
fn encoded(file: &Path) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(std::fs::read(file).unwrap())).unwrap()
}

/// A Gateway `NAMESPACE/web` with an HTTPS listener for `host`, published at `target`, and a policy with this authority.
fn add_gateway(index: &mut Index, namespace: &str, (host, target): (&str, u16), revocation: bool) {
    let all = json!({ "namespaces": { "from": "All" } });
    let listener = json!({
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": host, "allowedRoutes": all,
        "tls": { "certificateRefs": [{ "name": "web-tls", "namespace": "shop" }] },
    });
    spec(
        index,
        ObjectKind::Gateway,
        (namespace, "web"),
        json!({ "gatewayClassName": "ours", "listeners": [listener] }),
    );
    let service = json!({
        "metadata": {
            "namespace": namespace, "name": "web",
            "annotations": { "tallygate.io/gateway": format!("{namespace}/web") },
        },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 443, "targetPort": target }] },
    });
    index.apply(ObjectKind::Service, service);
    let authorities = json!([{ "kind": "ConfigMap", "name": "callers" }]);
    let mut policy = json!({
        "targetRefs": [{ "kind": "Gateway", "name": "web" }],
        "caCertificateRefs": authorities,
    });
    if revocation {
        policy["revocationListRefs"] = authorities;
    }
    spec(index, ObjectKind::ClientAuthPolicy, (namespace, "callers"), policy);
}

fn add_config_map(index: &mut Index, place: (&str, &str), files: &[(&str, &Path)]) {
    let entry = |(name, file): &(&str, &Path)| ((*name).to_owned(), json!(std::fs::read_to_string(file).unwrap()));
    let data: serde_json::Map<String, Value> = files.iter().map(entry).collect();
    add(index, ObjectKind::ConfigMap, place, json!({ "data": data }));
}

/// The objects of the city, with a tenant that has a Gateway and an authority of its own.
fn objects(pki: &Path, tenant: &Path, server: std::net::SocketAddr) -> Index {
    let mut index = Index::default();
    spec(&mut index, ObjectKind::GatewayClass, ("", "ours"), json!({ "controllerName": CONTROLLER_NAME }));
    let data = json!({ "tls.crt": encoded(&pki.join("server.pem")), "tls.key": encoded(&pki.join("server.key")) });
    add(&mut index, ObjectKind::Secret, ("shop", "web-tls"), json!({ "type": "kubernetes.io/tls", "data": data }));
    let from = json!([{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "tenant" }]);
    let to = json!([{ "group": "", "kind": "Secret", "name": "web-tls" }]);
    spec(&mut index, ObjectKind::ReferenceGrant, ("shop", "certificate"), json!({ "from": from, "to": to }));
    let (authority, list) = (pki.join("ca.pem"), pki.join("revoked.crl"));
    add_config_map(&mut index, ("system", "city-ca"), &[("ca.crt", &authority)]);
    add_config_map(&mut index, ("shop", "callers"), &[("ca.crt", &authority), ("ca.crl", &list)]);
    add_config_map(&mut index, ("tenant", "callers"), &[("ca.crt", tenant)]);
    add_gateway(&mut index, "shop", ("gateway.city.example", 20_001), true);
    add_gateway(&mut index, "tenant", ("localhost", 20_002), false);
    for department in ["traffic-police", "logistics"] {
        let department_spec = json!({
            "authorities": [{ "namespace": "system", "name": "city-ca" }],
            "callers": [{ "uri": spiffe(department) }],
        });
        spec(&mut index, ObjectKind::Department, ("", department), department_spec);
    }
    let commands = json!([
        { "id": "snapshot.submit", "matches": [{ "method": "POST", "path": "/v1/snapshots" }], "units": 5 },
        { "id": "snapshot.read", "matches": [{ "method": "GET", "path": "/v1/snapshots/{id}" }] },
    ]);
    spec(&mut index, ObjectKind::CommandSet, ("shop", "cameras"), json!({ "commands": commands }));
    let path = json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" });
    let filters = json!([
        { "type": "ExtensionRef", "extensionRef": { "group": "tallygate.io", "kind": "CommandSet", "name": "cameras" } },
        { "type": "URLRewrite", "urlRewrite": { "path": path } },
    ]);
    let rule = json!({
        "name": "api",
        "matches": [{ "path": { "type": "PathPrefix", "value": "/cameras" } }],
        "filters": filters,
        "backendRefs": [{ "name": "cameras", "port": 80 }],
    });
    let parents = json!([{ "name": "web" }, { "name": "web", "namespace": "tenant" }]);
    spec(&mut index, ObjectKind::HttpRoute, ("shop", "cameras"), json!({ "parentRefs": parents, "rules": [rule] }));
    let grant = json!({
        "targetRefs": [{ "kind": "HTTPRoute", "name": "cameras" }],
        "departments": ["traffic-police"],
        "commands": ["snapshot.*"],
        "limits": { "rate": "1000/s" },
    });
    spec(&mut index, ObjectKind::Grant, ("shop", "cameras"), grant);
    spec(&mut index, ObjectKind::Service, ("shop", "cameras"), json!({ "ports": [{ "port": 80 }] }));
    let slice = json!({
        "metadata": { "namespace": "shop", "name": "cameras-1", "labels": { "kubernetes.io/service-name": "cameras" } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [server.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "", "port": server.port(), "protocol": "TCP" }],
    });
    index.apply(ObjectKind::EndpointSlice, slice);
    index
}

/// The host of the Ingress: the certificate of the gateway has it.
const INGRESS_HOST: &str = "gateway.city.example";

/// An Ingress that asks for certificates of the city's authority, as in ingress-nginx, and a Grant for the police.
fn add_ingress(index: &mut Index, pki: &Path) {
    spec(index, ObjectKind::IngressClass, ("", "ours"), json!({ "controller": CONTROLLER_NAME }));
    let data = json!({ "ca.crt": encoded(&pki.join("ca.pem")) });
    add(index, ObjectKind::Secret, ("shop", "callers"), json!({ "data": data }));
    let path = |path: &str| {
        let backend = json!({ "service": { "name": "cameras", "port": { "number": 80 } } });
        json!({ "path": path, "pathType": "Prefix", "backend": backend })
    };
    let rules = json!([{ "host": INGRESS_HOST, "http": { "paths": [path("/gate"), path("/open")] } }]);
    let tls = json!([{ "hosts": [INGRESS_HOST], "secretName": "web-tls" }]);
    let annotations = json!({ "nginx.ingress.kubernetes.io/auth-tls-secret": "shop/callers" });
    let metadata = json!({ "namespace": "shop", "name": "gate", "generation": 1, "annotations": annotations });
    let ingress = json!({ "ingressClassName": "ours", "rules": rules, "tls": tls });
    index.apply(ObjectKind::Ingress, json!({ "metadata": metadata, "spec": ingress }));
    let grant = json!({
        "targetRefs": [{ "group": "networking.k8s.io", "kind": "Ingress", "name": "gate" }],
        "departments": ["traffic-police"],
        "commands": ["rule-0-0"],
    });
    spec(index, ObjectKind::Grant, ("shop", "gate"), grant);
}

/// Puts the texts of a translation in place, and its documents into the configuration.
fn use_translation(document: &mut Value, texts: &MemoryTexts, (translation, index): (&Translation, &Index)) {
    for list in ["listeners", "departments", "subsystems", "backends", "grants"] {
        let of_one = |one: &Arc<NamedDocument>| items_for_file(list, &one.content()[list], index);
        document[list] = translation.documents.iter().flat_map(of_one).collect();
    }
    for listener in document["listeners"].as_array_mut().unwrap() {
        listener["address"] = json!(ANY_PORT.to_string());
    }
    for (name, text) in &translation.texts.0 {
        texts.set(name, text.to_vec()).expect("room");
    }
}

fn translated(index: &Index) -> Translation {
    translate(index, &ServiceSettings::default(), &LoaderChecks)
}

const READ: &str = "/cameras/v1/snapshots/1";

/// The folder has the tenant's keys as long as it is kept.
async fn start() -> (World, MemoryTexts, Index, (Pki, tempfile::TempDir)) {
    let mut index = Index::default();
    let texts = MemoryTexts::default();
    let folder = tempfile::tempdir().unwrap();
    let tenant = Pki::new(folder.path(), "tenant");
    let server = Server::start();
    let plan = World::city().with_pki(|pki| {
        pki.revoke(&[]);
        let files = pki.authority_file();
        index = objects(files.parent().unwrap(), &tenant.authority_file(), server.address);
        add_ingress(&mut index, files.parent().unwrap());
    });
    let translation = translated(&index);
    let is_good = |outcome: &tallygate::kube::translate::DepartmentOutcome| outcome.has_listener;
    assert!(translation.departments.iter().all(is_good), "{:?}", translation.departments);
    let mut world = plan.edit(|document| use_translation(document, &texts, (&translation, &index))).build();
    world.add_server("cameras-of-the-shop", server);
    world.start_here_with(texts.clone()).await;
    (world, texts, index, (tenant, folder))
}

#[tokio::test]
async fn department_policy_command_set_and_grant_work_together() {
    let (world, texts, mut index, (tenant, _folder)) = start().await;
    let police = world.client("traffic-police");
    assert_eq!(police.get(READ).await.status, 200);
    assert_eq!(police.post("/cameras/v1/snapshots", "picture").await.status, 200);
    let unknown = police.get("/cameras/v1/other").await;
    assert_eq!((unknown.status.as_u16(), unknown.problem().as_deref()), (404, Some("unknown_command")));
    let ungranted = world.client("logistics").get(READ).await;
    assert_eq!((ungranted.status.as_u16(), ungranted.problem().as_deref()), (403, Some("forbidden")));
    let archive = world.credentials(Some(world.identity("archive").clone()));
    let unclaimed = world.client_of("unknown", &archive).get(READ).await;
    assert_eq!((unclaimed.status.as_u16(), unclaimed.problem().as_deref()), (401, Some("unauthenticated")));

    // The tenant's authority certifies the name of the police, on the Gateway of the tenant.
    let thief = tenant.issue(&Leaf::department("traffic-police"));
    let address = world.running().listener("tenant.web_443").unwrap();
    let thief = Client::new("unknown", &world.credentials(Some(thief)), address, &world.log).naming(Some("localhost"));
    let stolen = thief.send(request_to("localhost", "GET", READ, empty())).await;
    assert_eq!((stolen.status.as_u16(), stolen.problem().as_deref()), (401, Some("unauthenticated")));

    // A revocation list in a ConfigMap.
    world.pki.revoke(&[world.identity("traffic-police")]);
    let pki = world.folder().join("pki");
    add_config_map(
        &mut index,
        ("shop", "callers"),
        &[("ca.crt", &pki.join("ca.pem")), ("ca.crl", &pki.join("revoked.crl"))],
    );
    let translation = translated(&index);
    for (name, text) in &translation.texts.0 {
        texts.set(name, text.to_vec()).expect("room");
    }
    world.running().reload().expect("a good list");
    let revoked = world.client("traffic-police");
    if let Ok(reply) = revoked.try_send(request("GET", READ, empty())).await {
        assert_eq!(reply.problem().as_deref(), Some("unauthenticated"), "the revoked caller");
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.admitted("traffic-police").units), (2, 6));
    assert_eq!((usage.of("traffic-police", "unknown_command"), usage.of("logistics", "forbidden")), (1, 1));
    let of_command = |command: &str| usage.sum(|key| key.subsystem == "shop.cameras" && key.command == command);
    assert_eq!((of_command("snapshot.read"), of_command("snapshot.submit")), (2, 1), "one of them refused");
}

#[tokio::test]
async fn department_calls_an_ingress_that_asks_for_certificates() {
    let (world, _texts, _index, _kept) = start().await;
    let address = world.running().listener("ingress_443").unwrap();
    let caller = |department: &str, certificate: Option<&str>| {
        let credentials = world.credentials(certificate.map(|name| world.identity(name).clone()));
        Client::new(department, &credentials, address, &world.log).naming(Some(INGRESS_HOST))
    };
    let get = |path: &str| request_to(INGRESS_HOST, "GET", path, empty());
    let police = caller("traffic-police", Some("traffic-police"));
    assert_eq!(police.send(get("/gate/1")).await.status, 200);
    for (client, path, expected) in [
        (&police, "/open", (403, Some("forbidden"))), // a path that the Grant does not name
        (&caller("logistics", Some("logistics")), "/gate/1", (403, Some("forbidden"))),
        (&caller("ingress", Some("archive")), "/gate/1", (403, Some("forbidden"))), // no Department claims it
        (&caller("unknown", None), "/gate/1", (400, None)),                         // as ingress-nginx
    ] {
        let reply = client.send(get(path)).await;
        let problem = reply.problem();
        let shown = (reply.status.as_u16(), problem.as_deref().filter(|_| expected.1.is_some()));
        assert_eq!(shown, expected, "{path}: {problem:?}");
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "forbidden")), (1, 1));
    assert_eq!((usage.of("logistics", "forbidden"), usage.of("ingress", "forbidden")), (1, 1));
    assert_eq!(usage.sum(|key| key.subsystem == "shop.gate_ingress" && key.command == "rule-0-0"), 3);
}

//! Ingresses with annotations of ingress-nginx, from the objects to requests: rewrites, redirects, and refused ones.

use bytes::Bytes;
use serde_json::{Value, json};

use tallygate::kube::CONTROLLER_NAME;
use tallygate::kube::index::Index;
use tallygate::kube::objects::ObjectKind;
use tallygate::kube::translate::{AuthorityDigests, ServiceSettings, TextCheck, translate};

use crate::world::kube_documents::items_for_file;
use crate::world::{ANY_PORT, Seen, Server, World, run, stderr, stdout, tool};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// The Ingresses have no certificates.
struct NoTexts;

impl TextCheck for NoTexts {
    fn check_key_pair(&self, _: &Bytes, _: &Bytes) -> Result<(), String> {
        Err("not in this test".to_owned())
    }

    fn check_client_pair(&self, _: &Bytes, _: &Bytes) -> Result<(), String> {
        Err("not in this test".to_owned())
    }

    fn check_authorities(&self, _: &Bytes) -> Result<(), String> {
        Err("not in this test".to_owned())
    }

    fn authority_digests(&self, _: &Bytes) -> Result<AuthorityDigests, String> {
        Err("not in this test".to_owned())
    }

    fn check_client_auth(&self, _: &[Bytes], _: &[Bytes], _: bool) -> Result<(), String> {
        Err("not in this test".to_owned())
    }

    fn check_commands(&self, _: &Value) -> Result<(), String> {
        Err("not in this test".to_owned())
    }
}

fn add(index: &mut Index, kind: ObjectKind, object: Value) {
    index.apply(kind, object);
}

/// A class of ours, and the Service `shop/web` with this server.
fn index_with(server: &Server) -> Index {
    let mut index = Index::default();
    let class = json!({ "metadata": { "name": "ours" }, "spec": { "controller": CONTROLLER_NAME } });
    add(&mut index, ObjectKind::IngressClass, class);
    let metadata = json!({ "namespace": "shop", "name": "web", "labels": { "kubernetes.io/service-name": "web" } });
    let spec = json!({ "ports": [{ "port": 80 }] });
    add(&mut index, ObjectKind::Service, json!({ "metadata": metadata, "spec": spec }));
    let slice = json!({
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [server.address.ip().to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": "", "port": server.address.port(), "protocol": "TCP" }],
    });
    add(&mut index, ObjectKind::EndpointSlice, slice);
    index
}

/// Adds an Ingress for `shop.example` with one path and these annotations.
fn add_ingress(index: &mut Index, name: &str, path: &str, annotations: &[(&str, &str)]) {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), json!(value))).collect();
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    let path = json!({ "path": path, "pathType": "ImplementationSpecific", "backend": backend });
    let spec =
        json!({ "ingressClassName": "ours", "rules": [{ "host": "shop.example", "http": { "paths": [path] } }] });
    let metadata = json!({ "namespace": "shop", "name": name, "annotations": annotations });
    add(index, ObjectKind::Ingress, json!({ "metadata": metadata, "spec": spec }));
}

/// Adds the lists of the translated documents to a configuration.
fn add_documents(document: &mut Value, index: &Index) {
    for translated in translate(index, &ServiceSettings::default(), &NoTexts).documents.iter() {
        for (list, items) in translated.content().as_object().unwrap() {
            if document.get(list).is_none() {
                document[list] = json!([]);
            }
            document[list].as_array_mut().unwrap().extend(items_for_file(list, items, index));
        }
    }
    let listeners = document["listeners"].as_array_mut().unwrap();
    let ours = listeners.iter_mut().find(|listener| listener["name"] == "ingress_80").unwrap();
    ours["address"] = json!(ANY_PORT.to_string());
}

/// The status, and the location of a redirect.
async fn answer(world: &World, path: &str) -> String {
    let address = world.running().listener("ingress_80").unwrap();
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
    curl.args(["-H", "Host: shop.example", &format!("http://{address}{path}")]);
    let ended = run(curl).await;
    assert!(ended.status.success(), "{}", stderr(&ended));
    stdout(&ended).trim().to_owned()
}

#[tokio::test]
async fn annotated_ingresses_answer_as_their_annotations_say() {
    let server = Server::start();
    let mut index = index_with(&server);
    add_ingress(&mut index, "app", "/app(/|$)(.*)", &[("rewrite-target", "/do/$2"), ("limit-rps", "100")]);
    add_ingress(&mut index, "moved", "/moved", &[("permanent-redirect", "https://new.example$request_uri")]);
    add_ingress(&mut index, "open", "/do", &[]);
    add_ingress(&mut index, "closed", "/do/admin", &[("whitelist-source-range", "10.0.0.0/8")]);
    let mut world = World::city().edit(|document| add_documents(document, &index)).start().await;
    world.add_server("web", server);
    for (path, expected, outcome) in [
        ("/app/echo", "200", "ok"),
        ("/APP/echo", "404", "unknown_command"),
        ("/do/echo", "200", "ok"),
        ("/do/admin/x", "403", "forbidden"),
        ("/moved/a?b=c", "301 https://new.example/moved/a?b=c", "ok"),
    ] {
        assert_eq!(answer(&world, path).await, expected, "{path}");
        world.log.note("ingress", Seen::Outcome(outcome));
    }
    let received: Vec<String> = world.server("web").log.all().iter().map(|one| one.path.clone()).collect();
    assert_eq!(received, ["/do/echo", "/do/echo"]);
    world.note_answered_here("ingress", "shop.moved_ingress/rule-0-0", 1);
    let usage = world.close().await;
    assert_eq!((usage.of("ingress", "ok"), usage.of("ingress", "forbidden")), (3, 1));
}

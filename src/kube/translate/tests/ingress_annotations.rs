//! From Ingresses with annotations of ingress-nginx to a configuration that compiles.

use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::clock::Clock;
use crate::config::{ConfigLoader, Configuration, MemoryDocument, MemoryDocuments, SharedDocuments};
use crate::identity::{MemoryOrDisk, MemoryTexts};
use crate::model::{Name, NameInterner};
use crate::policy::{HashSource, LoadBalancing, QueryPairs, RouteMatch, RouteRequest, SessionCookie, SessionSecret};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// A certificate that is its own authority, and its key.
fn certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).expect("a certificate");
    (certificate.pem(), key.serialize_pem())
}

/// A cluster with the class `ours`, the Services `shop/web` and `shop/next`, and the Secret `shop/tls`.
fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.add(ObjectKind::IngressClass, "", "ours", json!({ "controller": CONTROLLER_NAME }));
    for (name, address) in [("web", "10.77.1.2"), ("next", "10.77.1.3")] {
        cluster.service("shop", name, json!({ "port": 80 }), &[address]);
    }
    secret(&mut cluster, "tls", &[]);
    cluster
}

fn base64(text: &str) -> String {
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec()))
        .expect("text")
        .as_str()
        .expect("text")
        .to_owned()
}

/// A Secret with a certificate, its key, and the same certificate as an authority.
fn secret(cluster: &mut Cluster, name: &str, more: &[(&str, &str)]) {
    let (certificate, key) = certificate();
    let mut data = json!({ "tls.crt": base64(&certificate), "tls.key": base64(&key), "ca.crt": base64(&certificate) });
    for (name, text) in more {
        data[*name] = json!(base64(text));
    }
    let metadata = json!({ "namespace": "shop", "name": name });
    cluster.add_object(ObjectKind::Secret, json!({ "metadata": metadata, "type": "kubernetes.io/tls", "data": data }));
}

fn path(path: &str, service: &str) -> Value {
    let backend = json!({ "service": { "name": service, "port": { "number": 80 } } });
    json!({ "path": path, "pathType": "ImplementationSpecific", "backend": backend })
}

/// Adds an Ingress of the class `ours` in the namespace `shop`.
fn add_ingress(cluster: &mut Cluster, name: &str, spec: Value, annotations: &[(&str, &str)]) {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), json!(value))).collect();
    let mut spec = spec;
    spec["ingressClassName"] = json!("ours");
    let metadata = json!({ "namespace": "shop", "name": name, "annotations": annotations });
    cluster.add_object(ObjectKind::Ingress, json!({ "metadata": metadata, "spec": spec }));
}

/// An Ingress with TLS for `a.example` and these paths to the Service `web`.
fn spec(paths: &[&str]) -> Value {
    let paths: Vec<Value> = paths.iter().map(|one| path(one, "web")).collect();
    json!({
        "tls": [{ "hosts": ["a.example"], "secretName": "tls" }],
        "rules": [{ "host": "a.example", "http": { "paths": paths } }],
    })
}

/// The configuration of a translation, as the data plane loads it.
fn compiled(translation: &Translation) -> Configuration {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("gateway.yaml");
    std::fs::write(&main, "ledger: { path: l.db }\n").expect("a file");
    let texts = MemoryTexts::default();
    for (name, text) in &translation.texts.0 {
        texts.set(name, text.to_vec()).expect("a text");
    }
    let document =
        |named: &Arc<NamedDocument>| MemoryDocument::from_json(named.name(), &named.content()).expect("a document");
    let documents = translation.documents.iter().map(document).collect();
    let shared = SharedDocuments::default();
    shared.store(Arc::new(MemoryDocuments { version: "1".to_owned(), documents }));
    let clock = Clock::manual(Timestamp::now());
    let source = Box::new(MemoryOrDisk(texts));
    let mut loader = ConfigLoader::with_pem_source(&main, clock, source).with_documents(shared);
    let configuration = loader.load(&NameInterner::default()).configuration.expect("no problems");
    assert_eq!(configuration.excluded, [], "{:#?}", translation.documents);
    configuration
}

/// The document of the only Ingress with these annotations, after it has compiled.
fn document(paths: &[&str], annotations: &[(&str, &str)]) -> Value {
    let mut cluster = cluster();
    add_ingress(&mut cluster, "i", spec(paths), annotations);
    let translation = cluster.translated();
    compiled(&translation);
    let found = translation.documents.iter().find(|document| &**document.name() == "Ingress shop/i");
    found.map(|document| document.content()).unwrap_or_default()
}

#[test]
fn what_is_taken_compiles() {
    for annotations in [
        &[][..],
        &[("ssl-redirect", "true")],
        &[("force-ssl-redirect", "true"), ("app-root", "/console")],
        &[("app-root", "/console")],
        &[("permanent-redirect", "https://b.example$request_uri")],
        &[("permanent-redirect", "https://b.example/x"), ("ssl-redirect", "true")],
        &[("temporal-redirect", "https://b.example")],
        &[("proxy-body-size", "0")],
        &[("proxy-body-size", "8m"), ("proxy-read-timeout", "3600"), ("proxy-connect-timeout", "5")],
        &[("backend-protocol", "GRPC")],
        &[("backend-protocol", "HTTPS"), ("proxy-ssl-secret", "shop/tls"), ("proxy-ssl-name", "a.example")],
        &[("backend-protocol", "GRPCS"), ("proxy-ssl-secret", "tls")],
        &[("limit-rps", "10"), ("limit-connections", "3"), ("limit-burst-multiplier", "2")],
        &[("limit-rpm", "10"), ("limit-rps", "1"), ("limit-whitelist", "10.0.0.0/8")],
        &[("limit-rate", "9007199254740991"), ("limit-rate-after", "9007199254740991"), ("proxy-buffering", "on")],
        &[("whitelist-source-range", "10.0.0.0/8"), ("denylist-source-range", "10.1.2.3")],
        &[
            ("auth-tls-secret", "shop/tls"),
            ("auth-tls-error-page", "https://b.example/e"),
            ("auth-tls-match-cn", "CN=a"),
        ],
        &[("enable-cors", "true")],
        &[("enable-cors", "true"), ("cors-allow-origin", "https://a.example,https://*.b.example")],
        &[("enable-cors", "true"), ("cors-expose-headers", "*, X-A")],
        &[("enable-cors", "true"), ("cors-expose-headers", "*"), ("cors-allow-origin", "https://a.example")],
        &[("enable-cors", "true"), ("cors-allow-headers", "*"), ("cors-allow-methods", "*")],
        &[("upstream-vhost", "in.example"), ("rewrite-target", "/new")],
        &[("upstream-vhost", "in.example")],
        &[("server-alias", "b.example,c.example,a.example"), ("ssl-redirect", "true")],
        &[("upstream-hash-by", "$http_x_user")],
        &[("load-balance", "round_robin")],
        &[("use-regex", "true")],
        &[("auth-tls-secret", "shop/tls")],
        &[("auth-tls-secret", "shop/tls"), ("auth-tls-verify-client", "optional"), ("server-alias", "b.example")],
        &[("auth-tls-secret", "shop/tls"), ("auth-tls-verify-client", "optional_no_ca")],
        &[("auth-tls-secret", "shop/tls"), ("auth-tls-verify-client", "off")],
        &[("affinity", "cookie"), ("session-cookie-max-age", "3600"), ("session-cookie-domain", "a.example")],
        &[("affinity", "cookie"), ("affinity-mode", "persistent"), ("session-cookie-change-on-failure", "true")],
        &[("something-new", "x")],
    ] {
        let document = document(&["/", "/app"], annotations);
        assert_ne!(document, Value::Null, "{annotations:?}");
    }
    for (paths, target) in [
        (&["/app(/|$)(.*)"][..], "/$2"),
        (&["/a/(.*)", "/b/(.*)"], "/v2/$1"),
        (&["/(.*)"], "/v2/$1"),
        (&["/app", "/longer/app"], "/new"),
    ] {
        assert_ne!(document(paths, &[("rewrite-target", target)]), Value::Null, "{paths:?}");
    }
}

/// The cookie of the only backend with one, in the configuration of a cluster whose class has this UID.
fn session_cookie(class_uid: &str, annotations: &[(&str, &str)]) -> SessionCookie {
    let mut cluster = cluster();
    let class = json!({
        "metadata": { "name": "ours", "uid": class_uid, "generation": 1 },
        "spec": { "controller": CONTROLLER_NAME },
    });
    cluster.add_object(ObjectKind::IngressClass, class);
    add_ingress(&mut cluster, "i", spec(&["/"]), annotations);
    let snapshot = compiled(&cluster.translated()).snapshot;
    let cookies = snapshot.backends.iter().filter_map(|backend| match &backend.balance {
        LoadBalancing::Hash(HashSource::Cookie(cookie)) => Some(SessionCookie::clone(cookie)),
        _ => None,
    });
    let cookies: Vec<SessionCookie> = cookies.collect();
    assert_eq!(cookies.len(), 1, "{cookies:?}");
    cookies.into_iter().next().expect("a cookie")
}

#[test]
fn all_replicas_have_the_secret_of_persistent_sessions_and_other_clusters_have_another() {
    let balanced = session_cookie("4d2c", &[("affinity", "cookie")]);
    assert!(balanced.persistence.is_none() && !balanced.changes_on_failure);
    let annotations =
        [("affinity", "cookie"), ("affinity-mode", "persistent"), ("session-cookie-change-on-failure", "true")];
    let [one, same, other] = ["4d2c", "4d2c", "9e71"].map(|uid| session_cookie(uid, &annotations));
    assert!(one.changes_on_failure);
    assert_eq!(one.persistence, Some(SessionSecret::new("sessions of the IngressClass 4d2c")));
    assert!(one == same && one != other);
}

#[test]
fn what_restricts_callers_and_is_lost_refuses_the_ingress() {
    for annotation in [
        ("whitelist-source-range", "here"),
        ("denylist-source-range", "10.0.0.0/8, here"),
        ("auth-url", "https://auth.example"),
        ("auth-type", "basic"),
        ("server-snippet", "deny all;"),
        ("ssl-passthrough", "true"),
        ("rewrite-target", "/x?y=1"),
        ("permanent-redirect", "https://b.example/x?y=1"),
        ("auth-tls-secret", "shop/missing"),
        ("auth-tls-secret", "other/tls"),
    ] {
        let mut cluster = cluster();
        add_ingress(&mut cluster, "i", spec(&["/"]), &[annotation]);
        add_ingress(&mut cluster, "other", json!({ "rules": [{ "http": { "paths": [path("/", "next")] } }] }), &[]);
        let translation = cluster.translated();
        let names: Vec<&str> = translation.documents.iter().map(|document| &**document.name()).collect();
        assert!(
            !names.contains(&"Ingress shop/i") && names.contains(&"Ingress shop/other"),
            "{annotation:?} {names:?}"
        );
        let outcome = &translation.ingresses[0];
        assert_eq!(outcome.document, None, "{annotation:?}");
        assert!(outcome.faults.iter().any(|(_, why)| why.contains("is refused")), "{annotation:?} {outcome:?}");
        let snapshot = compiled(&translation).snapshot;
        let held = snapshot.subsystems.iter().find(|subsystem| subsystem.id.as_str().contains("refused"));
        assert!(held.is_some_and(|held| !held.commands.is_empty()), "{annotation:?}: its paths are answered with 503");
    }
}

#[test]
fn annotations_of_other_classes_have_no_meaning() {
    let mut cluster = cluster();
    let metadata = json!({ "namespace": "shop", "name": "i", "annotations": { format!("{PREFIX}auth-url"): "x" } });
    let mut other = spec(&["/"]);
    other["ingressClassName"] = json!("nginx");
    cluster.add_object(ObjectKind::Ingress, json!({ "metadata": metadata, "spec": other }));
    assert!(cluster.translated().ingresses.is_empty());
}

#[test]
fn redirect_to_https_is_a_subsystem_of_the_plain_listener() {
    let document = document(&["/", "/app"], &[("ssl-redirect", "true")]);
    let (plain, https) = (&document["subsystems"][0], &document["subsystems"][1]);
    assert_eq!((&plain["id"], &plain["listeners"]), (&json!("shop.i_ingress-redirect"), &json!(["ingress_80"])));
    assert_eq!((&https["id"], &https["listeners"]), (&json!("shop.i_ingress"), &json!(["ingress_443"])));
    assert_eq!(plain["commands"][0]["redirect"], json!({ "scheme": "https", "status": 308 }));
    assert_eq!(
        (&plain["commands"][1]["match"], &plain["commands"][1]["units"]),
        (&https["commands"][1]["match"], &json!(0))
    );
    assert_eq!(document["grants"].as_array().map(Vec::len), Some(2));
}

#[test]
fn without_a_certificate_the_plain_listener_still_redirects() {
    let mut cluster = cluster();
    cluster.0.delete(ObjectKind::Secret, &ObjectKey::new("shop", "tls"));
    add_ingress(&mut cluster, "i", spec(&["/"]), &[("ssl-redirect", "true")]);
    let translation = cluster.translated();
    compiled(&translation);
    let subsystems = translation.documents.iter().last().expect("a document").content()["subsystems"].clone();
    assert_eq!(subsystems.as_array().map(Vec::len), Some(1));
    assert_eq!(subsystems[0]["listeners"], json!(["ingress_80"]));
}

#[test]
fn client_certificates_belong_to_the_host() {
    let mut cluster = cluster();
    let wildcard = json!({
        "tls": [{ "hosts": ["*.example"], "secretName": "tls" }],
        "rules": [{ "host": "*.example", "http": { "paths": [path("/", "next")] } }],
    });
    add_ingress(&mut cluster, "all", wildcard, &[]);
    let host = json!({ "rules": [{ "host": "a.example", "http": { "paths": [path("/", "web")] } }] });
    add_ingress(&mut cluster, "own", host.clone(), &[("auth-tls-secret", "shop/tls")]);
    let translation = cluster.translated();
    compiled(&translation);
    let mut documents = translation.documents.iter();
    let listeners =
        documents.find(|document| document.name().starts_with("the listeners")).expect("listeners").content();
    let entries = listeners["listeners"][1]["tls"]["certificates"].as_array().expect("entries");
    let of = |host: &str| entries.iter().find(|entry| entry["serverNames"] == json!([host])).expect("an entry");
    assert_eq!(of("*.example").get("clientAuth"), None);
    let client_auth = &of("a.example")["clientAuth"];
    let (authorities, realm) = (&client_auth["authorities"], &client_auth["realm"]);
    let expected = json!({
        "mode": "required", "refusal": "response", "maxDepth": 1, "forward": "names", "authorities": authorities,
        "realm": realm,
    });
    assert_eq!(*client_auth, expected);
    assert!(realm.as_str().is_some_and(|realm| realm.starts_with("ca_")), "that of its authorities: {realm}");
    let own = cluster.document("Ingress shop/own")["subsystems"].clone();
    let listeners: Vec<&Value> = own.as_array().expect("a list").iter().map(|one| &one["listeners"]).collect();
    assert_eq!(listeners, [&json!(["ingress_80"]), &json!(["ingress_443"])], "plain requests are redirected");
    // A younger Ingress that asks for other authorities is refused, one that asks for none is not.
    secret(&mut cluster, "ca2", &[]);
    add_ingress(&mut cluster, "own2", host.clone(), &[("auth-tls-secret", "shop/ca2")]);
    add_ingress(&mut cluster, "own3", host, &[]);
    let translation = cluster.translated();
    compiled(&translation);
    let outcome = |name: &str| translation.ingresses.iter().find(|one| &*one.key.name == name).expect("an outcome");
    assert!(
        outcome("own2").document.is_none() && outcome("own2").faults.iter().any(|(reason, _)| *reason == "Conflicted")
    );
    assert!(outcome("own3").document.is_some());
}

/// A PEM certificate of an authority, and an empty revocation list of it.
fn authority_with_list() -> (String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
    let pem = parameters.self_signed(&key).expect("a certificate").pem();
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2126, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&rcgen::Issuer::new(parameters, key)).expect("a list");
    (pem, list.pem().expect("PEM"))
}

#[test]
fn revocation_lists_of_the_secret_belong_to_the_host() {
    let mut cluster = cluster();
    let (authority, list) = authority_with_list();
    secret(&mut cluster, "ca", &[("ca.crt", &authority), ("ca.crl", &list)]);
    let host = json!({
        "tls": [{ "hosts": ["a.example"], "secretName": "tls" }],
        "rules": [{ "host": "a.example", "http": { "paths": [path("/", "web")] } }],
    });
    add_ingress(&mut cluster, "i", host, &[("auth-tls-secret", "shop/ca")]);
    let translation = cluster.translated();
    compiled(&translation);
    let mut documents = translation.documents.iter();
    let listeners =
        documents.find(|document| document.name().starts_with("the listeners")).expect("listeners").content();
    let client_auth = &listeners["listeners"][1]["tls"]["certificates"][0]["clientAuth"];
    assert_eq!(client_auth["revocation"], json!(["memory:secret/shop/ca/ca.crl"]), "{listeners:#}");
    assert_eq!(client_auth["expiredRevocation"], "refuse");
    assert_eq!(*translation.texts.0["memory:secret/shop/ca/ca.crl"], *list.as_bytes());
}

#[test]
fn revocation_lists_that_cannot_be_used_refuse_the_ingress() {
    let mut cluster = cluster();
    secret(&mut cluster, "ca", &[("ca.crl", "expired")]); // as the check of these tests finds
    add_ingress(&mut cluster, "i", spec(&["/"]), &[("auth-tls-secret", "shop/ca")]);
    let outcome = cluster.translated().ingresses.remove(0);
    let why = |(reason, why): &(&str, String)| *reason == "InvalidCACertificateRef" && why.contains("not a current");
    assert!(outcome.document.is_none() && outcome.faults.iter().any(why), "{outcome:?}");
}

#[test]
fn canaries_share_the_requests_of_the_main_ingress() {
    for (annotations, ids, shares) in [
        (
            &[("canary-weight", "20")][..],
            &["rule-0-0"][..],
            json!([{ "backend": "shop.web_80", "weight": 80 }, { "backend": "shop.next_80", "weight": 20 }]),
        ),
        (
            &[("canary-by-header", "x-canary")],
            &["rule-0-0-canary-0", "rule-0-0-canary-1", "rule-0-0"],
            json!([{ "backend": "shop.next_80" }]),
        ),
        (
            &[("canary-by-cookie", "c"), ("canary-weight", "1")],
            &["rule-0-0-canary-0", "rule-0-0-canary-1", "rule-0-0"],
            json!([{ "backend": "shop.next_80" }]),
        ),
    ] {
        let mut cluster = cluster();
        add_ingress(&mut cluster, "main", spec(&["/"]), &[]);
        let rule = json!({ "host": "a.example", "http": { "paths": [path("/", "next")] } });
        let annotations: Vec<(&str, &str)> = annotations.iter().copied().chain([("canary", "true")]).collect();
        add_ingress(&mut cluster, "next", json!({ "rules": [rule] }), &annotations);
        let translation = cluster.translated();
        compiled(&translation);
        let commands = cluster.document("Ingress shop/main")["subsystems"][0]["commands"].clone();
        let found: Vec<&str> =
            commands.as_array().expect("a list").iter().filter_map(|one| one["id"].as_str()).collect();
        assert_eq!(found, ids, "{annotations:?}");
        assert_eq!(commands[0]["backends"], shares, "{annotations:?}");
        let outcome = &translation.ingresses[1];
        assert!(outcome.document.is_none() && outcome.faults.iter().all(|(reason, _)| *reason != "NoMainIngress"));
    }
}

#[test]
fn a_canary_without_a_main_ingress_takes_no_requests() {
    let mut cluster = cluster();
    add_ingress(&mut cluster, "next", spec(&["/"]), &[("canary", "true"), ("canary-weight", "100")]);
    let other = json!({ "rules": [{ "host": "a.example", "http": { "paths": [path("/other", "web")] } }] });
    add_ingress(&mut cluster, "main", other, &[]);
    let translation = cluster.translated();
    let outcome = translation.ingresses.iter().find(|one| &*one.key.name == "next").expect("an outcome");
    assert!(outcome.faults.iter().any(|(reason, _)| *reason == "NoMainIngress"), "{outcome:?}");
    assert_eq!(translation.documents.iter().filter(|document| document.name().starts_with("Ingress")).count(), 1);
}

#[test]
fn expressions_are_tried_from_the_longest() {
    let document = document(&["/[a-z]", "/", "/[0-9]+", "/plain"], &[("use-regex", "true")]);
    let commands = document["subsystems"][0]["commands"].as_array().expect("a list");
    let ids: Vec<&str> = commands.iter().filter_map(|command| command["id"].as_str()).collect();
    assert_eq!(ids, ["rule-0-3", "rule-0-2", "rule-0-0", "rule-0-1"]);
}

#[test]
fn fields_of_responses_come_from_a_config_map() {
    let mut cluster = cluster();
    let data = json!({ "X-Frame-Options": "DENY", "Content-Length": "3", "X-Bad": "a\nb" });
    let map = json!({ "metadata": { "namespace": "shop", "name": "fields" }, "data": data });
    cluster.add_object(ObjectKind::ConfigMap, map);
    add_ingress(&mut cluster, "i", spec(&["/"]), &[("custom-headers", "shop/fields")]);
    compiled(&cluster.translated());
    let command = cluster.document("Ingress shop/i")["subsystems"][0]["commands"][0].clone();
    assert_eq!(command["headers"]["response"]["set"], json!({ "X-Frame-Options": "DENY" }));
}

#[test]
fn servers_with_tls_are_verified_by_the_name_of_their_service() {
    let annotations = [("backend-protocol", "HTTPS"), ("proxy-ssl-secret", "shop/tls")];
    let mut cluster = cluster();
    add_ingress(&mut cluster, "i", spec(&["/"]), &annotations);
    let backend = cluster.document("Service shop/web")["backends"][0].clone();
    assert_eq!(backend["endpoints"]["secure"], json!(true));
    assert_eq!(backend["tls"]["serverName"], "web.shop.svc");
    assert_eq!(backend["tls"]["authorities"], json!(["memory:secret/shop/tls/ca.crt"]));
    assert_eq!(backend["tls"]["certificate"], "memory:secret/shop/tls/tls.crt");
}

#[test]
fn a_younger_ingress_without_annotations_does_not_inherit_those_of_the_older() {
    let mut cluster = cluster();
    add_ingress(&mut cluster, "a", spec(&["/a"]), &[("backend-protocol", "GRPC"), ("limit-rps", "1")]);
    add_ingress(&mut cluster, "b", spec(&["/b"]), &[]);
    compiled(&cluster.translated());
    let command = cluster.document("Ingress shop/b")["subsystems"][0]["commands"][0].clone();
    assert_eq!(command["backends"], json!([{ "backend": "shop.web_80" }]));
    assert_eq!(command.get("addressLimits"), None);
    let older = cluster.document("Ingress shop/a")["subsystems"][0]["commands"][0].clone();
    assert_eq!(older["addressLimits"]["zone"], "shop.a_ingress", "its paths share the limits");
}

/// The subsystem of a request to `a.example` over plain HTTP, as `explain` would find it.
fn subsystem_of(cluster: &Cluster, path: &str) -> String {
    let snapshot = compiled(&cluster.translated()).snapshot;
    let (listener, headers) = (Name::parse("ingress_80").expect("a name"), http::HeaderMap::new());
    let request = RouteRequest {
        listener: &listener,
        host: "a.example",
        method: &http::Method::GET,
        path,
        query: QueryPairs::default(),
        headers: &headers,
    };
    match snapshot.find_route(&request) {
        RouteMatch::Command { subsystem, .. } => subsystem.id.to_string(),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn paths_of_a_refused_ingress_reach_no_other() {
    for (refused, path) in [
        ("/admin", "/admin/x"),
        ("/admin", "/ADMIN/x"),
        ("/admin/(.*)", "/Admin/x"),
        ("/admin/(.*)", "/admin/x"),
        ("/admin(/|$)(.*)", "/admin"),
        ("/adm[i]n", "/admin/x"),
        ("/admin(?!x)", "/admin/y"),
    ] {
        let mut cluster = cluster();
        add_ingress(&mut cluster, "open", spec(&["/"]), &[]);
        let annotations = [("whitelist-source-range", "here"), ("use-regex", "true")];
        add_ingress(&mut cluster, "closed", spec(&[refused]), &annotations);
        assert!(subsystem_of(&cluster, path).contains("closed_ingress-refused"), "{refused} {path}");
        assert_eq!(subsystem_of(&cluster, "/other"), "shop.open_ingress", "{refused}");
    }
}

#[test]
fn expressions_go_before_prefixes_of_other_ingresses() {
    for (expression, path, is_taken) in [
        ("/api/v[0-9]+", "/api/v1/x", true),
        ("/api/v[0-9]+", "/API/v1", false),
        ("/api/v[0-9]+", "/api/x", false),
        ("/v[0-9]+/x", "/V12/x/y", true),
        ("/v[0-9]+/x", "/other", false),
        ("/a|/b", "/bc", true),
    ] {
        let mut cluster = cluster();
        add_ingress(&mut cluster, "a", spec(&["/"]), &[]);
        add_ingress(&mut cluster, "b", spec(&[expression]), &[("use-regex", "true")]);
        let expected = if is_taken { "shop.b_ingress" } else { "shop.a_ingress" };
        assert_eq!(subsystem_of(&cluster, path), expected, "{expression} {path}");
    }
}

#[test]
fn a_refused_ingress_with_client_certificates_closes_the_host_in_its_namespace() {
    let mut cluster = cluster();
    add_ingress(&mut cluster, "a", spec(&["/"]), &[]);
    add_ingress(&mut cluster, "b", spec(&["/b"]), &[("auth-tls-secret", "shop/missing")]);
    let translation = cluster.translated();
    compiled(&translation);
    let documents: Vec<&Option<String>> = translation.ingresses.iter().map(|one| &one.document).collect();
    assert_eq!(documents, [&None, &None]);
}

#[test]
fn annotations_are_counted_by_what_becomes_of_them() {
    let mut cluster = cluster();
    let annotations = [
        ("ssl-redirect", "true"),
        ("limit-rps", "10"),
        ("custom-http-errors", "404"),
        ("service-upstream", "true"),
        ("something-new", "1"),
        ("new-auth", "1"),
    ];
    add_ingress(&mut cluster, "i", spec(&["/a"]), &annotations);
    let counts = cluster.translated().ingresses.remove(0).annotations;
    assert_eq!(counts, AnnotationCounts { taken: 2, differs: 1, lost: 1, unknown: 2 });
}

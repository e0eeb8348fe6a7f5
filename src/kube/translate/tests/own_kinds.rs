//! Departments, CommandSets, Grants and ClientAuthPolicies as tables: objects in, documents and conditions out.

use super::*;
use crate::kube::objects::ObjectKind::{ClientAuthPolicy, CommandSet, ConfigMap, Department, Grant};

const LISTENER: &str = "tls";

/// The Gateway `infra/web` with an HTTPS listener on port 443 beside an HTTP one on port 80, and authorities.
fn cluster() -> Cluster {
    let mut cluster = Cluster::with_gateway();
    let all = json!({ "namespaces": { "from": "All" } });
    let tls = json!({ "certificateRefs": [{ "name": "cert" }] });
    cluster.gateway(json!([
        { "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": all },
        { "name": LISTENER, "port": 443, "protocol": "HTTPS", "tls": tls, "allowedRoutes": all },
        { "name": "second", "port": 443, "protocol": "HTTPS", "hostname": "b.example", "tls": tls, "allowedRoutes": all },
    ]));
    cluster.publish(&[(80, 20_080), (443, 20_443)]);
    let data = json!({ "tls.crt": "Z29vZA==", "tls.key": "a2V5" });
    let metadata = json!({ "namespace": "infra", "name": "cert" });
    cluster.add_object(ObjectKind::Secret, json!({ "metadata": metadata, "type": "kubernetes.io/tls", "data": data }));
    for (namespace, name, authorities) in [
        ("infra", "city", "city-1\ncity-2"),
        ("infra", "tenant", "tenant"),
        ("other", "city", "city-1"),
        ("infra", "faulty", "bad"),
    ] {
        cluster.config_map(namespace, name, json!({ "ca.crt": authorities, "ca.crl": "list", "old.crl": "expired" }));
    }
    cluster.service("shop", "cart", json!({ "port": 8080 }), &["10.77.1.2"]);
    cluster
}

impl Cluster {
    fn config_map(&mut self, namespace: &str, name: &str, data: Value) {
        let metadata = json!({ "namespace": namespace, "name": name });
        self.add_object(ConfigMap, json!({ "metadata": metadata, "data": data }));
    }

    fn created(&mut self, kind: ObjectKind, (namespace, name): (&str, &str), day: u32, spec: Value) {
        let created = format!("2026-01-{day:02}T00:00:00Z");
        let metadata = json!({ "namespace": namespace, "name": name, "generation": 3, "creationTimestamp": created });
        self.add_object(kind, json!({ "metadata": metadata, "spec": spec }));
    }

    fn department(&mut self, name: &str, day: u32, change: Value) {
        let mut spec = json!({
            "authorities": [{ "namespace": "infra", "name": "city" }],
            "callers": [{ "uri": format!("spiffe://city.example/{name}") }],
        });
        merge(&mut spec, change);
        self.created(Department, ("", name), day, spec);
    }

    fn policy(&mut self, name: &str, day: u32, change: Value) {
        let mut spec = json!({
            "targetRefs": [{ "kind": "Gateway", "name": "web", "sectionName": LISTENER }],
            "caCertificateRefs": [{ "kind": "ConfigMap", "name": "city" }],
        });
        merge(&mut spec, change);
        self.created(ClientAuthPolicy, ("infra", name), day, spec);
    }

    fn department_conditions(&self, name: &str) -> Vec<String> {
        let outcomes = self.translated().departments;
        shown(&outcomes.iter().find(|one| &*one.key.name == name).expect("a Department").conditions)
    }

    /// The conditions of each target of a policy.
    fn policy_conditions(&self, name: &str) -> Vec<Vec<String>> {
        let outcomes = self.translated().client_auth_policies;
        let outcome = outcomes.iter().find(|one| &*one.key.name == name).expect("a policy");
        outcome.targets.iter().map(|(_, conditions)| shown(conditions)).collect()
    }

    fn grant_conditions(&self) -> Vec<String> {
        shown(&self.translated().grants[0].conditions)
    }

    /// `clientAuth` of the certificate for a host on port 443.
    fn client_auth(&self, host: &str) -> Value {
        let document = self.document("Gateway infra/web");
        let listeners = document["listeners"].as_array().cloned().unwrap_or_default();
        let of_443 = listeners.iter().find(|one| one["publicPort"] == 443).cloned().unwrap_or_default();
        let entries = of_443["tls"]["certificates"].as_array().cloned().unwrap_or_default();
        let entry = entries.into_iter().find(|entry| entry["serverNames"][0] == host);
        entry.map_or(json!("no such listener"), |entry| entry["clientAuth"].clone())
    }
}

/// Compiles the documents without the listeners with TLS: their certificates are no certificates.
fn compiled_without_tls(cluster: &Cluster) -> crate::config::Configuration {
    let mut translation = cluster.translated();
    let retain = |list: &mut Value, keep: &dyn Fn(&Value) -> bool| {
        list.as_array_mut().into_iter().for_each(|items| items.retain(|item| keep(item)));
    };
    let reduced = translation.documents.iter().map(|named| {
        let document = &mut named.content();
        retain(&mut document["listeners"], &|listener| listener.get("tls").is_none());
        for department in document["departments"].as_array_mut().into_iter().flatten() {
            retain(&mut department["callers"], &|caller| caller["listener"] != "infra.web_443");
        }
        for subsystem in document["subsystems"].as_array_mut().into_iter().flatten() {
            retain(&mut subsystem["listeners"], &|binding| {
                binding.as_str().is_some_and(|binding| binding.starts_with("infra.web_80/") || binding == "ingress_80")
            });
        }
        document.as_object_mut().into_iter().for_each(|keys| keys.retain(|_, list| !list.is_null()));
        Arc::new(NamedDocument::new(named.name(), document))
    });
    translation.documents = reduced.collect();
    compiled(&translation)
}

fn merge(spec: &mut Value, change: Value) {
    spec.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
}

#[test]
fn a_department_counts_where_all_authorities_are_its_own() {
    let in_infra =
        |names: &[&str]| -> Value { names.iter().map(|name| json!({ "kind": "ConfigMap", "name": name })).collect() };
    for (authorities, counts) in
        [(in_infra(&["city"]), true), (in_infra(&["tenant"]), false), (in_infra(&["city", "tenant"]), false)]
    {
        let mut cluster = cluster();
        cluster.department("police", 1, json!({}));
        cluster.policy("p", 1, json!({ "caCertificateRefs": authorities }));
        let realm = cluster.client_auth("*")["realm"].clone();
        let realms = cluster.document("Department police")["departments"][0]["realms"].clone();
        assert_eq!(realms == json!([realm]), counts, "{authorities}: {realms}");
        assert_eq!(realms == json!(["none"]), !counts, "{authorities}: {realms}");
        assert_eq!(cluster.translated().departments[0].has_listener, counts, "{authorities}");
    }
}

#[test]
fn a_copy_of_some_authorities_in_another_namespace_is_as_good() {
    let mut cluster = cluster();
    cluster.department("police", 1, json!({}));
    let reference = json!({ "kind": "ConfigMap", "name": "city", "namespace": "other" });
    cluster.policy("p", 1, json!({ "caCertificateRefs": [reference] }));
    assert_eq!(cluster.policy_conditions("p"), [["!Accepted=NoValidCACertificate", "!ResolvedRefs=RefNotPermitted"]]);
    assert_eq!(cluster.client_auth("*"), "no such listener");
    for (group, permitted) in [("gateway.networking.k8s.io", false), ("tallygate.io", true)] {
        let from = json!({ "group": group, "kind": "ClientAuthPolicy", "namespace": "infra" });
        let to = json!({ "group": "", "kind": "ConfigMap" });
        cluster.add(ObjectKind::ReferenceGrant, "other", "g", json!({ "from": [from], "to": [to] }));
        assert_eq!(cluster.translated().departments[0].has_listener, permitted, "{group}");
    }
}

#[test]
fn client_authentication_of_the_gateway_itself_has_a_realm_as_well() {
    let mut cluster = cluster();
    cluster.department("police", 1, json!({}));
    let validation = json!({ "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "tenant" }] });
    let tls = json!({ "certificateRefs": [{ "name": "cert" }] });
    let spec = json!({
        "gatewayClassName": "ours",
        "listeners": [{ "name": LISTENER, "port": 443, "protocol": "HTTPS", "tls": tls }],
        "tls": { "frontend": { "default": { "validation": validation } } },
    });
    cluster.add(ObjectKind::Gateway, "infra", "web", spec);
    let auth = cluster.client_auth("*");
    assert_eq!(auth["authorities"], json!(["memory:configmap/infra/tenant/ca.crt"]));
    assert!(auth["realm"].as_str().is_some_and(|realm| realm.starts_with("ca_")), "{auth}");
    assert_eq!(auth.get("unclaimed"), None, "the Gateway API accepts whoever is certified");
    assert!(!cluster.translated().departments[0].has_listener, "an authority of a tenant certifies no Department");
}

#[test]
fn faults_of_departments_have_their_reasons() {
    let authority = |name: &str| json!({ "authorities": [{ "namespace": "infra", "name": name }] });
    let accepted = ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"];
    let refused = |reason: &str| vec![format!("!Accepted={reason}"), "ResolvedRefs=ResolvedRefs".to_owned()];
    let broken = ["!Accepted=NoValidCACertificate", "!ResolvedRefs=InvalidCACertificateRef"];
    for (name, change, expected) in [
        ("new", json!({}), accepted.map(str::to_owned).to_vec()),
        ("new", json!({ "id": "Traffic_Police" }), accepted.map(str::to_owned).to_vec()),
        ("new", json!({ "id": "police" }), refused("Conflicted")),
        (
            "new",
            json!({ "callers": [{ "dns": "new.example" }, { "uri": "spiffe://city.example/police" }] }),
            refused("Conflicted"),
        ),
        ("new", json!({ "callers": [{ "dns": "POLICE.example" }] }), refused("Conflicted")),
        ("new", json!({ "callers": "none" }), refused("Invalid")),
        ("infra.web", json!({}), refused("Invalid")),
        ("ingress", json!({}), refused("Invalid")),
        ("new", authority("missing"), broken.map(str::to_owned).to_vec()),
        ("new", authority("faulty"), broken.map(str::to_owned).to_vec()),
    ] {
        let mut cluster = cluster();
        cluster.policy("p", 1, json!({}));
        let callers = json!([{ "uri": "spiffe://city.example/police" }, { "dns": "police.example" }]);
        cluster.department("police", 1, json!({ "callers": callers }));
        cluster.department(name, 2, change.clone());
        assert_eq!(cluster.department_conditions(name), expected, "{name} {change}");
        assert_eq!(cluster.department_conditions("police"), accepted, "{name} {change}");
        let has_document = cluster.document(&format!("Department {name}")) != Value::Null;
        assert_eq!(has_document, expected[0] == "Accepted=Accepted", "{name} {change}");
    }
}

#[test]
fn identities_stay_claimed_while_an_authority_is_missing() {
    let mut cluster = cluster();
    cluster.department("police", 1, json!({ "authorities": [{ "namespace": "infra", "name": "missing" }] }));
    cluster.department("thief", 2, json!({ "callers": [{ "uri": "spiffe://city.example/police" }] }));
    assert_eq!(cluster.department_conditions("thief")[0], "!Accepted=Conflicted");
}

#[test]
fn a_department_has_the_keys_of_the_configuration() {
    let mut cluster = cluster();
    cluster.policy("p", 1, json!({}));
    let change = json!({
        "displayName": "Traffic Police",
        "callers": [{ "subject": { "commonName": "a", "organizationalUnit": "b" } }, { "dns": "a.example" }],
        "limits": { "rate": "10/s", "burst": 20, "concurrent": 5 },
        "quota": { "units": 1000, "warn": [80, 90], "exceeded": "Allow" },
        "disabled": true,
    });
    cluster.department("police", 1, change);
    let mut keys = cluster.document("Department police")["departments"][0].clone();
    keys.as_object_mut().expect("an object").remove("realms");
    let expected = json!({
        "id": "police",
        "name": "Traffic Police",
        "callers": [{ "subject": { "commonName": "a", "organizationalUnit": "b" } }, { "dns": "a.example" }],
        "limits": { "rate": "10/s", "burst": 20, "concurrent": 5 },
        "quota": { "per": "month", "units": 1000, "warn": [80, 90], "exceeded": "allow" },
        "disabled": true,
    });
    assert_eq!(keys, expected);
    assert_eq!(compiled_without_tls(&cluster).excluded, []);
    cluster.department("police", 2, json!({ "quotas": [{ "per": "Day", "commands": 50 }, { "units": 7 }] }));
    let quotas = [
        json!({ "per": "day", "commands": 50, "warn": [], "exceeded": "refuse" }),
        json!({ "per": "month", "units": 7, "warn": [], "exceeded": "refuse" }),
    ];
    assert_eq!(cluster.document("Department police")["departments"][0]["quotas"], json!(quotas));
    assert_eq!(compiled_without_tls(&cluster).excluded, []);
}

#[test]
fn a_policy_is_client_authentication_of_its_listeners() {
    let lists =
        json!([{ "kind": "ConfigMap", "name": "city" }, { "kind": "ConfigMap", "name": "city", "key": "old.crl" }]);
    for (change, expected) in [
        (json!({}), json!({ "mode": "required", "unclaimed": "refuse" })),
        (json!({ "mode": "Optional", "unclaimedCallers": "Allow" }), json!({ "mode": "optional" })),
        (json!({ "mode": "AllowInsecureFallback" }), json!({ "mode": "allowInsecureFallback", "unclaimed": "refuse" })),
        (
            json!({ "revocationListRefs": lists, "expiredRevocation": "Allow" }),
            json!({
                "mode": "required",
                "unclaimed": "refuse",
                "revocation": ["memory:configmap/infra/city/ca.crl", "memory:configmap/infra/city/old.crl"],
                "expiredRevocation": "allow",
            }),
        ),
    ] {
        let mut cluster = cluster();
        cluster.policy("p", 1, change.clone());
        let mut auth = cluster.client_auth("*");
        let keys = auth.as_object_mut().unwrap_or_else(|| panic!("{change}"));
        keys.remove("realm").expect("a realm");
        assert_eq!(keys.remove("authorities"), Some(json!(["memory:configmap/infra/city/ca.crt"])));
        assert_eq!(auth, expected, "{change}");
        assert_eq!(cluster.client_auth("b.example"), Value::Null, "the other listener has no policy");
        assert_eq!(cluster.policy_conditions("p"), [["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]], "{change}");
    }
}

#[test]
fn the_most_specific_policy_counts() {
    let whole = json!({ "targetRefs": [{ "kind": "Gateway", "name": "web" }], "mode": "Optional" });
    let mode = |cluster: &Cluster, host: &str| cluster.client_auth(host)["mode"].as_str().unwrap_or("none").to_owned();
    let mut cluster = cluster();
    cluster.policy("whole", 1, whole);
    assert_eq!((mode(&cluster, "*"), mode(&cluster, "b.example")), ("optional".to_owned(), "optional".to_owned()));
    cluster.policy("single", 2, json!({}));
    assert_eq!((mode(&cluster, "*"), mode(&cluster, "b.example")), ("required".to_owned(), "optional".to_owned()));
    assert_eq!(cluster.policy_conditions("whole")[0][0], "Accepted=Accepted");
}

#[test]
fn a_listener_set_inherits_and_may_have_a_policy_of_its_own() {
    let mut cluster = cluster();
    let tls = json!({ "certificateRefs": [{ "name": "cert" }] });
    let open = json!({ "namespaces": { "from": "All" } });
    let gateway = json!({
        "gatewayClassName": "ours",
        "allowedListeners": open,
        "listeners": [{ "name": LISTENER, "port": 443, "protocol": "HTTPS", "tls": tls }],
    });
    cluster.add(ObjectKind::Gateway, "infra", "web", gateway);
    let listener = json!({ "name": "own", "port": 443, "protocol": "HTTPS", "hostname": "t.example", "tls": tls });
    cluster.add(
        ObjectKind::ListenerSet,
        "infra",
        "set",
        json!({ "parentRef": { "name": "web" }, "listeners": [listener] }),
    );
    assert_eq!(cluster.client_auth("t.example"), Value::Null);
    cluster.policy("whole", 1, json!({ "targetRefs": [{ "kind": "Gateway", "name": "web" }] }));
    assert_eq!(cluster.client_auth("t.example")["mode"], "required", "inherited");
    let own = json!({
        "targetRefs": [{ "kind": "ListenerSet", "name": "set" }],
        "caCertificateRefs": [{ "kind": "ConfigMap", "name": "tenant" }],
    });
    cluster.policy("own", 2, own);
    assert_eq!(cluster.client_auth("t.example")["authorities"], json!(["memory:configmap/infra/tenant/ca.crt"]));
    assert_eq!(cluster.client_auth("*")["authorities"], json!(["memory:configmap/infra/city/ca.crt"]));
    assert_eq!(cluster.policy_conditions("own"), [["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]]);
}

#[test]
fn faults_of_policies_have_their_reasons_and_close_their_listener() {
    let authorities = |name: &str| json!({ "caCertificateRefs": [{ "kind": "ConfigMap", "name": name }] });
    let list = |key: &str| json!({ "revocationListRefs": [{ "kind": "ConfigMap", "name": "city", "key": key }] });
    let target = |target: Value| json!({ "targetRefs": [target] });
    let resolved = "ResolvedRefs=ResolvedRefs";
    for (change, expected, is_served) in [
        (authorities("missing"), ["!Accepted=NoValidCACertificate", "!ResolvedRefs=InvalidCACertificateRef"], false),
        (authorities("faulty"), ["!Accepted=NoValidCACertificate", "!ResolvedRefs=InvalidCACertificateRef"], false),
        (list("missing.crl"), ["!Accepted=NoValidCACertificate", "!ResolvedRefs=InvalidRevocationListRef"], false),
        (list("old.crl"), ["!Accepted=Invalid", resolved], false),
        (target(json!({ "kind": "Gateway", "name": "none" })), ["!Accepted=TargetNotFound", resolved], true),
        (target(json!({ "kind": "ListenerSet", "name": "none" })), ["!Accepted=TargetNotFound", resolved], true),
        (
            target(json!({ "kind": "Gateway", "name": "web", "sectionName": "none" })),
            ["!Accepted=TargetNotFound", resolved],
            true,
        ),
        (
            target(json!({ "kind": "Gateway", "name": "web", "sectionName": "http" })),
            ["!Accepted=Invalid", resolved],
            true,
        ),
    ] {
        let mut cluster = cluster();
        cluster.policy("p", 1, change.clone());
        assert_eq!(cluster.policy_conditions("p"), [expected], "{change}");
        assert_eq!(cluster.client_auth("*") != "no such listener", is_served, "{change}");
        assert_eq!(cluster.client_auth("b.example"), Value::Null, "{change}: another listener is as before");
        let accepted = cluster.listener_conditions(LISTENER).remove(0);
        assert_eq!(accepted == "Accepted=Accepted", is_served, "{change}: {accepted}");
    }
}

#[test]
fn of_two_policies_with_one_target_the_older_one_counts() {
    let mut cluster = cluster();
    cluster.policy("a", 2, json!({ "mode": "Optional" }));
    cluster.policy("b", 1, json!({}));
    assert_eq!(cluster.client_auth("*")["mode"], "required");
    assert_eq!(cluster.policy_conditions("a")[0][0], "!Accepted=Conflicted");
    assert_eq!(cluster.policy_conditions("b")[0][0], "Accepted=Accepted");
}

#[test]
fn targets_of_other_controllers_have_no_entry() {
    let mut cluster = cluster();
    cluster.add(ObjectKind::GatewayClass, "", "theirs", json!({ "controllerName": "example.com/other" }));
    let listeners = json!([{ "name": LISTENER, "port": 443, "protocol": "HTTPS" }]);
    cluster.add(ObjectKind::Gateway, "infra", "far", json!({ "gatewayClassName": "theirs", "listeners": listeners }));
    let targets = json!([{ "kind": "Gateway", "name": "far" }, { "kind": "Gateway", "name": "web" }]);
    cluster.policy("p", 1, json!({ "targetRefs": targets }));
    assert_eq!(cluster.policy_conditions("p"), [["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]]);
}

#[test]
fn a_policy_that_cannot_be_read_closes_the_listeners_of_its_namespace() {
    let mut cluster = cluster();
    cluster.policy("p", 1, json!({ "mode": "Never" }));
    assert_eq!(cluster.client_auth("*"), "no such listener");
    assert_eq!(cluster.listener_conditions(LISTENER)[0], "!Accepted=Invalid");
    assert_eq!(cluster.listener_conditions("http")[0], "Accepted=Accepted");
}

/// A route `shop/cart` with two rules, and Department `police`.
fn cluster_with_route() -> Cluster {
    let mut cluster = cluster();
    cluster.policy("p", 1, json!({}));
    cluster.department("police", 1, json!({}));
    let rules = json!([{ "name": "pay", "backendRefs": [backend("cart")] }, { "backendRefs": [backend("cart")] }]);
    cluster.route("shop", "cart", json!({ "rules": rules }));
    cluster
}

fn grant(change: Value) -> Value {
    let mut spec = json!({ "targetRefs": [{ "kind": "HTTPRoute", "name": "cart" }], "departments": ["police"] });
    merge(&mut spec, change);
    spec
}

#[test]
fn a_grant_opens_a_route_to_its_departments_and_closes_it_to_others() {
    let mut cluster = cluster_with_route();
    let implicit = json!([{ "department": "infra.web", "subsystem": "shop.cart", "commands": ["*"] }]);
    assert_eq!(cluster.document("HTTPRoute shop/cart")["grants"], implicit);
    cluster.add(
        Grant,
        "shop",
        "g",
        grant(json!({ "departments": ["police", "infra.web"], "commands": ["rule_*"], "limits": { "rate": "5/s" } })),
    );
    assert_eq!(cluster.document("HTTPRoute shop/cart")["grants"], json!([]));
    let one = |department: &str| json!({ "department": department, "subsystem": "shop.cart", "commands": ["rule_*"], "limits": { "rate": "5/s" } });
    assert_eq!(cluster.document("Grant shop/g")["grants"], json!([one("police"), one("infra.web")]));
    assert_eq!(cluster.grant_conditions(), ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]);
    let configuration = compiled_without_tls(&cluster);
    assert_eq!(configuration.excluded, []);
    assert_eq!(configuration.snapshot.granted_series(), 2);
}

#[test]
fn faults_of_grants_have_their_reasons_and_leave_the_route_closed() {
    let (accepted, resolved) = ("Accepted=Accepted", "ResolvedRefs=ResolvedRefs");
    let route = |name: &str, kind: &str| json!({ "kind": kind, "name": name });
    for (change, expected, granted, is_closed) in [
        (json!({}), [accepted, resolved], 1, true),
        (json!({ "departments": ["fire"] }), [accepted, "!ResolvedRefs=DepartmentNotFound"], 0, true),
        (json!({ "departments": ["fire", "police"] }), [accepted, "!ResolvedRefs=DepartmentNotFound"], 1, true),
        (json!({ "targetRefs": [route("none", "HTTPRoute")] }), ["!Accepted=TargetNotFound", resolved], 0, false),
        (json!({ "targetRefs": [route("cart", "GRPCRoute")] }), ["!Accepted=TargetNotFound", resolved], 0, false),
        (
            json!({ "targetRefs": [route("none", "HTTPRoute"), route("cart", "HTTPRoute")] }),
            ["!Accepted=TargetNotFound", resolved],
            1,
            true,
        ),
    ] {
        let mut cluster = cluster_with_route();
        cluster.add(Grant, "shop", "g", grant(change.clone()));
        assert_eq!(cluster.grant_conditions(), expected, "{change}");
        let grants = cluster.document("Grant shop/g")["grants"].as_array().map_or(0, Vec::len);
        assert_eq!(grants, granted, "{change}");
        assert_eq!(cluster.document("HTTPRoute shop/cart")["grants"] == json!([]), is_closed, "{change}");
    }
}

/// A cluster with an Ingress of two hosts, of which `a.example` asks for client certificates.
fn cluster_with_ingress(grant_spec: Option<Value>) -> Cluster {
    let mut cluster = cluster();
    cluster.department("police", 1, json!({}));
    cluster.add(ObjectKind::IngressClass, "", "ours", json!({ "controller": CONTROLLER_NAME }));
    cluster.service("shop", "cart", json!({ "port": 8080 }), &["10.77.1.2"]);
    let path = |path: &str| {
        json!({ "path": path, "pathType": "Prefix",
        "backend": { "service": { "name": "cart", "port": { "number": 8080 } } } })
    };
    let rule = |host: &str, paths: &[&str]| {
        let paths: Vec<Value> = paths.iter().map(|one| path(one)).collect();
        json!({ "host": host, "http": { "paths": paths } })
    };
    let rules = json!([rule("a.example", &["/", "/pay"]), rule("b.example", &["/"])]);
    cluster.add(ObjectKind::Ingress, "shop", "cart", json!({ "ingressClassName": "ours", "rules": rules }));
    if let Some(spec) = grant_spec {
        cluster.add(Grant, "shop", "g", spec);
    }
    cluster
}

fn ingress_grant(change: Value) -> Value {
    let target = json!({ "group": "networking.k8s.io", "kind": "Ingress", "name": "cart" });
    grant(merged(json!({ "targetRefs": [target] }), change))
}

fn merged(mut spec: Value, change: Value) -> Value {
    merge(&mut spec, change);
    spec
}

#[test]
fn a_grant_opens_an_ingress_to_its_departments_and_closes_it_to_others() {
    let granted = |spec: Option<Value>| {
        let cluster = cluster_with_ingress(spec);
        let shown = |name: &str| -> Vec<String> {
            let document = cluster.document(name);
            let grants = document["grants"].as_array().into_iter().flatten();
            grants
                .map(|one| format!("{} {} {}", one["department"], one["subsystem"], one["commands"]).replace('"', ""))
                .collect()
        };
        (shown("Ingress shop/cart"), shown("Grant shop/g"), cluster)
    };
    let (implicit, _, _) = granted(None);
    assert_eq!(implicit, ["ingress shop.cart_ingress-0 [*]", "ingress shop.cart_ingress-1 [*]"]);
    for (change, expected) in [
        (json!({}), &["police shop.cart_ingress-0 [*]", "police shop.cart_ingress-1 [*]"][..]),
        (json!({ "commands": ["rule-0-1", "rule-0-0"] }), &["police shop.cart_ingress-0 [rule-0-1,rule-0-0]"]),
        (json!({ "commands": ["rule-1-?"], "departments": ["ingress"] }), &["ingress shop.cart_ingress-1 [rule-1-?]"]),
        (json!({ "commands": ["none"] }), &["police shop.cart_ingress-0 [none]"]),
    ] {
        let (own, of_grant, cluster) = granted(Some(ingress_grant(change.clone())));
        assert_eq!(own, [""; 0], "{change}: closed");
        assert_eq!(of_grant, expected, "{change}");
        assert_eq!(cluster.grant_conditions(), ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"], "{change}");
        let excluded = compiled_without_tls(&cluster).excluded;
        assert_eq!(excluded.is_empty(), change["commands"] != json!(["none"]), "{change}: {excluded:?}");
    }
    let target = json!({ "group": "networking.k8s.io", "kind": "Ingress", "name": "none" });
    let (own, of_grant, cluster) = granted(Some(ingress_grant(json!({ "targetRefs": [target] }))));
    assert_eq!((own.len(), of_grant.len()), (2, 0));
    assert_eq!(cluster.grant_conditions(), ["!Accepted=TargetNotFound", "ResolvedRefs=ResolvedRefs"]);
    let (own, _, _) = granted(Some(json!({ "targetRefs": 1 })));
    assert_eq!(own, [""; 0], "its targets are not known");
}

#[test]
fn redirects_to_https_stay_open_in_a_closed_ingress() {
    let mut cluster = cluster_with_ingress(Some(ingress_grant(json!({}))));
    let secret = json!({ "metadata": { "namespace": "shop", "name": "tls" },
        "data": { "tls.crt": "Z29vZA==", "tls.key": "Z29vZA==" } });
    cluster.add_object(ObjectKind::Secret, secret);
    let annotations = json!({ "nginx.ingress.kubernetes.io/ssl-redirect": "true" });
    let backend = json!({ "service": { "name": "cart", "port": { "number": 8080 } } });
    let path = json!({ "path": "/", "pathType": "Prefix", "backend": backend });
    let rules = json!([{ "host": "a.example", "http": { "paths": [path] } }]);
    let tls = json!([{ "hosts": ["a.example"], "secretName": "tls" }]);
    let spec = json!({ "ingressClassName": "ours", "rules": rules, "tls": tls });
    let metadata = json!({ "namespace": "shop", "name": "cart", "annotations": annotations });
    cluster.add_object(ObjectKind::Ingress, json!({ "metadata": metadata, "spec": spec }));
    let subsystems = |name: &str| -> Vec<Value> {
        let document = cluster.document(name);
        document["grants"].as_array().into_iter().flatten().map(|one| one["subsystem"].clone()).collect()
    };
    assert_eq!(subsystems("Ingress shop/cart"), ["shop.cart_ingress-redirect"]);
    assert_eq!(subsystems("Grant shop/g"), ["shop.cart_ingress"]);
}

#[test]
fn a_grant_of_another_namespace_changes_nothing() {
    let mut cluster = cluster_with_route();
    let before = cluster.document("HTTPRoute shop/cart");
    cluster.add(Grant, "other", "g", grant(json!({})));
    cluster.add(Grant, "other", "faulty", json!({ "targetRefs": 1 }));
    assert_eq!(cluster.document("HTTPRoute shop/cart"), before);
    cluster.add(Grant, "shop", "faulty", json!({ "targetRefs": 1 }));
    assert_eq!(cluster.document("HTTPRoute shop/cart")["grants"], json!([]), "its targets are not known");
}

#[test]
fn a_glob_without_a_command_leaves_out_the_grant_alone() {
    let mut cluster = cluster_with_route();
    cluster.add(Grant, "shop", "g", grant(json!({ "commands": ["snapshot.*"] })));
    let configuration = compiled_without_tls(&cluster);
    let excluded: Vec<&str> = configuration.excluded.iter().map(|one| one.source.as_str()).collect();
    assert_eq!(excluded, ["Grant shop/g"]);
    assert_eq!(configuration.snapshot.granted_series(), 0, "the route stays closed");
}

fn command_set(change: Value) -> Value {
    let mut spec = json!({ "commands": [
        { "id": "snapshot.submit", "matches": [{ "method": "POST", "path": "/v1/snapshots" }], "units": 5, "body": { "max": "16MiB" } },
        { "id": "snapshot.read", "matches": [{ "method": "GET", "path": "/v1/snapshots/{id}" }], "limits": { "rate": "9/s" } },
    ] });
    merge(&mut spec, change);
    spec
}

fn extension(name: &str) -> Value {
    json!([{ "type": "ExtensionRef", "extensionRef": { "group": "tallygate.io", "kind": "CommandSet", "name": name } }])
}

/// The commands of a route with one rule that names the CommandSet `cameras`.
fn commands_with(set: Value, rule: Value) -> (Vec<Value>, Vec<String>, Cluster) {
    let mut cluster = cluster();
    cluster.add(CommandSet, "shop", "cameras", set);
    let mut rule = rule;
    rule["filters"] = extension("cameras");
    rule["backendRefs"] = json!([backend("cart")]);
    cluster.route("shop", "cart", json!({ "rules": [rule] }));
    let commands = cluster.document("HTTPRoute shop/cart")["subsystems"][0]["commands"].clone();
    let conditions = cluster.route_conditions("cart");
    (commands.as_array().cloned().unwrap_or_default(), conditions, cluster)
}

#[test]
fn a_rule_with_a_command_set_has_its_commands_and_refuses_the_rest() {
    let rule = json!({ "name": "all", "matches": [{ "path": { "value": "/cameras" } }, { "path": { "value": "/cams/" }, "headers": [{ "name": "v", "value": "2" }] }] });
    let (commands, conditions, cluster) = commands_with(command_set(json!({})), rule);
    assert_eq!(conditions, ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]);
    let ids: Vec<&Value> = commands.iter().map(|command| &command["id"]).collect();
    assert_eq!(ids, ["snapshot.submit", "snapshot.read", "rule_all"]);
    let header = json!([{ "name": "v", "value": "2" }]);
    assert_eq!(
        commands[0]["match"],
        json!([
            { "method": "POST", "path": "/cameras/v1/snapshots", "headers": [], "query": [] },
            { "method": "POST", "path": "/cams/v1/snapshots", "headers": header, "query": [] },
        ])
    );
    assert_eq!((&commands[0]["units"], &commands[0]["body"]["max"]), (&json!(5), &json!("16MiB")));
    assert_eq!((&commands[1]["limits"], &commands[1]["body"]["max"]), (&json!({ "rate": "9/s" }), &json!("1GiB")));
    assert_eq!(commands[0]["backends"], json!([{ "backend": "shop.cart_8080", "weight": 1 }]));
    assert_eq!((&commands[2]["refuse"], commands[2].get("backends")), (&json!(true), None));
    assert_eq!(compiled_without_tls(&cluster).excluded, []);
}

#[test]
fn other_commands_are_metered_as_the_rule_if_they_are_allowed() {
    let (commands, ..) = commands_with(command_set(json!({ "otherCommands": "Allow" })), json!({}));
    assert_eq!(commands[2]["id"], "rule-0");
    assert_eq!(commands[2]["backends"], json!([{ "backend": "shop.cart_8080", "weight": 1 }]));
    assert_eq!(commands[2].get("refuse"), None);
}

#[test]
fn matches_of_rule_and_command_both_hold() {
    let path = |value: &str| json!({ "path": { "value": value } });
    for (rule, own, expected) in [
        (json!({}), json!({ "path": "/a" }), json!([{ "path": "/a" }])),
        (path("/"), json!({ "pathPrefix": "/" }), json!([{ "pathPrefix": "/" }])),
        (path("/x"), json!({ "pathPrefix": "/" }), json!([{ "pathPrefix": "/x" }])),
        (path("/x/"), json!({ "pathPrefix": "/y" }), json!([{ "pathPrefix": "/x/y" }])),
        (path("/x.y"), json!({ "pathRegex": "/v[0-9]+" }), json!([{ "pathRegex": "/x\\.y(?:/v[0-9]+)" }])),
        (path("/"), json!({ "pathRegex": "/a|/b" }), json!([{ "pathRegex": "/a|/b" }])),
        (json!({ "method": "GET" }), json!({ "path": "/a" }), json!([{ "method": "GET", "path": "/a" }])),
        (json!({ "method": "GET" }), json!({ "path": "/a", "method": "POST" }), json!([])),
        (
            json!({ "headers": [{ "name": "V", "value": "1" }] }),
            json!({ "path": "/a", "headers": [{ "name": "v", "value": "2" }] }),
            json!([]),
        ),
        (
            json!({ "queryParams": [{ "name": "q", "value": "1" }] }),
            json!({ "path": "/a", "query": [{ "name": "q", "present": true }, { "name": "r", "regex": "x+" }] }),
            json!([{ "path": "/a", "query": [{ "name": "q", "value": "1" }, { "name": "r", "regex": "x+" }] }]),
        ),
    ] {
        let set =
            json!({ "commands": [{ "id": "a", "matches": [own] }, { "id": "b", "matches": [{ "path": "/other" }] }] });
        let (commands, conditions, cluster) = commands_with(set, json!({ "matches": [rule] }));
        assert_eq!(conditions[0], "Accepted=Accepted", "{rule} {own}");
        let found = commands.iter().find(|command| command["id"] == "a").map(|command| command["match"].clone());
        let mut found = found.unwrap_or_else(|| json!([]));
        for one in found.as_array_mut().into_iter().flatten() {
            one.as_object_mut().expect("an object").retain(|_, value| *value != json!([]));
        }
        assert_eq!(found, expected, "{rule} {own}");
        assert_eq!(compiled_without_tls(&cluster).excluded, [], "{rule} {own}");
    }
}

#[test]
fn a_replaced_prefix_is_replaced_below_each_command() {
    for (replacement, own, expected) in [
        ("/", json!([{ "path": "/v1/{id}" }]), Some(json!({ "path": "/v1/{id}" }))),
        ("/in", json!([{ "path": "/v1/{id}" }]), Some(json!({ "path": "/in/v1/{id}" }))),
        ("/in/", json!([{ "path": "/" }]), Some(json!({ "path": "/in" }))),
        ("/in", json!([{ "pathPrefix": "/v1" }]), Some(json!({ "replacePrefixMatch": "/in/v1" }))),
        (
            "/in",
            json!([{ "path": "/v1", "method": "GET" }, { "path": "/v1", "method": "PUT" }]),
            Some(json!({ "path": "/in/v1" })),
        ),
        ("/in", json!([{ "path": "/v1" }, { "path": "/v2" }]), None),
        ("/in", json!([{ "pathRegex": "/v[0-9]" }]), None),
    ] {
        let mut cluster = cluster();
        cluster.add(CommandSet, "shop", "cameras", json!({ "commands": [{ "id": "a", "matches": own }] }));
        let mut filters = extension("cameras");
        let path = json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": replacement });
        filters.as_array_mut().expect("a list").push(json!({ "type": "URLRewrite", "urlRewrite": { "path": path } }));
        let matches = json!([{ "path": { "value": "/out" } }]);
        let rule = json!({ "matches": matches, "filters": filters, "backendRefs": [backend("cart")] });
        cluster.route("shop", "cart", json!({ "rules": [rule] }));
        let command = cluster.document("HTTPRoute shop/cart")["subsystems"][0]["commands"][0].clone();
        assert_eq!(command.get("rewrite"), expected.as_ref(), "{replacement} {own}");
        assert_eq!(compiled_without_tls(&cluster).excluded, [], "{replacement} {own}");
    }
}

#[test]
fn combinations_that_cannot_be_expressed_refuse_the_route() {
    let exact = json!({ "path": { "type": "Exact", "value": "/x" } });
    let header = json!({ "headers": [{ "name": "v", "type": "RegularExpression", "value": "1+" }] });
    for (rule, own) in [
        (exact, json!({ "path": "/a" })),
        (header, json!({ "path": "/a", "headers": [{ "name": "v", "value": "11" }] })),
    ] {
        let set = json!({ "commands": [{ "id": "a", "matches": [own] }] });
        let (commands, conditions, _) = commands_with(set, json!({ "matches": [rule] }));
        assert_eq!((commands.len(), conditions[0].as_str()), (0, "!Accepted=UnsupportedValue"), "{rule}");
    }
}

#[test]
fn a_command_set_that_cannot_be_used_answers_its_rule_with_500() {
    let faulty = json!({ "commands": [{ "id": "a", "matches": [{ "pathRegex": "(" }] }] });
    let twice = json!({ "commands": [{ "id": "a", "matches": [{ "path": "/a" }] }, { "id": "a", "matches": [{ "path": "/b" }] }] });
    for (name, set, reason) in [
        ("cameras", faulty, "InvalidCommandSet"),
        ("cameras", twice, "InvalidCommandSet"),
        ("cameras", json!({ "commands": 1 }), "InvalidCommandSet"),
        ("missing", command_set(json!({})), "CommandSetNotFound"),
    ] {
        let mut cluster = cluster();
        cluster.add(CommandSet, "shop", "cameras", set.clone());
        let rules = json!([{ "filters": extension(name), "backendRefs": [backend("cart")] }, { "backendRefs": [backend("cart")] }]);
        cluster.route("shop", "cart", json!({ "rules": rules }));
        let expected = ["Accepted=Accepted".to_owned(), format!("!ResolvedRefs={reason}")];
        assert_eq!(cluster.route_conditions("cart"), expected, "{set}");
        let commands = cluster.document("HTTPRoute shop/cart")["subsystems"][0]["commands"].clone();
        assert_eq!(commands[0]["backends"], json!([{ "status": 500 }]), "{set}");
        assert_eq!(commands[1]["backends"][0]["backend"], "shop.cart_8080", "the other rule is as before");
        let accepted = shown(&cluster.translated().command_sets[0].conditions);
        assert_eq!(accepted[0] == "Accepted=Accepted", name == "missing", "{set}");
    }
}

#[test]
fn only_command_sets_of_the_own_namespace_are_named() {
    for reference in [
        json!({ "group": "tallygate.io", "kind": "Grant", "name": "cameras" }),
        json!({ "group": "example.com", "kind": "CommandSet", "name": "cameras" }),
    ] {
        let mut cluster = cluster();
        let filters = json!([{ "type": "ExtensionRef", "extensionRef": reference }]);
        cluster.route("shop", "cart", json!({ "rules": [{ "filters": filters }] }));
        assert_eq!(cluster.route_conditions("cart")[0], "!Accepted=UnsupportedValue", "{reference}");
    }
    let mut cluster = cluster();
    cluster.add(CommandSet, "other", "cameras", command_set(json!({})));
    cluster.route("shop", "cart", json!({ "rules": [{ "filters": extension("cameras") }] }));
    assert_eq!(cluster.route_conditions("cart")[1], "!ResolvedRefs=CommandSetNotFound");
}

#[test]
fn grpc_rules_have_grpc_commands() {
    for (method, own, expected) in [
        (json!(null), "a.B/C", Some("a.B/C")),
        (json!({ "service": "a.B" }), "a.B/C", Some("a.B/C")),
        (json!({ "service": "a.B" }), "*/C", Some("a.B/C")),
        (json!({ "service": "a.B" }), "*", Some("a.B/*")),
        (json!({ "service": "a.B" }), "a.X/C", None),
    ] {
        let mut cluster = cluster();
        let set = json!({ "commands": [{ "id": "call", "matches": [{ "grpc": own }] }] });
        cluster.add(CommandSet, "shop", "calls", set);
        let parents = json!([{ "name": "web", "namespace": "infra" }]);
        let rule = json!({ "matches": [{ "method": method }], "filters": extension("calls"), "backendRefs": [backend("cart")] });
        cluster.add(ObjectKind::GrpcRoute, "shop", "r", json!({ "parentRefs": parents, "rules": [rule] }));
        let commands = cluster.document("GRPCRoute shop/r")["subsystems"][0]["commands"].clone();
        let found = commands.as_array().expect("commands").iter().find(|command| command["id"] == "call");
        assert_eq!(
            found.map(|command| &command["match"][0]["grpc"]),
            expected.map(|grpc| json!(grpc)).as_ref(),
            "{own}"
        );
        assert_eq!(compiled_without_tls(&cluster).excluded, [], "{own}");
    }
}

#[test]
fn one_command_in_two_rules_is_a_problem_of_the_route_alone() {
    let mut cluster = cluster();
    cluster.add(CommandSet, "shop", "cameras", command_set(json!({})));
    let rule = |prefix: &str| json!({ "matches": [{ "path": { "value": prefix } }], "filters": extension("cameras"), "backendRefs": [backend("cart")] });
    cluster.route("shop", "twice", json!({ "rules": [rule("/a"), rule("/b")] }));
    cluster.route("shop", "once", json!({ "rules": [rule("/c")] }));
    let excluded = compiled_without_tls(&cluster).excluded;
    let sources: Vec<&str> = excluded.iter().map(|one| one.source.as_str()).collect();
    assert_eq!(sources, ["HTTPRoute shop/twice"]);
    assert!(excluded[0].problems[0].message.contains("two commands"), "{excluded:?}");
}

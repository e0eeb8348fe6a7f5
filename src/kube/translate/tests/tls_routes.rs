//! TLSRoutes and listeners of the protocol TLS: the cases of the conformance suite (v1.6.3), and mixed ports.

use super::*;

/// A listener of the protocol TLS on port 443.
fn tls_listener(name: &str, mode: &str, hostname: &str) -> Value {
    let allowed = json!({ "namespaces": { "from": "All" } });
    let tls = match mode {
        "Terminate" => json!({ "mode": mode, "certificateRefs": [{ "name": "good" }] }),
        _ => json!({ "mode": mode }),
    };
    let mut listener = json!({ "name": name, "port": 443, "protocol": "TLS", "tls": tls, "allowedRoutes": allowed });
    if !hostname.is_empty() {
        listener["hostname"] = json!(hostname);
    }
    listener
}

/// A cluster with these listeners, published, the certificate `good`, and the Service `shop/broker`.
fn cluster(listeners: &Value) -> Cluster {
    let mut cluster = Cluster::with_gateway();
    cluster.add_object(
        ObjectKind::Secret,
        json!({
            "metadata": { "namespace": "infra", "name": "good" },
            "type": "kubernetes.io/tls",
            "data": { "tls.crt": "Z29vZA==", "tls.key": "a2V5" },
        }),
    );
    cluster.gateway(listeners.clone());
    cluster.publish(&[(443, 20_443), (80, 20_080)]);
    cluster.service("shop", "broker", json!({ "port": 8080 }), &["10.77.1.2"]);
    cluster
}

fn tls_route(cluster: &mut Cluster, name: &str, hostnames: &[&str], more: Value) {
    let mut spec = json!({
        "parentRefs": [{ "name": "web", "namespace": "infra" }],
        "hostnames": hostnames,
        "rules": [{ "backendRefs": [backend("broker")] }],
    });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    cluster.add(ObjectKind::TlsRoute, "shop", name, spec);
}

#[test]
fn passthrough_route_is_a_subsystem_with_one_command() {
    let mut cluster = cluster(&json!([tls_listener("tls", "Passthrough", "*.Example.com")]));
    let rule = json!({ "name": "mqtt", "backendRefs": [{ "name": "broker", "port": 8080, "weight": 3 }] });
    tls_route(&mut cluster, "r", &["abc.example.com", "*.com"], json!({ "rules": [rule] }));
    assert_eq!(
        cluster.document("TLSRoute shop/r"),
        json!({
            "subsystems": [{
                "id": "shop.r_tls",
                "listeners": ["infra.web_443/tls"],
                "tlsMode": "passthrough",
                "hosts": ["abc.example.com", "**.com"],
                "commands": [{ "id": "rule_mqtt", "backends": [{ "backend": "shop.broker_8080_tcp", "weight": 3 }] }],
            }],
            "grants": [{ "department": "infra.web", "subsystem": "shop.r_tls", "commands": ["*"] }],
        })
    );
    assert_eq!(
        cluster.document("Service shop/broker")["backends"][0],
        json!({
            "id": "shop.broker_8080_tcp",
            "endpoints": { "service": "shop/broker", "port": "", "secure": false },
            "protocol": "tcp",
        })
    );
    let listener = &cluster.document("Gateway infra/web")["listeners"][0];
    assert_eq!(listener["protocol"], "tls");
    assert_eq!(listener["tls"], Value::Null);
    assert_eq!(listener["virtualHosts"], json!([{ "name": "tls", "host": "**.example.com", "protocol": "tls" }]));
    assert_eq!(cluster.route_conditions("r"), ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]);
    let configuration = compiled(&cluster.translated());
    assert_eq!(configuration.excluded, []);
    assert_eq!(configuration.snapshot.subsystems.len(), 1);
}

#[test]
fn one_port_has_https_and_both_modes() {
    let web = json!({
        "name": "web", "port": 443, "protocol": "HTTPS", "hostname": "web.example.com",
        "tls": { "certificateRefs": [{ "name": "good" }] },
    });
    let listeners = json!([
        web,
        tls_listener("ended", "Terminate", "tls.example.com"),
        tls_listener("passed", "Passthrough", "*.example.com"),
    ]);
    let mut cluster = cluster(&listeners);
    tls_route(&mut cluster, "both", &["*.example.com"], json!({}));
    for name in ["web", "ended", "passed"] {
        let expected = ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs", "!Conflicted=NoConflicts"];
        assert_eq!(cluster.listener_conditions(name), expected, "{name}");
    }
    let listener = &cluster.document("Gateway infra/web")["listeners"][0];
    assert_eq!(listener["protocol"], Value::Null, "HTTPS");
    assert_eq!(
        listener["virtualHosts"],
        json!([
            { "name": "web", "host": "web.example.com" },
            { "name": "ended", "host": "tls.example.com", "protocol": "tls" },
            { "name": "passed", "host": "**.example.com", "protocol": "tls" },
        ])
    );
    let names = |at: usize| listener["tls"]["certificates"][at]["serverNames"].clone();
    assert_eq!((names(0), names(1), names(2)), (json!(["web.example.com"]), json!(["tls.example.com"]), Value::Null));
    let document = cluster.document("TLSRoute shop/both");
    let summary = |at: usize| {
        let subsystem = &document["subsystems"][at];
        (subsystem["id"].clone(), subsystem["tlsMode"].clone(), subsystem["listeners"].clone())
    };
    assert_eq!(summary(0), (json!("shop.both_tls"), json!("passthrough"), json!(["infra.web_443/passed"])));
    assert_eq!(summary(1), (json!("shop.both_tls-terminated"), json!("terminate"), json!(["infra.web_443/ended"])));
    assert_eq!(document["grants"].as_array().map(Vec::len), Some(2));
    let attached = &cluster.translated().gateways[0].listeners;
    let attached: Vec<_> = attached.iter().map(|one| (one.name.as_str(), one.attached_routes)).collect();
    assert_eq!(attached, [("web", 0), ("ended", 1), ("passed", 1)]);
}

#[test]
fn policies_encrypt_again_only_what_is_terminated() {
    let mut cluster = cluster(&json!([
        tls_listener("ended", "Terminate", "tls.example.com"),
        tls_listener("passed", "Passthrough", "abc.example.com"),
    ]));
    let policy = json!({
        "targetRefs": [{ "group": "", "kind": "Service", "name": "broker" }],
        "validation": { "hostname": "in.example", "wellKnownCACertificates": "System" },
    });
    cluster.add(ObjectKind::BackendTlsPolicy, "shop", "p", policy);
    tls_route(&mut cluster, "r", &["*.example.com"], json!({}));
    let document = cluster.document("TLSRoute shop/r");
    let backend = |at: usize| document["subsystems"][at]["commands"][0]["backends"][0]["backend"].clone();
    assert_eq!((backend(0), backend(1)), (json!("shop.broker_8080_tcp"), json!("shop.broker_8080_tls")));
    let encrypted = &cluster.document("Service shop/broker (shop.broker_8080_tls)")["backends"][0];
    assert_eq!(encrypted["endpoints"]["secure"], json!(true));
    assert_eq!(encrypted["tls"]["serverName"], "in.example");
}

#[test]
fn faults_have_the_conditions_of_the_suite() {
    let passing = || json!([tls_listener("tls", "Passthrough", "*.example.com")]);
    let http = json!([{ "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } } }]);
    let https = json!([{
        "name": "https", "port": 443, "protocol": "HTTPS", "allowedRoutes": { "namespaces": { "from": "All" } },
        "tls": { "certificateRefs": [{ "name": "good" }] },
    }]);
    let to = |backend: Value| json!({ "rules": [{ "backendRefs": [backend] }] });
    let section = json!({ "parentRefs": [{ "name": "web", "namespace": "infra", "sectionName": "none" }] });
    let two = json!({ "rules": [{ "backendRefs": [backend("broker")] }, { "backendRefs": [backend("broker")] }] });
    for (listeners, hostname, more, expected) in [
        (http, "a.example.com", json!({}), ["!Accepted=NotAllowedByListeners", "ResolvedRefs=ResolvedRefs"]),
        (https, "a.example.com", json!({}), ["!Accepted=NotAllowedByListeners", "ResolvedRefs=ResolvedRefs"]),
        (passing(), "a.example.com", section, ["!Accepted=NoMatchingParent", "ResolvedRefs=ResolvedRefs"]),
        (passing(), "*.no.com", json!({}), ["!Accepted=NoMatchingListenerHostname", "ResolvedRefs=ResolvedRefs"]),
        (
            passing(),
            "a.example.com",
            to(json!({ "name": "nonexistent", "port": 443 })),
            ["Accepted=Accepted", "!ResolvedRefs=BackendNotFound"],
        ),
        (
            passing(),
            "a.example.com",
            to(json!({ "group": "unknownkind.example.com", "kind": "NonExistent", "name": "broker", "port": 443 })),
            ["Accepted=Accepted", "!ResolvedRefs=InvalidKind"],
        ),
        (
            passing(),
            "a.example.com",
            to(json!({ "name": "broker", "namespace": "other", "port": 8080 })),
            ["Accepted=Accepted", "!ResolvedRefs=RefNotPermitted"],
        ),
        (passing(), "a.example.com", two, ["!Accepted=UnsupportedValue", "ResolvedRefs=ResolvedRefs"]),
    ] {
        let mut cluster = cluster(&listeners);
        tls_route(&mut cluster, "r", &[hostname], more.clone());
        assert_eq!(cluster.route_conditions("r"), expected, "{listeners} {hostname} {more}");
        let share = cluster.document("TLSRoute shop/r")["subsystems"][0]["commands"][0]["backends"][0].clone();
        let expected =
            if expected[0] == "Accepted=Accepted" { json!({ "status": 500, "weight": 1 }) } else { Value::Null };
        assert_eq!(share, expected, "{hostname} {more}");
    }
}

#[test]
fn listeners_name_the_kinds_that_they_take() {
    let kinds = |kinds: Value, mode: &str| {
        let mut listener = tls_listener("tls", mode, "");
        listener["allowedRoutes"]["kinds"] = kinds;
        listener
    };
    for (listener, supported, expected) in [
        (tls_listener("tls", "Passthrough", ""), 1, ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]),
        (tls_listener("tls", "Terminate", ""), 1, ["Accepted=Accepted", "ResolvedRefs=ResolvedRefs"]),
        (
            kinds(json!([{ "kind": "TCPRoute" }, { "kind": "TLSRoute" }]), "Passthrough"),
            1,
            ["Accepted=Accepted", "!ResolvedRefs=InvalidRouteKinds"],
        ),
        (
            kinds(json!([{ "kind": "HTTPRoute" }]), "Terminate"),
            0,
            ["Accepted=Accepted", "!ResolvedRefs=InvalidRouteKinds"],
        ),
        (tls_listener("tls", "Odd", ""), 1, ["!Accepted=UnsupportedValue", "!ResolvedRefs=InvalidCertificateRef"]),
    ] {
        let cluster = cluster(&json!([listener]));
        assert_eq!(cluster.listener_conditions("tls")[..2], expected, "{listener}");
        let shown = &cluster.translated().gateways[0].listeners[0];
        let names: Vec<_> = shown.supported_kinds.iter().map(|kind| &*kind.kind).collect();
        assert_eq!(names, vec!["TLSRoute"; supported], "{listener}");
        assert_eq!(shown.is_served, expected[0] == "Accepted=Accepted", "{listener}");
    }
}

#[test]
fn older_route_has_a_server_name_that_two_claim() {
    let mut cluster = cluster(&json!([tls_listener("tls", "Passthrough", "")]));
    tls_route(&mut cluster, "a", &["same.example.com"], json!({}));
    tls_route(&mut cluster, "b", &["same.example.com", "*.example.com"], json!({}));
    let configuration = compiled(&cluster.translated());
    assert_eq!(configuration.excluded, [], "the later route keeps its other names");
    let listener = crate::model::Name::parse("infra.web_443").expect("a name");
    for (name, expected) in [("same.example.com", "shop.a_tls"), ("x.example.com", "shop.b_tls")] {
        let found = configuration.snapshot.find_connection(&listener, Some(name));
        let crate::policy::ConnectionMatch::Command { subsystem, .. } = found else { panic!("{name}: {found:?}") };
        assert_eq!(subsystem.id.as_str(), expected);
    }
}

//! Objects as the server sends them, and as a hand may have written them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::parse::parse_object;
use super::*;

#[track_caller]
fn parsed<T: KubeObject>(object: Value) -> T {
    parse_object(object).unwrap()
}

#[track_caller]
fn fault<T: KubeObject>(object: Value) -> ObjectFault {
    parse_object::<T>(object).unwrap_err()
}

#[test]
fn gateway_with_all_fields_is_read() {
    let gateway: Gateway = parsed(json!({ "spec": {
        "gatewayClassName": "tallygate",
        "listeners": [{
            "name": "web", "hostname": "*.city.example", "port": 443, "protocol": "HTTPS",
            "tls": { "mode": "Terminate", "certificateRefs": [{ "name": "web", "namespace": "certs" }],
                     "options": { "tallygate.io/x": "y" } },
            "allowedRoutes": { "namespaces": { "from": "Selector", "selector": { "matchLabels": { "a": "b" } } },
                               "kinds": [{ "kind": "HTTPRoute" }] } }],
        "addresses": [{ "value": "10.0.0.1" }, { "type": "Hostname", "value": "a.example" }],
        "infrastructure": { "labels": { "a": "b" }, "annotations": { "c": "d" },
                            "parametersRef": { "group": "", "kind": "ConfigMap", "name": "p" } },
        "allowedListeners": { "namespaces": { "from": "All" } },
        "tls": {
            "frontend": {
                "default": { "validation": { "mode": "AllowInsecureFallback",
                    "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "ca" }] } },
                "perPort": [{ "port": 8443, "tls": { "validation": { "caCertificateRefs": [] } } }] },
            "backend": { "clientCertificateRef": { "name": "client" } } },
        "defaultScope": "All" } }));
    let listener = &gateway.listeners[0];
    assert_eq!((&*listener.name, listener.port, &listener.protocol), ("web", 443, &ListenerProtocol::Https));
    let certificate = &listener.tls.as_ref().unwrap().certificate_refs[0];
    assert_eq!((&*certificate.kind, certificate.namespace.as_deref()), ("Secret", Some("certs")));
    assert_eq!(listener.allowed_routes.namespaces.from, NamespacesFrom::Selector);
    assert_eq!(&*listener.allowed_routes.kinds[0].group, GATEWAY_GROUP);
    assert_eq!(&*gateway.addresses[0].kind, "IPAddress");
    assert_eq!(gateway.allowed_listeners.namespaces.from, NamespacesFrom::All);
    let frontend = gateway.tls.frontend.unwrap();
    assert_eq!(frontend.default.validation.unwrap().mode, FrontendValidationMode::AllowInsecureFallback);
    assert_eq!(frontend.per_port[0].port, 8443);
    assert_eq!(&*gateway.tls.backend.client_certificate_ref.unwrap().name, "client");
    assert_eq!(&*gateway.infrastructure.parameters_ref.unwrap().kind, "ConfigMap");
}

#[test]
fn missing_fields_have_the_defaults_of_the_api() {
    let gateway: Gateway = parsed(json!({ "spec": {
        "listeners": [{ "name": "a", "port": 80, "protocol": "HTTP", "tls": {} }] } }));
    assert_eq!(gateway.allowed_listeners.namespaces.from, NamespacesFrom::None);
    let listener = &gateway.listeners[0];
    assert_eq!(listener.allowed_routes.namespaces.from, NamespacesFrom::Same);
    assert_eq!(listener.tls.as_ref().unwrap().mode, TlsMode::Terminate);
    let route: HttpRoute = parsed(json!({ "spec": {
        "parentRefs": [{ "name": "g" }],
        "rules": [{ "matches": [{}], "backendRefs": [{ "name": "s", "port": 80 }] }] } }));
    let parent = &route.parent_refs[0];
    assert_eq!((&*parent.group, &*parent.kind, parent.port), (GATEWAY_GROUP, "Gateway", None));
    let rule = &route.rules[0];
    assert_eq!(rule.matches[0].path, HttpPathMatch { kind: PathMatchKind::PathPrefix, value: "/".into() });
    let backend = &rule.backend_refs[0].backend;
    assert_eq!((&*backend.group, &*backend.kind, backend.weight), ("", "Service", 1));
    assert_eq!(parsed::<Ingress>(json!({})), Ingress::default());
    assert_eq!(parsed::<Service>(json!({ "spec": { "ports": null }, "status": null })), Service::default());
}

#[test]
fn http_route_with_all_filters_is_read() {
    let backend = json!({ "name": "s", "port": 80 });
    let route: HttpRoute = parsed(json!({ "spec": { "hostnames": ["a.example"], "rules": [{
        "name": "r",
        "matches": [{ "path": { "type": "Exact", "value": "/a" }, "method": "GET",
            "headers": [{ "name": "X", "value": "1" }],
            "queryParams": [{ "type": "RegularExpression", "name": "q", "value": "a+" }] }],
        "filters": [
            { "type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{ "name": "a", "value": "1" }], "add": [{ "name": "b", "value": "2" }], "remove": ["c"] } },
            { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "remove": ["d"] } },
            { "type": "RequestMirror", "requestMirror": { "backendRef": backend,
                "fraction": { "numerator": 1, "denominator": 3 } } },
            { "type": "RequestRedirect", "requestRedirect": { "scheme": "https", "hostname": "b.example", "port": 8443,
                "statusCode": 308, "path": { "type": "ReplaceFullPath", "replaceFullPath": "/x" } } },
            { "type": "URLRewrite", "urlRewrite": { "hostname": "c.example",
                "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/y" } } },
            { "type": "CORS", "cors": { "allowOrigins": ["https://*.x"], "allowCredentials": true, "maxAge": 7 } },
            { "type": "ExtensionRef", "extensionRef": { "group": "tallygate.io", "kind": "CommandSet", "name": "c" } }],
        "backendRefs": [{ "name": "s", "namespace": "n", "port": 80, "weight": 0,
            "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": { "remove": ["e"] } }] }],
        "timeouts": { "request": "1m30s", "backendRequest": "500ms" },
        "retry": { "codes": [502], "attempts": 2, "backoff": "100ms" } }] } }));
    let rule = &route.rules[0];
    let kinds: Vec<_> = rule.filters.iter().map(|filter| filter.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            HttpFilterKind::RequestHeaderModifier,
            HttpFilterKind::ResponseHeaderModifier,
            HttpFilterKind::RequestMirror,
            HttpFilterKind::RequestRedirect,
            HttpFilterKind::UrlRewrite,
            HttpFilterKind::Cors,
            HttpFilterKind::ExtensionRef,
        ]
    );
    assert_eq!(rule.filters[2].request_mirror.as_ref().unwrap().fraction.as_ref().unwrap().denominator, 3);
    assert_eq!(rule.filters[3].request_redirect.as_ref().unwrap().status_code, Some(308));
    assert_eq!(rule.filters[5].cors.as_ref().unwrap().max_age, Some(7));
    let backend = &rule.backend_refs[0];
    assert_eq!((backend.backend.weight, backend.backend.namespace.as_deref()), (0, Some("n")));
    assert_eq!(backend.filters[0].kind, HttpFilterKind::RequestHeaderModifier);
    assert_eq!(rule.timeouts.request, Some(RouteDuration(Duration::from_secs(90))));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.codes.as_slice(), retry.attempts), ([502].as_slice(), Some(2)));
}

#[test]
fn other_kinds_are_read() {
    let grpc: GrpcRoute = parsed(json!({ "spec": { "rules": [{ "matches": [{
        "method": { "service": "a.B", "method": "C" }, "headers": [{ "name": "x", "value": "1" }] }],
        "backendRefs": [{ "name": "s", "port": 1 }] }] } }));
    assert_eq!(grpc.rules[0].matches[0].method.as_ref().unwrap().service.as_deref(), Some("a.B"));
    let tls: TlsRoute =
        parsed(json!({ "spec": { "hostnames": ["a"], "rules": [{ "backendRefs": [{ "name": "s" }] }] } }));
    assert_eq!(&*tls.rules[0].backend_refs[0].kind, "Service");
    let policy: BackendTlsPolicy = parsed(json!({ "spec": {
        "targetRefs": [{ "group": "", "kind": "Service", "name": "s", "sectionName": "https" }],
        "validation": { "hostname": "h", "wellKnownCACertificates": "System",
            "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "ca" }],
            "subjectAltNames": [{ "type": "URI", "uri": "spiffe://a/b" }, { "type": "Hostname", "hostname": "x" }] } } }));
    assert_eq!(policy.validation.well_known_ca_certificates.as_deref(), Some("System"));
    assert_eq!(policy.validation.ca_certificate_refs.len(), 1);
    assert_eq!(policy.validation.subject_alt_names[0].kind, BackendAltNameKind::Uri);
    let ingress: Ingress = parsed(json!({ "spec": { "ingressClassName": "tallygate",
        "defaultBackend": { "service": { "name": "d", "port": { "number": 80 } } },
        "tls": [{ "hosts": ["a"], "secretName": "t" }],
        "rules": [{ "host": "a", "http": { "paths": [{ "path": "/x", "pathType": "Prefix",
            "backend": { "service": { "name": "s", "port": { "name": "http" } } } }] } }] } }));
    let path = &ingress.rules[0].http.as_ref().unwrap().paths[0];
    assert_eq!(path.path_type, IngressPathKind::Prefix);
    assert_eq!(path.backend.service.as_ref().unwrap().port.name.as_deref(), Some("http"));
    let service: Service = parsed(json!({
        "spec": { "type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": [
            { "name": "dns", "port": 80, "protocol": "UDP" },
            { "name": "http", "port": 80, "protocol": "TCP", "targetPort": "web", "appProtocol": "kubernetes.io/h2c" }] },
        "status": { "loadBalancer": { "ingress": [{ "ip": "10.78.0.1", "ipMode": "VIP" }] } } }));
    assert_eq!(&*service.port(80).unwrap().name, "http");
    assert_eq!(service.port_named("dns"), None);
    assert_eq!(service.status.load_balancer.ingress[0].ip.as_deref(), Some("10.78.0.1"));
    let set: GatewayListenerSet = parsed(json!({ "spec": { "parentRef": { "name": "g" },
        "listeners": [{ "name": "a", "port": 80, "protocol": "HTTP" }] } }));
    assert_eq!(&*set.parent_ref.unwrap().kind, "Gateway");
    let class: GatewayClass = parsed(json!({ "spec": { "controllerName": "a/b" } }));
    assert_eq!(&*class.controller_name, "a/b");
}

#[test]
fn unknown_word_is_kept_for_a_condition() {
    let gateway: Gateway =
        parsed(json!({ "spec": { "listeners": [{ "name": "a", "port": 1, "protocol": "example.com/QUIC" }] } }));
    assert_eq!(gateway.listeners[0].protocol, ListenerProtocol::Other("example.com/QUIC".into()));
    let route: HttpRoute = parsed(json!({ "spec": { "rules": [{
        "matches": [{ "path": { "type": "Glob", "value": "/" } }], "filters": [{ "type": "Teapot" }] }] } }));
    assert_eq!(route.rules[0].matches[0].path.kind, PathMatchKind::Other("Glob".into()));
    assert_eq!(route.rules[0].filters[0].kind, HttpFilterKind::Other("Teapot".into()));
}

#[test]
fn fault_has_the_path_of_the_field() {
    let cases = [
        (
            json!({ "spec": { "rules": [{ "matches": [{ "path": { "value": 7 } }] }] } }),
            "spec.rules[0].matches[0].path.value",
        ),
        (json!({ "spec": { "hostnames": "a" } }), "spec.hostnames"),
        (json!({ "spec": { "rules": [{ "timeouts": { "request": "fast" } }] } }), "spec.rules[0].timeouts.request"),
        (json!({ "spec": { "parentRefs": [{ "port": 1 }] } }), "spec.parentRefs[0]"),
        (json!({ "spec": { "parentRefs": [{ "name": "a", "port": 70_000 }] } }), "spec.parentRefs[0].port"),
        (json!({ "spec": 7 }), "spec"),
    ];
    for (object, path) in cases {
        let fault = fault::<HttpRoute>(object.clone());
        assert_eq!(fault.path, path, "{object}: {fault}");
        assert!(!fault.why.is_empty());
    }
    assert_eq!(fault::<Secret>(json!({ "data": { "tls.crt": "%" } })).path, "data.tls.crt");
}

#[test]
fn fault_is_bounded() {
    let fault = fault::<HttpRoute>(json!({ "spec": { "hostnames": "ü".repeat(10_000) } }));
    assert!(fault.why.len() < 400, "{}", fault.why.len());
}

#[test]
fn secret_is_decoded_and_bounded_and_not_shown() {
    let secret: Secret = parsed(json!({ "type": "kubernetes.io/tls", "data": { "tls.key": "c2VjcmV0" } }));
    assert_eq!(&secret.data["tls.key"][..], b"secret");
    assert!(!format!("{secret:?}").contains("secret\""), "{secret:?}");
    let data: BTreeMap<_, _> = (0..5).map(|n| (n.to_string(), "A".repeat(300_000))).collect();
    let fault = fault::<ConfigMap>(json!({ "data": data }));
    assert!(fault.path == "data" && fault.why.contains("at most 1048576"), "{fault}");
}

#[test]
fn durations_have_the_form_of_gep_2257() {
    let milliseconds = |text| RouteDuration::parse(text).map(|duration| duration.0.as_millis());
    let cases = [
        ("0s", Some(0)),
        ("1h30m", Some(5_400_000)),
        ("10ms", Some(10)),
        ("1h1m1s1ms", Some(3_661_001)),
        ("99999h", Some(359_996_400_000)),
        ("", None),
        ("10", None),
        ("s", None),
        ("-1s", None),
        ("1.5s", None),
        ("100000s", None),
        ("1h1m1s1ms1s", None),
        ("1us", None),
        ("1 s", None),
    ];
    for (text, expected) in cases {
        assert_eq!(milliseconds(text), expected, "{text:?}");
    }
}

#[test]
fn label_selector_follows_the_rules_of_the_api() {
    let selector = |value: Value| serde_json::from_value::<LabelSelector>(value).unwrap();
    let expression = |key: &str, operator: &str, values: &[&str]| {
        selector(json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }))
    };
    let labels = BTreeMap::from([("a".into(), "1".into())]);
    let cases = [
        (selector(json!({})), true),
        (selector(json!({ "matchLabels": { "a": "1" } })), true),
        (selector(json!({ "matchLabels": { "a": "2" } })), false),
        (selector(json!({ "matchLabels": { "b": "1" } })), false),
        (expression("a", "In", &["1", "2"]), true),
        (expression("b", "In", &["1"]), false),
        (expression("a", "NotIn", &["1"]), false),
        (expression("b", "NotIn", &["1"]), true),
        (expression("a", "Exists", &[]), true),
        (expression("b", "DoesNotExist", &[]), true),
        (expression("a", "DoesNotExist", &[]), false),
        (expression("a", "Near", &[]), false),
    ];
    for (selector, expected) in cases {
        assert_eq!(selector.matches(&labels), expected, "{selector:?}");
    }
}

#[test]
fn grant_permits_what_it_names() {
    let grant: ReferenceGrant = parsed(json!({ "spec": {
        "from": [{ "group": GATEWAY_GROUP, "kind": "HTTPRoute", "namespace": "apps" }],
        "to": [{ "group": "", "kind": "Service" }, { "group": "", "kind": "Secret", "name": "web" }] } }));
    let from = |kind: &str, namespace: &str| GrantFrom {
        group: GATEWAY_GROUP.into(),
        kind: kind.into(),
        namespace: namespace.into(),
    };
    let cases = [
        (from("HTTPRoute", "apps"), ("", "Service", "any"), true),
        (from("HTTPRoute", "apps"), ("", "Secret", "web"), true),
        (from("HTTPRoute", "apps"), ("", "Secret", "other"), false),
        (from("HTTPRoute", "else"), ("", "Service", "any"), false),
        (from("GRPCRoute", "apps"), ("", "Service", "any"), false),
        (from("HTTPRoute", "apps"), ("x", "Service", "any"), false),
    ];
    for (from, to, expected) in cases {
        assert_eq!(grant.permits(&from, to), expected, "{from:?} {to:?}");
    }
}

//! The index under events: changes, relists, malformed objects, endpoints.

use serde_json::{Value, json};

use super::*;
use crate::kube::objects::ObjectKind as Kind;

const NONE: Change = Change { facts: false, shown: false, endpoints: std::collections::BTreeSet::new() };

fn route(name: &str, host: &str) -> Value {
    json!({
        "metadata": { "namespace": "apps", "name": name, "uid": name, "generation": 1, "resourceVersion": "1",
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": { "a": "b" },
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
        "spec": { "hostnames": [host] },
        "status": { "parents": [] }
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("apps", name)
}

/// An endpoint: address, ready, serving, terminating.
type Endpoint<'a> = (&'a str, Option<bool>, Option<bool>, Option<bool>);

fn slice(name: &str, endpoints: &[Endpoint<'_>]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, ready, serving, terminating)| {
            json!({ "addresses": [address],
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating } })
        })
        .collect();
    let family = if name.contains("v6") { "IPv6" } else { "IPv4" };
    json!({
        "metadata": { "namespace": "apps", "name": name, "labels": { "kubernetes.io/service-name": "shop" } },
        "addressType": family,
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "dns", "port": 53, "protocol": "UDP" }],
        "endpoints": endpoints
    })
}

fn shop() -> Value {
    json!({ "metadata": { "namespace": "apps", "name": "shop" },
        "spec": { "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } })
}

fn changed(object: &Value, path: &str, value: Value) -> Value {
    let mut object = object.clone();
    *object.pointer_mut(path).unwrap() = value;
    object
}

#[test]
fn event_says_what_it_changed() {
    let first = route("r", "a.example");
    let cases = [
        ("the same again", first.clone(), NONE),
        ("specification", changed(&first, "/spec/hostnames/0", json!("b.example")), Change::FACTS),
        ("generation", changed(&first, "/metadata/generation", json!(2)), Change::FACTS),
        ("identity", changed(&first, "/metadata/uid", json!("other")), Change::FACTS),
        ("labels", changed(&first, "/metadata/labels/a", json!("c")), Change::FACTS),
        ("resource version", changed(&first, "/metadata/resourceVersion", json!("2")), Change::SHOWN),
        ("status", changed(&first, "/status/parents", json!([{ "controllerName": "x/y" }])), Change::SHOWN),
        ("last applied text", changed(&first, "/metadata/annotations", json!({})), NONE),
        ("another annotation", changed(&first, "/metadata/annotations", json!({ "a": "b" })), Change::FACTS),
    ];
    for (what, second, expected) in cases {
        let mut index = Index::default();
        assert_eq!(index.apply(Kind::HttpRoute, first.clone()), Change::FACTS);
        assert_eq!(index.apply(Kind::HttpRoute, second), expected, "{what}");
        assert_eq!(index.count(Kind::HttpRoute), 1);
    }
}

#[test]
fn lock_in_a_config_map_is_no_change() {
    let map = json!({ "metadata": { "namespace": "n", "name": "lock", "resourceVersion": "1",
        "annotations": { "leader": "a" } }, "data": { "a": "b" } });
    let mut index = Index::default();
    index.apply(Kind::ConfigMap, map.clone());
    let renewed = changed(&map, "/metadata/annotations/leader", json!("b"));
    let renewed = changed(&renewed, "/metadata/resourceVersion", json!("2"));
    assert_eq!(index.apply(Kind::ConfigMap, renewed), NONE);
}

#[test]
fn malformed_object_is_kept_with_its_metadata_and_hides_no_other() {
    let mut index = Index::default();
    index.begin_relist(Kind::HttpRoute);
    for (name, hostnames) in [("a", json!(["x"])), ("bad", json!("x")), ("c", json!(["y"]))] {
        index.apply(Kind::HttpRoute, changed(&route(name, ""), "/spec/hostnames", hostnames));
    }
    assert_eq!(index.end_relist(Kind::HttpRoute), NONE);
    assert_eq!(index.count(Kind::HttpRoute), 3);
    let bad = index.http_routes().get(&key("bad")).unwrap();
    assert_eq!(bad.parsed.as_ref().unwrap_err().path, "spec.hostnames");
    assert_eq!((bad.meta.generation, &*bad.meta.uid), (1, "bad"));
    assert_eq!(bad.shown.parsed(), json!({ "parents": [] }));
    assert!(index.http_routes().valid(&key("a")).is_some() && index.http_routes().valid(&key("c")).is_some());
    let repaired = index.apply(Kind::HttpRoute, route("bad", "z"));
    assert!(repaired.facts && index.http_routes().valid(&key("bad")).is_some());
}

#[test]
fn malformed_metadata_keeps_the_name() {
    let mut index = Index::default();
    let object = changed(&route("r", "a"), "/metadata/generation", json!("many"));
    assert!(index.apply(Kind::HttpRoute, object).facts);
    let fault = index.http_routes().get(&key("r")).unwrap().parsed.as_ref().unwrap_err();
    assert_eq!(fault.path, "metadata.generation");
}

#[test]
fn object_without_a_name_is_counted() {
    let mut index = Index::default();
    for object in [json!({}), json!({ "metadata": {} }), json!([]), json!({ "metadata": { "name": 1 } })] {
        assert_eq!(index.apply(Kind::Gateway, object), NONE);
    }
    assert_eq!((index.left_out(Kind::Gateway), index.count(Kind::Gateway)), (4, 0));
}

#[test]
fn relist_removes_what_it_did_not_show() {
    let mut index = Index::default();
    index.begin_relist(Kind::HttpRoute);
    index.apply(Kind::HttpRoute, route("stays", "a"));
    index.apply(Kind::HttpRoute, route("goes", "b"));
    assert!(!index.is_synced(Kind::HttpRoute));
    assert_eq!(index.end_relist(Kind::HttpRoute), NONE);
    assert!(index.is_synced(Kind::HttpRoute));

    index.begin_relist(Kind::HttpRoute);
    assert_eq!(index.apply(Kind::HttpRoute, route("stays", "a")), NONE);
    assert_eq!(index.count(Kind::HttpRoute), 2, "nothing goes before the end");
    assert_eq!(index.end_relist(Kind::HttpRoute), Change::FACTS);
    assert_eq!(index.http_routes().iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key("stays")]);
    assert_eq!(index.end_relist(Kind::HttpRoute), NONE, "an end without a begin");
    assert_eq!(index.count(Kind::HttpRoute), 1);
}

#[test]
fn relist_that_breaks_off_removes_nothing_until_the_next_one_ends() {
    let mut index = Index::default();
    index.begin_relist(Kind::HttpRoute);
    index.apply(Kind::HttpRoute, route("a", "a"));
    index.apply(Kind::HttpRoute, route("b", "b"));
    index.end_relist(Kind::HttpRoute);
    index.begin_relist(Kind::HttpRoute);
    index.apply(Kind::HttpRoute, route("a", "a"));
    index.begin_relist(Kind::HttpRoute);
    index.apply(Kind::HttpRoute, route("b", "b"));
    assert_eq!(index.count(Kind::HttpRoute), 2);
    assert_eq!(index.end_relist(Kind::HttpRoute), Change::FACTS);
    assert_eq!(index.count(Kind::HttpRoute), 1);
}

#[test]
fn deleted_object_is_gone_and_its_second_deletion_is_no_change() {
    let mut index = Index::default();
    index.apply(Kind::HttpRoute, route("a", "a"));
    assert_eq!(index.delete(Kind::HttpRoute, &key("a")), Change::FACTS);
    assert_eq!(index.delete(Kind::HttpRoute, &key("a")), NONE);
}

#[test]
fn objects_above_the_limit_are_left_out_and_counted() {
    let mut index = Index::default();
    let named = |number: usize| json!({ "metadata": { "name": format!("n{number}") } });
    for number in 0..=OBJECTS_MAX {
        index.apply(Kind::Namespace, named(number));
    }
    assert_eq!((index.count(Kind::Namespace), index.left_out(Kind::Namespace)), (OBJECTS_MAX, 1));
    let labelled = json!({ "metadata": { "name": "n0", "labels": { "a": "b" } } });
    assert_eq!(index.apply(Kind::Namespace, labelled), Change::FACTS, "known objects still change");
}

#[test]
fn objects_of_a_namespace_are_found() {
    let mut index = Index::default();
    for (namespace, name) in [("a", "x"), ("apps", "b"), ("apps", "a"), ("apps2", "c")] {
        index.apply(Kind::Service, json!({ "metadata": { "namespace": namespace, "name": name } }));
    }
    let names: Vec<_> = index.services().in_namespace("apps").map(|(key, _)| key.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn clone_shares_facts_and_is_not_changed_by_later_events() {
    let mut index = Index::default();
    index.apply(Kind::HttpRoute, route("a", "a"));
    let before = index.clone();
    index.delete(Kind::HttpRoute, &key("a"));
    assert_eq!((before.count(Kind::HttpRoute), index.count(Kind::HttpRoute)), (1, 0));
}

#[track_caller]
fn assert_endpoints(slices: &[Value], expected: &[&str]) {
    let mut index = Index::default();
    index.apply(Kind::Service, shop());
    for slice in slices {
        index.apply(Kind::EndpointSlice, slice.clone());
    }
    let found: Vec<_> = index.endpoints_of("apps", "shop", 80).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{slices:?}");
}

#[test]
fn ready_endpoints_are_chosen_or_else_those_that_serve_while_terminating() {
    let (yes, no) = (Some(true), Some(false));
    let ready = ("10.0.0.1", yes, yes, no);
    let old_style = ("10.0.0.2", None, None, None);
    let ending = ("10.0.0.3", no, yes, yes);
    let ended = ("10.0.0.4", no, no, yes);
    let starting = ("10.0.0.5", no, no, no);
    let serving_not_ready = ("10.0.0.6", no, yes, no);
    assert_endpoints(&[], &[]);
    assert_endpoints(&[slice("a", &[ready, ending, ended, starting])], &["10.0.0.1:8080"]);
    assert_endpoints(&[slice("a", &[old_style])], &["10.0.0.2:8080"]);
    assert_endpoints(&[slice("a", &[ending, ended, starting])], &["10.0.0.3:8080"]);
    assert_endpoints(&[slice("a", &[ended, starting, serving_not_ready])], &[]);
}

#[test]
fn endpoint_in_several_slices_is_one_and_the_order_is_fixed() {
    let one = ("10.0.0.1", None, None, None);
    let two = ("10.0.0.2", None, None, None);
    let expected = ["10.0.0.1:8080", "10.0.0.2:8080"];
    assert_endpoints(&[slice("a", &[two, one]), slice("b", &[one])], &expected);
    assert_endpoints(&[slice("b", &[one]), slice("a", &[one, two])], &expected);
}

#[test]
fn one_family_is_chosen_and_never_an_unready_one_before_a_ready_one() {
    let (yes, no) = (Some(true), Some(false));
    let four = slice("v4", &[("10.0.0.1", None, None, None)]);
    let six = slice("v6", &[("fd00::1", None, None, None)]);
    let four_ending = slice("v4", &[("10.0.0.1", no, yes, yes)]);
    assert_endpoints(&[six.clone(), four], &["10.0.0.1:8080"]);
    assert_endpoints(std::slice::from_ref(&six), &["[fd00::1]:8080"]);
    assert_endpoints(&[four_ending, six], &["[fd00::1]:8080"]);
}

#[test]
fn slice_without_addresses_ports_or_a_service_has_no_endpoints() {
    let one = slice("a", &[("10.0.0.1", None, None, None)]);
    assert_endpoints(&[changed(&one, "/endpoints", Value::Null)], &[]);
    assert_endpoints(&[changed(&one, "/ports", Value::Null)], &[]);
    assert_endpoints(&[changed(&one, "/addressType", json!("FQDN"))], &[]);
    assert_endpoints(&[changed(&one, "/endpoints/0/addresses", json!(["a.example"]))], &[]);
    assert_endpoints(&[changed(&one, "/metadata/labels", json!({}))], &[]);
    assert_endpoints(&[one.clone(), changed(&one, "/endpoints", json!("many"))], &[]);
    let mut index = Index::default();
    index.apply(Kind::EndpointSlice, one);
    assert!(index.endpoints_of("apps", "shop", 80).is_empty(), "no Service");
    index.apply(Kind::Service, shop());
    assert!(index.endpoints_of("apps", "shop", 81).is_empty(), "no such port");
}

#[test]
fn change_of_endpoints_names_the_service_and_nothing_else() {
    let mut endpoints = EndpointIndex::default();
    let one = slice("a", &[("10.0.0.1", None, None, None)]);
    let services = |change: &Change| change.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>();
    let change = endpoints.apply(one.clone());
    assert!(change.is_endpoints_only());
    assert_eq!(services(&change), ["apps/shop"]);
    assert_eq!(endpoints.apply(changed(&one, "/metadata/name", json!("a"))), NONE);
    let moved = changed(&one, "/metadata/labels", json!({ "kubernetes.io/service-name": "stall" }));
    assert_eq!(services(&endpoints.apply(moved)), ["apps/shop", "apps/stall"]);
    assert!(endpoints.addresses(&key("shop"), "http").is_empty());
    assert_eq!(endpoints.addresses(&key("stall"), "http").len(), 1);
    endpoints.begin_relist();
    assert_eq!(services(&endpoints.end_relist()), ["apps/stall"]);
    assert!(endpoints.is_synced() && endpoints.slice_count() == 0);
}

#[test]
fn zone_hints_are_followed_when_all_endpoints_have_them() {
    let in_zones = |zones: &[&str]| {
        let endpoints: Vec<_> = zones
            .iter()
            .enumerate()
            .map(|(number, zone)| {
                let hints = if zone.is_empty() { json!({}) } else { json!({ "forZones": [{ "name": zone }] }) };
                json!({ "addresses": [format!("10.0.0.{number}")], "zone": zone, "hints": hints })
            })
            .collect();
        changed(&slice("a", &[]), "/endpoints", json!(endpoints))
    };
    let chosen = |zones: &[&str], own: Option<&str>| {
        let mut endpoints = EndpointIndex::default();
        endpoints.set_zone(own);
        endpoints.apply(in_zones(zones));
        endpoints.addresses(&key("shop"), "http").iter().map(|address| address.ip().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["a", "b"], Some("b")), ["10.0.0.1"]);
    assert_eq!(chosen(&["a", "b"], None).len(), 2);
    assert_eq!(chosen(&["a", "b"], Some("c")).len(), 2);
    assert_eq!(chosen(&["a", ""], Some("a")).len(), 2);
}

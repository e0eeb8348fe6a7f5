//! Wanted against shown, in tables.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kube::objects::{GatewayAddress, IngressAddress, ParentReference, RouteKind};
use crate::kube::status::comparison::merge_patch;
use crate::kube::status::*;

const OURS: &str = "tallygate.io/gateway-controller";
const BEFORE: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-02-02T02:02:02Z";

fn now() -> Timestamp {
    "2026-02-02T02:02:02.987Z".parse().unwrap()
}

fn accepted(generation: i64) -> WantedCondition {
    WantedCondition::new("Accepted", true, "Accepted", "in order", generation)
}

fn refused() -> WantedCondition {
    WantedCondition::new("Accepted", false, "UnsupportedValue", "rule 1: no backoff", 1)
}

fn shown_accepted(generation: i64, since: &str) -> Value {
    json!({ "type": "Accepted", "status": "True", "reason": "Accepted", "message": "in order",
        "observedGeneration": generation, "lastTransitionTime": since })
}

fn parent(name: &str) -> ParentReference {
    serde_json::from_value(json!({ "name": name })).unwrap()
}

fn wanted(names: &[&str]) -> WantedStatus {
    WantedStatus::Route(
        names.iter().map(|name| WantedParent { parent: parent(name), conditions: vec![accepted(1)] }).collect(),
    )
}

fn entry(controller: &str, name: &str) -> Value {
    json!({ "parentRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name },
        "controllerName": controller, "conditions": [shown_accepted(1, BEFORE)] })
}

fn compared(wanted: &WantedStatus, shown: &Value) -> Option<Value> {
    let status = new_status(wanted, shown, OURS, now());
    if let Some(status) = &status {
        assert_eq!(new_status(wanted, status, OURS, now()), None, "a second comparison must find nothing to write");
        let mut patched = shown.clone();
        apply_patch(&mut patched, merge_patch(shown, status.clone()));
        assert_eq!(patched, *status, "the merge patch");
    }
    status
}

#[test]
fn condition_keeps_its_time_while_its_status_is_the_same() {
    let parents = |condition: WantedCondition| {
        WantedStatus::Route(vec![WantedParent { parent: parent("g"), conditions: vec![condition] }])
    };
    let other_message = WantedCondition { message: "still".into(), ..accepted(1) };
    let unknown = WantedCondition { status: ConditionStatus::Unknown, ..accepted(1) };
    let cases = [
        ("equal", accepted(1), None),
        ("generation", accepted(2), Some(("True", BEFORE))),
        ("message", other_message, Some(("True", BEFORE))),
        ("status", refused(), Some(("False", NOW))),
        ("unknown", unknown, Some(("Unknown", NOW))),
    ];
    for (what, condition, expected) in cases {
        let status = compared(&parents(condition), &json!({ "parents": [entry(OURS, "g")] }));
        let found = status.as_ref().map(|status| &status["parents"][0]["conditions"][0]);
        let found =
            found.map(|found| (found["status"].as_str().unwrap(), found["lastTransitionTime"].as_str().unwrap()));
        assert_eq!(found, expected, "{what}");
    }
}

/// A case: its name, wanted parents, the shown status, and the entries to write.
type EntryCase<'a> = (&'a str, &'a [&'a str], Value, Option<Vec<Value>>);

#[test]
fn entries_of_routes_are_merged() {
    let foreign = json!({ "parentRef": { "name": "g" }, "controllerName": "other/x", "conditions": [], "odd": [1] });
    let malformed = json!({ "controllerName": 7 });
    let cases: [EntryCase<'_>; 9] = [
        ("nothing of nothing", &[], Value::Null, None),
        ("nothing of an empty list", &[], json!({ "parents": [] }), None),
        ("equal", &["g"], json!({ "parents": [entry(OURS, "g")] }), None),
        ("equal in another order", &["g", "h"], json!({ "parents": [entry(OURS, "h"), entry(OURS, "g")] }), None),
        ("foreign ones only", &[], json!({ "parents": [foreign, malformed] }), None),
        ("parent is gone", &[], json!({ "parents": [entry(OURS, "g")] }), Some(vec![])),
        (
            "parent is gone between foreign ones",
            &["h"],
            json!({ "parents": [foreign, entry(OURS, "g"), malformed, entry(OURS, "h")] }),
            Some(vec![foreign.clone(), malformed.clone(), entry(OURS, "h")]),
        ),
        (
            "twice the same",
            &["g"],
            json!({ "parents": [entry(OURS, "g"), foreign, entry(OURS, "g")] }),
            Some(vec![entry(OURS, "g"), foreign.clone()]),
        ),
        (
            "ours without a readable parent",
            &["g"],
            json!({ "parents": [{ "controllerName": OURS, "parentRef": 1 }, entry(OURS, "g")] }),
            Some(vec![entry(OURS, "g")]),
        ),
    ];
    for (what, names, shown, expected) in cases {
        let status = compared(&wanted(names), &shown);
        assert_eq!(status.map(|status| status["parents"].as_array().unwrap().clone()), expected, "{what}");
    }
}

#[test]
fn new_entry_comes_last_and_has_all_fields() {
    let foreign = entry("other/x", "g");
    let wanted = WantedStatus::Route(vec![WantedParent {
        parent: ParentReference {
            namespace: Some("n".into()),
            section_name: Some("s".into()),
            port: Some(80),
            ..parent("g")
        },
        conditions: vec![accepted(3)],
    }]);
    let status = compared(&wanted, &json!({ "parents": [foreign] })).unwrap();
    let ours = json!({
        "parentRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "n", "name": "g",
            "sectionName": "s", "port": 80 },
        "controllerName": OURS, "conditions": [shown_accepted(3, NOW)] });
    assert_eq!(status, json!({ "parents": [foreign, ours] }));
}

#[test]
fn parents_that_differ_in_one_field_are_different() {
    let section = ParentReference { section_name: Some("s".into()), ..parent("g") };
    let wanted = WantedStatus::Route(vec![WantedParent { parent: section, conditions: vec![accepted(1)] }]);
    let status = compared(&wanted, &json!({ "parents": [entry(OURS, "g")] })).unwrap();
    assert_eq!(status["parents"].as_array().unwrap().len(), 1);
    assert_eq!(status["parents"][0]["parentRef"]["sectionName"], "s");
}

#[test]
fn lists_are_bounded_and_foreign_entries_stay() {
    let names: Vec<String> = (0..40).map(|number| format!("g{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let foreign: Vec<Value> = (0..10).map(|_| entry("other/x", "f")).collect();
    let status = compared(&wanted(&names), &json!({ "parents": foreign })).unwrap();
    let parents = status["parents"].as_array().unwrap();
    assert_eq!((parents.len(), &parents[..10]), (PARENTS_MAX, &foreign[..]));
    let WantedStatus::Route(parents) = wanted(&names) else { panic!() };
    let status = compared(&WantedStatus::Policy(parents), &Value::Null).unwrap();
    let ancestors = status["ancestors"].as_array().unwrap();
    assert_eq!(ancestors.len(), ANCESTORS_MAX);
    assert_eq!(ancestors[0]["ancestorRef"]["name"], "g0");
    let full: Vec<Value> = (0..32).map(|_| entry("other/x", "f")).collect();
    assert_eq!(compared(&wanted(&["g"]), &json!({ "parents": full })), None, "no place: no write");
}

fn gateway(conditions: Vec<WantedCondition>) -> WantedStatus {
    WantedStatus::Gateway { conditions, addresses: vec![], listeners: vec![], attached_listener_sets: None }
}

#[test]
fn conditions_of_others_on_a_gateway_survive_in_place_and_ours_that_are_not_wanted_go() {
    let foreign = json!({ "type": "example.com/Checked", "status": "True", "reason": "x", "message": "",
        "lastTransitionTime": BEFORE });
    let fallback = json!({ "type": "InsecureFrontendValidationMode", "status": "True", "reason": "ConfigurationChanged",
        "message": "", "lastTransitionTime": BEFORE });
    let shown = json!({ "conditions": [foreign, fallback, shown_accepted(1, BEFORE)] });
    let status = compared(&gateway(vec![accepted(1)]), &shown).unwrap();
    assert_eq!(status["conditions"], json!([foreign, shown_accepted(1, BEFORE)]));
    let shown = json!({ "conditions": [foreign, shown_accepted(1, BEFORE)] });
    assert_eq!(compared(&gateway(vec![accepted(1)]), &shown), None);
}

#[test]
fn conditions_that_the_api_sets_by_default_are_replaced() {
    let pending = |kind: &str| {
        json!({ "type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z" })
    };
    let shown = json!({ "conditions": [pending("Accepted"), pending("Programmed")] });
    let programmed = WantedCondition::new("Programmed", false, "AddressNotUsable", "10.0.0.9 is not ours", 1);
    let status = compared(&gateway(vec![accepted(1), programmed]), &shown).unwrap();
    assert_eq!(status["conditions"][0], shown_accepted(1, NOW));
    assert_eq!(status["conditions"][1]["reason"], "AddressNotUsable");
    assert_eq!(status["conditions"].as_array().unwrap().len(), 2);
}

#[test]
fn listeners_and_addresses_of_a_gateway_are_written_as_a_whole() {
    let listener = |name: &str, routes: u32, kinds: &[&str]| WantedListener {
        name: name.into(),
        supported_kinds: kinds.iter().map(|kind| RouteKind { group: "g".into(), kind: (*kind).into() }).collect(),
        attached_routes: routes,
        conditions: vec![accepted(1)],
    };
    let wanted = |listeners: Vec<WantedListener>, addresses: &[&str]| WantedStatus::Gateway {
        conditions: vec![accepted(1)],
        addresses: addresses
            .iter()
            .map(|value| GatewayAddress { kind: "IPAddress".into(), value: (*value).into() })
            .collect(),
        listeners,
        attached_listener_sets: Some(0),
    };
    let first = wanted(vec![listener("a", 1, &["HTTPRoute"]), listener("b", 0, &[])], &["10.0.0.1"]);
    let shown = compared(&first, &Value::Null).unwrap();
    assert_eq!(shown["addresses"], json!([{ "type": "IPAddress", "value": "10.0.0.1" }]));
    assert_eq!(shown["attachedListenerSets"], 0);
    assert_eq!(
        shown["listeners"][0],
        json!({ "name": "a", "attachedRoutes": 1,
        "supportedKinds": [{ "group": "g", "kind": "HTTPRoute" }], "conditions": [shown_accepted(1, NOW)] })
    );
    assert_eq!(shown["listeners"][1]["supportedKinds"], json!([]));
    let second = compared(&wanted(vec![listener("b", 2, &[])], &[]), &shown).unwrap();
    assert_eq!(second.get("addresses"), None);
    assert_eq!(second["listeners"].as_array().unwrap().len(), 1);
    assert_eq!(second["listeners"][0]["attachedRoutes"], 2);
}

#[test]
fn features_of_a_class_are_sorted_and_unknown_fields_stay() {
    let wanted = WantedStatus::GatewayClass {
        conditions: vec![accepted(1)],
        supported_features: vec!["HTTPRoute".into(), "Gateway".into(), "HTTPRoute".into()],
    };
    let status = compared(&wanted, &json!({ "new": { "a": 1 } })).unwrap();
    assert_eq!(status["supportedFeatures"], json!([{ "name": "Gateway" }, { "name": "HTTPRoute" }]));
    assert_eq!(status["new"], json!({ "a": 1 }));
}

#[test]
fn listener_set_has_conditions_and_listeners() {
    let listener =
        WantedListener { name: "a".into(), supported_kinds: vec![], attached_routes: 0, conditions: vec![accepted(1)] };
    let wanted = WantedStatus::ListenerSet { conditions: vec![accepted(1)], listeners: vec![listener] };
    let status = compared(&wanted, &Value::Null).unwrap();
    assert_eq!(status["listeners"][0]["name"], "a");
}

#[test]
fn ingress_shows_our_addresses_beside_those_of_others() {
    let ip = |ip: &str| IngressAddress { ip: Some(ip.into()), hostname: None };
    let shown = |ips: &[&str]| {
        let ips: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        json!({ "loadBalancer": { "ingress": ips } })
    };
    let empty = json!({ "loadBalancer": {} });
    let cases = [
        ("new", vec![ip("1")], vec![], Value::Null, Some(shown(&["1"]))),
        ("new in an empty one", vec![ip("1")], vec![], empty.clone(), Some(shown(&["1"]))),
        ("equal", vec![ip("1")], vec![], shown(&["1"]), None),
        ("beside another's", vec![ip("1")], vec![], shown(&["9"]), Some(shown(&["9", "1"]))),
        ("beside another's, again", vec![ip("1")], vec![], shown(&["9", "1"]), None),
        ("moved", vec![ip("2")], vec![ip("1")], shown(&["1", "9"]), Some(shown(&["9", "2"]))),
        ("not ours any more", vec![], vec![ip("1")], shown(&["1", "9"]), Some(shown(&["9"]))),
        ("not ours any more, alone", vec![], vec![ip("1")], shown(&["1"]), Some(empty.clone())),
        ("never ours", vec![], vec![ip("1")], shown(&["9"]), None),
        ("never ours, empty", vec![], vec![ip("1")], empty, None),
        ("never ours, missing", vec![], vec![ip("1")], Value::Null, None),
    ];
    for (what, addresses, former, shown, expected) in cases {
        let wanted = WantedStatus::Ingress(WantedIngress { addresses, former });
        assert_eq!(compared(&wanted, &shown), expected, "{what}");
    }
    let wanted = WantedIngress {
        addresses: vec![IngressAddress { ip: None, hostname: Some("a.example".into()) }],
        former: vec![],
    };
    let ports = json!({ "loadBalancer": { "ingress": [{ "hostname": "a.example", "ports": [{ "port": 80 }] }] } });
    assert_eq!(compared(&WantedStatus::Ingress(wanted), &ports), None, "another's fields of our address stay");
}

#[test]
fn malformed_status_is_written_anew() {
    for shown in [json!(7), json!([]), json!({ "parents": "x" }), json!({ "parents": [{ "controllerName": OURS }] })] {
        let status = compared(&wanted(&["g"]), &shown).unwrap();
        assert_eq!(status["parents"].as_array().unwrap().len(), 1, "{shown}");
    }
}

#[test]
fn long_message_is_cut() {
    let condition = WantedCondition { message: "ü".repeat(5000).into(), ..accepted(1) };
    let status = compared(&gateway(vec![condition]), &Value::Null).unwrap();
    assert!(status["conditions"][0]["message"].as_str().unwrap().len() <= 2048);
}

/// RFC 7396 section 2.
fn apply_patch(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        let fields = target.as_object_mut().expect("an object");
        match value {
            Value::Null => drop(fields.remove(&key)),
            value => apply_patch(fields.entry(key).or_insert(Value::Null), value),
        }
    }
}

#[test]
fn a_merge_patch_names_only_what_changes() {
    let before = json!({ "a": 1, "b": { "c": [1], "d": 2 }, "e": 3 });
    for (after, patch) in [
        (before.clone(), json!({})),
        (json!({ "a": 1, "b": { "c": [1, 2], "d": 2 } }), json!({ "e": null, "b": { "c": [1, 2] } })),
        (json!({ "a": 2, "b": {}, "e": 3 }), json!({ "a": 2, "b": { "c": null, "d": null } })),
        (json!({ "a": 1, "b": 5, "e": 3, "f": { "g": 1 } }), json!({ "b": 5, "f": { "g": 1 } })),
    ] {
        assert_eq!(merge_patch(&before, after.clone()), patch);
        let mut patched = before.clone();
        apply_patch(&mut patched, patch);
        assert_eq!(patched, after);
    }
    assert_eq!(merge_patch(&Value::Null, json!({ "a": 1 })), json!({ "a": 1 }));
}

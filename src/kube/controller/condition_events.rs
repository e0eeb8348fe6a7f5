//! Events from conditions: what an operator should know about a Gateway, a route, a policy or an object of our own
//! kinds that is not in order.
//!
//! Guarantees:
//! - Each object whose `Accepted`, `ResolvedRefs` or `Programmed` does not hold has faults: one for each reason, with
//!   every place where it fails.
//! - What is normal while an object begins (no address yet, not bound yet) is a fault only after [`PENDING_TIME`].
//! - Bounded: places of a fault above [`PLACES_MAX`] are counted, and an object that is gone is forgotten.
//!
//! Leaves to others: when an event is written, and how often (`events`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::wanted_status::WantedObject;
use crate::kube::events::ObjectFaultNote;
use crate::kube::objects::{ObjectKey, ObjectKind, ParentReference};
use crate::kube::status::{ConditionStatus, WantedCondition, WantedListener, WantedParent, WantedStatus};
use crate::kube::translate::{ACCEPTED, PROGRAMMED, RESOLVED_REFS};

/// How long an object may begin before that is a fault.
pub(super) const PENDING_TIME: Duration = Duration::from_secs(30);

/// The most places that a note names.
const PLACES_MAX: usize = 5;

/// The reasons of what is normal while an object begins.
const PENDING_REASONS: [&str; 3] = ["Pending", "AddressNotAssigned", "NoResources"];

/// An object.
type FaultyObject = (ObjectKind, ObjectKey);

/// Since when objects begin.
#[derive(Debug, Default)]
pub(super) struct PendingObjects(HashMap<FaultyObject, PendingObject>);

#[derive(Debug)]
struct PendingObject {
    since: Instant,
    is_reported: bool,
}

impl PendingObjects {
    /// The faults of an object that are reported at this time.
    pub(super) fn due_faults(&mut self, wanted: &WantedObject, now: Instant) -> Vec<ObjectFaultNote> {
        let (kind, key, status) = wanted;
        let (pending, mut due): (Vec<_>, Vec<_>) =
            faults_of(status).into_iter().partition(|(reason, _)| PENDING_REASONS.contains(&&**reason));
        let object = (*kind, key.clone());
        if pending.is_empty() {
            self.0.remove(&object);
            return due;
        }
        let known = self.0.entry(object).or_insert(PendingObject { since: now, is_reported: false });
        if now.duration_since(known.since) >= PENDING_TIME {
            known.is_reported = true;
            due.extend(pending);
        }
        due
    }

    /// Forgets objects that are not among `wanted` any more.
    pub(super) fn retain(&mut self, wanted: &[WantedObject]) {
        if self.0.is_empty() {
            return;
        }
        let known: HashSet<(ObjectKind, &ObjectKey)> = wanted.iter().map(|(kind, key, _)| (*kind, key)).collect();
        self.0.retain(|(kind, key), _| known.contains(&(*kind, key)));
    }

    /// Whether an object has begun for so long that it is reported now.
    pub(super) fn has_due(&self, now: Instant) -> bool {
        let is_due =
            |pending: &PendingObject| !pending.is_reported && now.duration_since(pending.since) >= PENDING_TIME;
        self.0.values().any(is_due)
    }
}

/// The faults of a status: for each reason one note.
fn faults_of(status: &WantedStatus) -> Vec<ObjectFaultNote> {
    let mut faults = FaultNotes::default();
    match status {
        WantedStatus::GatewayClass { conditions, .. } | WantedStatus::Conditions(conditions) => {
            faults.add_all(conditions, "");
        }
        WantedStatus::Gateway { conditions, listeners, .. } | WantedStatus::ListenerSet { conditions, listeners } => {
            faults.add_all(conditions, "");
            listeners.iter().for_each(|listener| faults.add_listener(listener));
        }
        WantedStatus::Route(parents) | WantedStatus::Policy(parents) => {
            parents.iter().for_each(|parent| faults.add_parent(parent));
        }
        WantedStatus::Ingress(_) => {} // it has no conditions
    }
    faults.into_notes()
}

/// For each reason, what fails with which message, and the places where it does.
#[derive(Default)]
struct FaultNotes(BTreeMap<Cow<'static, str>, Vec<(String, Vec<String>)>>);

impl FaultNotes {
    fn add_all(&mut self, conditions: &[WantedCondition], place: &str) {
        let watched = conditions.iter().filter(|one| [ACCEPTED, RESOLVED_REFS, PROGRAMMED].contains(&&*one.kind));
        for condition in watched.filter(|one| one.status == ConditionStatus::False) {
            let text = format!("{} is False: {}", condition.kind, condition.message);
            let texts = self.0.entry(condition.reason.clone()).or_default();
            match texts.iter_mut().find(|(known, _)| *known == text) {
                Some((_, places)) => places.push(place.to_owned()),
                None => texts.push((text, vec![place.to_owned()])),
            }
        }
    }

    fn add_listener(&mut self, listener: &WantedListener) {
        self.add_all(&listener.conditions, &format!("listener {}", listener.name));
    }

    fn add_parent(&mut self, parent: &WantedParent) {
        self.add_all(&parent.conditions, &parent_text(&parent.parent));
    }

    fn into_notes(self) -> Vec<ObjectFaultNote> {
        let note = |texts: Vec<(String, Vec<String>)>| {
            let texts = texts.into_iter().map(|(text, places)| format!("{text}{}", places_text(&places)));
            texts.collect::<Vec<_>>().join("; ")
        };
        self.0.into_iter().map(|(reason, texts)| (reason, note(texts))).collect()
    }
}

/// ` (listener a, listener b)`; nothing for the object itself.
fn places_text(places: &[String]) -> String {
    let named: Vec<&str> = places.iter().map(String::as_str).filter(|place| !place.is_empty()).collect();
    match named.len() {
        0 => String::new(),
        count if count > PLACES_MAX => {
            format!(" ({} and {} more)", named[..PLACES_MAX].join(", "), count - PLACES_MAX)
        }
        _ => format!(" ({})", named.join(", ")),
    }
}

/// `Gateway infra/web, listener https`.
fn parent_text(parent: &ParentReference) -> String {
    let namespace = parent.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let section = parent.section_name.as_ref().map(|name| format!(" listener {name}")).unwrap_or_default();
    let port = parent.port.map(|port| format!(" port {port}")).unwrap_or_default();
    format!("{} {namespace}{}{section}{port}", parent.kind, parent.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(kind: &'static str, holds: bool, reason: &'static str, message: &'static str) -> WantedCondition {
        WantedCondition::new(kind, holds, reason, message, 1)
    }

    fn parent(name: &str, conditions: Vec<WantedCondition>) -> WantedParent {
        let parent = serde_json::from_value(json!({ "namespace": "infra", "name": name })).expect("a parent");
        WantedParent { parent, conditions }
    }

    fn route(parents: Vec<WantedParent>) -> WantedObject {
        (ObjectKind::HttpRoute, ObjectKey::new("shop", "cart"), WantedStatus::Route(parents))
    }

    fn gateway(reason: &'static str, listeners: &[&str]) -> WantedObject {
        let listener = |name: &&str| WantedListener {
            name: (*name).into(),
            supported_kinds: Vec::new(),
            attached_routes: 0,
            conditions: vec![condition(PROGRAMMED, false, reason, "why")],
        };
        let status = WantedStatus::Gateway {
            conditions: vec![condition(ACCEPTED, true, "Accepted", "")],
            addresses: Vec::new(),
            listeners: listeners.iter().map(listener).collect(),
            attached_listener_sets: None,
        };
        (ObjectKind::Gateway, ObjectKey::new("infra", "web"), status)
    }

    fn due(wanted: &WantedObject) -> Vec<(String, String)> {
        let faults = PendingObjects::default().due_faults(wanted, Instant::now());
        faults.into_iter().map(|(reason, note)| (reason.into_owned(), note)).collect()
    }

    #[test]
    fn faults_name_the_condition_the_reason_and_the_places() {
        let missing = || condition(RESOLVED_REFS, false, "BackendNotFound", "the Service shop/pay does not exist");
        let accepted = || condition(ACCEPTED, true, "Accepted", "");
        let unsupported = condition(ACCEPTED, false, "UnsupportedValue", "rule 1: this filter is not supported");
        let faulty =
            route(vec![parent("web", vec![accepted(), missing()]), parent("inner", vec![unsupported, missing()])]);
        let expected = [
            (
                "BackendNotFound",
                "ResolvedRefs is False: the Service shop/pay does not exist (Gateway infra/web, Gateway infra/inner)",
            ),
            ("UnsupportedValue", "Accepted is False: rule 1: this filter is not supported (Gateway infra/inner)"),
        ];
        assert_eq!(due(&faulty), expected.map(|(reason, note)| (reason.to_owned(), note.to_owned())));
        assert_eq!(due(&route(vec![parent("web", vec![accepted()])])), []);
    }

    #[test]
    fn many_places_are_counted() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let (_, note) = due(&gateway("Invalid", &names)).remove(0);
        assert!(note.ends_with("listener d, listener e and 2 more)"), "{note}");
    }

    #[test]
    fn beginning_is_a_fault_only_when_it_lasts() {
        let start = Instant::now();
        let mut pending = PendingObjects::default();
        let beginning = gateway("Pending", &["http"]);
        assert_eq!(pending.due_faults(&beginning, start), []);
        assert!(!pending.has_due(start + PENDING_TIME / 2));
        assert_eq!(pending.due_faults(&beginning, start + PENDING_TIME / 2), []);
        assert!(pending.has_due(start + PENDING_TIME));
        assert_eq!(pending.due_faults(&beginning, start + PENDING_TIME).len(), 1);
        assert!(!pending.has_due(start + PENDING_TIME * 9), "it is reported once");
        assert_eq!(pending.due_faults(&beginning, start + PENDING_TIME * 2).len(), 1, "it stays a fault");
        let good = route(vec![]);
        pending.retain(std::slice::from_ref(&good));
        assert!(pending.0.is_empty(), "objects that are gone are forgotten");
        assert_eq!(pending.due_faults(&gateway("Invalid", &["http"]), start).len(), 1, "others are faults at once");
    }
}

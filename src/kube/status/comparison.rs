//! Wanted against shown: the change of the status, or nothing.
//!
//! Guarantees:
//! - Pure. What is not written by this controller stays as it is.
//! - A change is a JSON merge patch (RFC 7396) of the status alone. A whole object would not do: in the status of a
//!   built-in kind such as Ingress, the API server takes labels and annotations from what is written.
//! - A shown status that is malformed is written anew.
//!
//! Leaves to others:
//! - writing: `status_writer`.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::conditions::merged_conditions;
use super::entries::{ANCESTORS, EntryList, PARENTS};
use super::wanted::{WantedCondition, WantedIngress, WantedListener, WantedParent, WantedStatus};
use crate::kube::index::Fact;
use crate::kube::objects::{GatewayAddress, IngressAddress, ObjectKey, ObjectKind};

/// The largest number of addresses of a Gateway: the maximum of the API.
pub const STATUS_ADDRESSES_MAX: usize = 16;

/// The largest number of features of a GatewayClass: the maximum of the API.
const FEATURES_MAX: usize = 64;

/// The status of an object to write, based on what the watch showed.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusUpdate {
    /// The kind.
    pub kind: ObjectKind,
    /// The object.
    pub key: ObjectKey,
    /// The identity of the object: an object with the same name that was created later is another one.
    pub uid: Box<str>,
    /// The version that the comparison was based on. The write is refused if the object has changed since.
    pub resource_version: Box<str>,
    /// The merge patch from the shown status to the new one.
    pub patch: Value,
}

/// Compares the status that `fact` should show with the one that it shows. Returns `None` if they are equal.
/// `controller` is the name that owns entries; `now` becomes the time of conditions that change.
pub fn compare_status<T>(
    kind: ObjectKind,
    fact: &Fact<T>,
    wanted: &WantedStatus,
    controller: &str,
    now: Timestamp,
) -> Option<StatusUpdate> {
    let shown = fact.shown.parsed();
    let patch = merge_patch(&shown, new_status(wanted, &shown, controller, now)?);
    let (uid, resource_version) = (fact.meta.uid.clone(), fact.meta.resource_version.clone());
    Some(StatusUpdate { kind, key: fact.meta.key(), uid, resource_version, patch })
}

/// The merge patch that makes `after` of `before` (RFC 7396). `after` has no `null`: a patch could not say it.
pub(super) fn merge_patch(before: &Value, after: Value) -> Value {
    let (before, after) = match (before, after) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        (_, after) => return after,
    };
    let removed = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let mut patch: Map<String, Value> = removed.collect();
    for (key, value) in after {
        match before.get(&key) {
            Some(same) if *same == value => {}
            Some(known) => drop(patch.insert(key, merge_patch(known, value))),
            None => drop(patch.insert(key, value)),
        }
    }
    Value::Object(patch)
}

/// Returns the status to write, or `None` if `shown` says all of `wanted` and nothing of ours beside.
pub fn new_status(wanted: &WantedStatus, shown: &Value, controller: &str, now: Timestamp) -> Option<Value> {
    let fields = shown.as_object().cloned().unwrap_or_default();
    let mut status = StatusFields { fields, now };
    match wanted {
        WantedStatus::GatewayClass { conditions, supported_features } => {
            status.set_conditions(conditions);
            status.set_features(supported_features);
        }
        WantedStatus::Gateway { conditions, addresses, listeners, attached_listener_sets } => {
            status.set_conditions(conditions);
            status.set_addresses(addresses);
            status.set_listeners(listeners);
            if let Some(sets) = attached_listener_sets {
                status.fields.insert("attachedListenerSets".to_owned(), json!(sets));
            }
        }
        WantedStatus::ListenerSet { conditions, listeners } => {
            status.set_conditions(conditions);
            status.set_listeners(listeners);
        }
        WantedStatus::Route(parents) => status.set_entries("parents", PARENTS, parents, controller),
        WantedStatus::Policy(ancestors) => status.set_entries("ancestors", ANCESTORS, ancestors, controller),
        WantedStatus::Ingress(ingress) => status.set_ingress(ingress),
        WantedStatus::Conditions(conditions) => status.set_conditions(conditions),
    }
    let status = Value::Object(status.fields);
    let is_same = status == *shown || (shown.is_null() && says_nothing(&status));
    (!is_same).then_some(status)
}

/// Whether a status has no field, or only empty lists: as good as a missing one.
fn says_nothing(status: &Value) -> bool {
    match status {
        Value::Object(fields) => fields.values().all(says_nothing),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

struct StatusFields {
    fields: Map<String, Value>,
    now: Timestamp,
}

impl StatusFields {
    fn shown(&self, field: &str) -> &Value {
        self.fields.get(field).unwrap_or(&Value::Null)
    }

    fn set_conditions(&mut self, wanted: &[WantedCondition]) {
        let conditions = merged_conditions(wanted, self.shown("conditions"), self.now);
        self.fields.insert("conditions".to_owned(), conditions);
    }

    /// Sets a list; a list without items is a missing field.
    fn set_list(&mut self, field: &str, items: Vec<Value>) {
        if items.is_empty() {
            self.fields.remove(field);
        } else {
            self.fields.insert(field.to_owned(), Value::Array(items));
        }
    }

    fn set_features(&mut self, features: &[impl AsRef<str> + Ord]) {
        let mut sorted: Vec<&str> = features.iter().map(AsRef::as_ref).collect();
        sorted.sort_unstable();
        sorted.dedup();
        self.set_list(
            "supportedFeatures",
            sorted.into_iter().take(FEATURES_MAX).map(|name| json!({ "name": name })).collect(),
        );
    }

    fn set_addresses(&mut self, addresses: &[GatewayAddress]) {
        self.set_list("addresses", addresses.iter().take(STATUS_ADDRESSES_MAX).map(|address| json!(address)).collect());
    }

    fn set_listeners(&mut self, wanted: &[WantedListener]) {
        let listeners = wanted.iter().map(|listener| {
            let shown = self.shown("listeners").as_array();
            let shown = shown.and_then(|shown| shown.iter().find(|shown| shown["name"] == *listener.name));
            let conditions = shown.map_or(&Value::Null, |shown| &shown["conditions"]);
            json!({
                "name": listener.name,
                "supportedKinds": listener.supported_kinds,
                "attachedRoutes": listener.attached_routes,
                "conditions": merged_conditions(&listener.conditions, conditions, self.now),
            })
        });
        let listeners = listeners.collect();
        self.set_list("listeners", listeners);
    }

    fn set_entries(&mut self, field: &str, list: EntryList, wanted: &[WantedParent], controller: &str) {
        let entries = list.merged(wanted, self.shown(field), controller, self.now);
        self.fields.insert(field.to_owned(), entries);
    }

    fn set_ingress(&mut self, wanted: &WantedIngress) {
        let mut addresses: Vec<Value> = self.shown("loadBalancer")["ingress"].as_array().cloned().unwrap_or_default();
        let is_in = |list: &[IngressAddress], shown: &Value| list.iter().any(|address| is_address(address, shown));
        addresses.retain(|shown| is_in(&wanted.addresses, shown) || !is_in(&wanted.former, shown));
        for address in &wanted.addresses {
            if !addresses.iter().any(|shown| is_address(address, shown)) {
                addresses.push(address_entry(address));
            }
        }
        let mut balancer = self.shown("loadBalancer").as_object().cloned().unwrap_or_default();
        if addresses.is_empty() {
            balancer.remove("ingress");
        } else {
            balancer.insert("ingress".to_owned(), Value::Array(addresses));
        }
        self.fields.insert("loadBalancer".to_owned(), Value::Object(balancer));
    }
}

fn is_address(address: &IngressAddress, shown: &Value) -> bool {
    shown["ip"].as_str() == address.ip.as_deref() && shown["hostname"].as_str() == address.hostname.as_deref()
}

fn address_entry(address: &IngressAddress) -> Value {
    let mut entry = Map::new();
    let fields = [("ip", &address.ip), ("hostname", &address.hostname)];
    entry.extend(fields.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text.as_ref()?)))));
    Value::Object(entry)
}

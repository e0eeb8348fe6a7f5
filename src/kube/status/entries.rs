//! Entries of routes and policies: one for each parent or ancestor, and several controllers in one list.
//!
//! Guarantees:
//! - Entries of others are kept as they are and in their places, malformed ones too.
//! - A list has at most its maximum of entries: ours are left out first.
//!
//! Leaves to others:
//! - conditions: `conditions`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::conditions::merged_conditions;
use super::wanted::WantedParent;
use crate::kube::objects::ParentReference;

/// The largest number of entries of a route: the maximum of the API.
pub const PARENTS_MAX: usize = 32;

/// The largest number of entries of a policy: the maximum of the API.
pub const ANCESTORS_MAX: usize = 16;

/// A list of entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryList {
    /// The field of the reference: `parentRef` or `ancestorRef`.
    pub(super) reference: &'static str,
    /// The largest number of entries.
    pub(super) max: usize,
}

/// Entries of a route.
pub(super) const PARENTS: EntryList = EntryList { reference: "parentRef", max: PARENTS_MAX };

/// Entries of a policy.
pub(super) const ANCESTORS: EntryList = EntryList { reference: "ancestorRef", max: ANCESTORS_MAX };

impl EntryList {
    /// Returns the entries to show.
    pub(super) fn merged(self, wanted: &[WantedParent], shown: &Value, controller: &str, now: Timestamp) -> Value {
        let shown: &[Value] = shown.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut placed = vec![false; wanted.len()];
        let mut merged: Vec<Value> = Vec::new();
        for entry in shown {
            if entry["controllerName"] != controller {
                merged.push(entry.clone());
                continue;
            }
            let place = self.place(wanted, entry).filter(|place| !placed[*place]);
            if let Some(place) = place {
                placed[place] = true;
                merged.push(self.entry(&wanted[place], &entry["conditions"], controller, now));
            }
        }
        let free = self.max.saturating_sub(merged.len());
        let new = wanted.iter().zip(&placed).filter(|(_, placed)| !**placed).take(free);
        merged.extend(new.map(|(wanted, _)| self.entry(wanted, &Value::Null, controller, now)));
        Value::Array(merged)
    }

    fn place(self, wanted: &[WantedParent], entry: &Value) -> Option<usize> {
        let parent = ParentReference::deserialize(&entry[self.reference]).ok()?;
        wanted.iter().position(|wanted| wanted.parent == parent)
    }

    fn entry(self, wanted: &WantedParent, shown: &Value, controller: &str, now: Timestamp) -> Value {
        json!({
            self.reference: wanted.parent,
            "controllerName": controller,
            "conditions": merged_conditions(&wanted.conditions, shown, now),
        })
    }
}

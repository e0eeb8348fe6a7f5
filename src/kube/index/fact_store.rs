//! The objects of one kind.
//!
//! Guarantees:
//! - Objects are in the order of their keys.
//! - An event that shows the same object again is no change.
//! - A store with the same revision as before has the same facts, but for what the server shows of statuses. Stores of
//!   different indexes have different revisions, unless one is a clone of the other.
//!
//! Leaves to others:
//! - references between kinds: `translate`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::change::Change;
use super::change_log::ChangeLog;
use super::fact::Fact;
use super::kind_state::{KindState, OBJECTS_MAX};
use crate::kube::objects::{KubeObject, ObjectKey};
use crate::model::IdentityToken;

/// The objects of one kind, by namespace and name.
#[derive(Clone, Debug)]
pub struct FactStore<T> {
    objects: BTreeMap<ObjectKey, StoredFact<T>>,
    state: KindState,
    /// The changes of facts.
    changes: ChangeLog,
    /// The changes of facts, and of what the server shows of statuses.
    shown_changes: ChangeLog,
}

#[derive(Clone, Debug)]
struct StoredFact<T> {
    fact: Arc<Fact<T>>,
    /// The relist that showed the object last.
    relist: u64,
}

impl<T> Default for FactStore<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            state: KindState::default(),
            changes: ChangeLog::default(),
            shown_changes: ChangeLog::default(),
        }
    }
}

impl<T> FactStore<T> {
    /// The object with this key, malformed ones included.
    pub fn get(&self, key: &ObjectKey) -> Option<&Fact<T>> {
        self.get_shared(key).map(|fact| &**fact)
    }

    /// The object with this key, to be compared by its address: an object that changes has another one.
    pub fn get_shared(&self, key: &ObjectKey) -> Option<&Arc<Fact<T>>> {
        self.objects.get(key).map(|stored| &stored.fact)
    }

    /// The specification of the object with this key; `None` if it is missing or malformed.
    pub fn valid(&self, key: &ObjectKey) -> Option<&T> {
        self.get(key)?.parsed.as_ref().ok()
    }

    /// All objects in the order of their keys, malformed ones included.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Fact<T>)> {
        self.iter_shared().map(|(key, fact)| (key, &**fact))
    }

    /// All objects as [`FactStore::iter`], to be compared by their addresses.
    pub fn iter_shared(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Fact<T>>)> {
        self.objects.iter().map(|(key, stored)| (key, &stored.fact))
    }

    /// The revision of the facts.
    pub fn revision(&self) -> &IdentityToken {
        self.changes.revision()
    }

    /// The objects that have changed since a revision, those that are gone included, some perhaps more than once.
    /// `None` if that is not known any more. What the server shows of a status is no change.
    pub fn changed_since(&self, revision: &IdentityToken) -> Option<Vec<&ObjectKey>> {
        self.changes.since(revision)
    }

    /// The revision of the facts, and of what the server shows of statuses.
    pub fn shown_revision(&self) -> &IdentityToken {
        self.shown_changes.revision()
    }

    /// As [`FactStore::changed_since`], with the objects of which only the shown status has changed.
    pub fn shown_since(&self, revision: &IdentityToken) -> Option<Vec<&ObjectKey>> {
        self.shown_changes.since(revision)
    }

    /// The objects of one namespace in the order of their names, malformed ones included.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Fact<T>)> {
        let first = ObjectKey::new(namespace, "");
        let namespace = Arc::clone(&first.namespace);
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.namespace == namespace)
            .map(|(key, stored)| (key, &*stored.fact))
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether a relist has ended.
    pub fn is_synced(&self) -> bool {
        self.state.is_synced
    }

    pub(super) fn left_out(&self) -> u64 {
        self.state.left_out
    }

    pub(super) fn begin_relist(&mut self) {
        self.state.begin();
    }

    pub(super) fn end_relist(&mut self) -> Change {
        if !self.state.end() {
            return Change::default();
        }
        let relist = self.state.relist;
        let gone = self.objects.extract_if(.., |_, stored| stored.relist != relist);
        let gone: Vec<ObjectKey> = gone.map(|(key, _)| key).collect();
        let mut change = Change::default();
        for key in &gone {
            change.merge(self.changed(Change::FACTS, key));
        }
        change
    }

    pub(super) fn delete(&mut self, key: &ObjectKey) -> Change {
        let is_known = self.objects.remove(key).is_some();
        self.changed(if is_known { Change::FACTS } else { Change::default() }, key)
    }

    /// Begins new revisions if this object has changed.
    fn changed(&mut self, change: Change, key: &ObjectKey) -> Change {
        if change.facts {
            self.changes.note(key.clone());
        }
        if change.facts || change.shown {
            self.shown_changes.note(key.clone());
        }
        change
    }
}

impl<T: KubeObject> FactStore<T> {
    pub(super) fn apply(&mut self, object: Value) -> Change {
        let fact = Fact::<T>::read(object);
        let Some(fact) = fact.filter(|fact| self.has_place_for(&fact.meta.key())) else {
            self.state.leave_out();
            return Change::default();
        };
        let (key, relist) = (fact.meta.key(), self.state.relist);
        let change = self.get(&key).map_or(Change::FACTS, |known| difference(known, &fact));
        match self.objects.get_mut(&key) {
            Some(stored) if change.is_nothing() => stored.relist = relist,
            _ => {
                self.objects.insert(key.clone(), StoredFact { fact: Arc::new(fact), relist });
            }
        }
        self.changed(change, &key)
    }

    fn has_place_for(&self, key: &ObjectKey) -> bool {
        self.objects.len() < OBJECTS_MAX || self.objects.contains_key(key)
    }
}

/// Compares what was known with what is shown now. The resource version of kinds without a status of ours is no
/// difference.
fn difference<T: KubeObject>(known: &Fact<T>, now: &Fact<T>) -> Change {
    if !known.means_the_same(now) {
        return Change::FACTS;
    }
    if T::KIND.has_status() && !known.shows_the_same(now) {
        return Change::SHOWN;
    }
    Change::default()
}

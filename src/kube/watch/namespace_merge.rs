//! Several watches of one kind, each in a namespace, as one sequence of index events.
//!
//! Guarantees:
//! - One list of the kind: it begins before the first object, and ends when every namespace was listed once.
//! - A later list of one namespace removes what is gone there, and touches no other namespace.
//! - Bounded: the keys of the objects, and a channel of [`super::EVENTS_MAX`] events for each namespace.
//!
//! Leaves to others: the watches (`kind_watch`).

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::listing::key_of;
use crate::kube::index::IndexEvent;
use crate::kube::objects::ObjectKey;

/// The watch of one namespace.
#[derive(Debug, Default)]
struct NamespacePart {
    known: BTreeSet<ObjectKey>,
    /// The objects that a list has shown so far, while one is read.
    listed: Option<BTreeSet<ObjectKey>>,
    is_synced: bool,
}

/// Merges the events of namespaces.
#[derive(Debug)]
pub(super) struct NamespaceMerge {
    parts: Vec<NamespacePart>,
    has_begun: bool,
    has_ended: bool,
}

impl NamespaceMerge {
    pub(super) fn new(parts: usize) -> Self {
        let parts = std::iter::repeat_with(NamespacePart::default).take(parts).collect();
        Self { parts, has_begun: false, has_ended: false }
    }

    /// Hands events over until nobody takes them any more, or the watches have ended.
    pub(super) async fn run(mut self, received: Vec<mpsc::Receiver<IndexEvent>>, events: mpsc::Sender<IndexEvent>) {
        let streams = received.into_iter().enumerate().map(|(part, mut received)| {
            let next = stream::poll_fn(move |context| received.poll_recv(context));
            next.map(move |event| (part, event)).boxed()
        });
        let mut merged = stream::select_all(streams);
        while let Some((part, event)) = merged.next().await {
            for event in self.take(part, event) {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The events that the index gets for an event of a namespace.
    fn take(&mut self, part: usize, event: IndexEvent) -> Vec<IndexEvent> {
        let mut told = Vec::new();
        let Some(part) = self.parts.get_mut(part) else { return told };
        match &event {
            IndexEvent::Begin(kind) => {
                part.listed = Some(BTreeSet::new());
                if !std::mem::replace(&mut self.has_begun, true) {
                    told.push(IndexEvent::Begin(*kind));
                }
            }
            IndexEvent::Apply(_, object) => {
                let key = key_of(object);
                if let Some(listed) = &mut part.listed {
                    listed.insert(key.clone());
                }
                part.known.insert(key);
                told.push(event);
            }
            IndexEvent::Delete(_, key) => {
                part.known.remove(key);
                told.push(event);
            }
            IndexEvent::End(kind) => {
                let listed = part.listed.take().unwrap_or_default();
                let gone = part.known.difference(&listed).map(|key| IndexEvent::Delete(*kind, key.clone()));
                told.extend(gone);
                part.known = listed;
                part.is_synced = true;
                if self.parts.iter().all(|part| part.is_synced) && !std::mem::replace(&mut self.has_ended, true) {
                    told.push(IndexEvent::End(*kind));
                }
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::index::Index;
    use crate::kube::objects::ObjectKind;

    const KIND: ObjectKind = ObjectKind::Secret;

    fn secret(namespace: &str, name: &str) -> IndexEvent {
        IndexEvent::Apply(KIND, json!({ "metadata": { "namespace": namespace, "name": name } }))
    }

    /// The Secrets of an index after these events, and whether all were listed.
    fn after(merge: &mut NamespaceMerge, index: &mut Index, events: Vec<(usize, IndexEvent)>) -> (Vec<String>, bool) {
        for (part, event) in events {
            merge.take(part, event).into_iter().for_each(|event| drop(index.take(event)));
        }
        (index.secrets().iter().map(|(key, _)| key.to_string()).collect(), index.is_synced(KIND))
    }

    #[test]
    fn namespaces_are_one_list_and_are_listed_again_one_by_one() {
        let (mut merge, mut index) = (NamespaceMerge::new(2), Index::default());
        let (begin, end) = (IndexEvent::Begin(KIND), IndexEvent::End(KIND));
        let first = vec![(0, begin.clone()), (0, secret("a", "x")), (0, secret("a", "y")), (0, end.clone())];
        let (names, is_synced) = after(&mut merge, &mut index, first);
        assert_eq!((names, is_synced), (vec!["a/x".to_owned(), "a/y".to_owned()], false), "b is missing");

        let second = vec![(1, begin.clone()), (1, secret("b", "x")), (0, secret("a", "z")), (1, end.clone())];
        let (names, is_synced) = after(&mut merge, &mut index, second);
        assert_eq!((names.join(" "), is_synced), ("a/x a/y a/z b/x".to_owned(), true));

        let again = vec![(0, begin.clone()), (0, secret("a", "y")), (0, secret("a", "new")), (0, end.clone())];
        let (names, is_synced) = after(&mut merge, &mut index, again);
        assert_eq!((names.join(" "), is_synced), ("a/new a/y b/x".to_owned(), true), "b is untouched");

        let deleted = vec![(1, IndexEvent::Delete(KIND, ObjectKey::new("b", "x"))), (1, begin), (1, end)];
        assert_eq!(after(&mut merge, &mut index, deleted).0.join(" "), "a/new a/y");
    }

    #[test]
    fn list_that_breaks_off_and_begins_again_removes_nothing_early() {
        let (mut merge, mut index) = (NamespaceMerge::new(1), Index::default());
        let (begin, end) = (IndexEvent::Begin(KIND), IndexEvent::End(KIND));
        let whole = vec![(0, begin.clone()), (0, secret("a", "x")), (0, secret("a", "y")), (0, end.clone())];
        after(&mut merge, &mut index, whole);
        let broken = vec![(0, begin.clone()), (0, secret("a", "x")), (0, begin)];
        assert_eq!(after(&mut merge, &mut index, broken).0.join(" "), "a/x a/y");
        assert_eq!(after(&mut merge, &mut index, vec![(0, secret("a", "y")), (0, end)]).0.join(" "), "a/y");
    }
}

//! Events: what an operator sees under `kubectl describe` of an object that is not in order.
//!
//! Guarantees:
//! - One event when a fault of an object begins or changes, and none while it stays, as long as the bounded memory of
//!   them holds it. A fault that was over is reported again when it comes back.
//! - Reporting waits for nothing. An event that finds no place, or that the server refuses, is dropped and counted:
//!   the condition of the object says the same.
//!
//! Leaves to others:
//! - only a leader reports: the caller.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::api::{ApiFault, RequiredAccess};
use super::objects::{ApiVersions, CONTROLLER_NAME, Metadata, ObjectKey, ObjectKind};
use crate::clock::Clock;

/// The largest number of events that are remembered. One has about 200 bytes.
const REMEMBERED_MAX: usize = 10_000;

/// The largest number of events that wait to be written: every event that is remembered may wait. One has at most 1.2
/// KiB.
const WAITING_MAX: usize = REMEMBERED_MAX;

/// The time for the write of an event.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// The longest note: the maximum of the API, in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// The longest name of the object in the name of its event, in bytes: the maximum of the API less the rest.
const NAME_BYTES_MAX: usize = 220;

/// What the write of an event needs.
const EVENT_ACCESS: RequiredAccess = RequiredAccess {
    api: ApiVersions { group: "events.k8s.io", kind: "Event", plural: "events", versions: &["v1"], namespaced: true },
    part: "",
    verbs: &["create"],
    role: "ClusterRole",
};

/// What is reported about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEvent {
    /// The kind.
    pub kind: ObjectKind,
    /// The object.
    pub key: ObjectKey,
    /// Its identity.
    pub uid: Box<str>,
    /// The reason, one word: `UnsupportedValue`.
    pub reason: Cow<'static, str>,
    /// What is wrong, and what to do.
    pub note: String,
}

impl ObjectEvent {
    /// Makes an event about the object with this metadata.
    pub fn about(kind: ObjectKind, meta: &Metadata, (reason, note): ObjectFaultNote) -> Self {
        Self { kind, key: meta.key(), uid: meta.uid.clone(), reason, note }
    }

    /// What makes it another event: an object that was created again has another uid. The note is hashed, because it
    /// may be long.
    fn id(&self) -> EventId {
        let mut hasher = DefaultHasher::new();
        (&self.uid, &self.note).hash(&mut hasher);
        ((self.kind, self.key.clone()), self.reason.clone(), hasher.finish())
    }
}

/// The reason of a fault and what is wrong.
pub type ObjectFaultNote = (Cow<'static, str>, String);

/// Reports events.
#[derive(Debug)]
pub struct EventReporter {
    sender: mpsc::Sender<ObjectEvent>,
    remembered: RememberedEvents,
    counters: Arc<EventCounters>,
}

/// What became of events.
#[derive(Debug, Default)]
pub struct EventCounters {
    /// Events that the server took.
    pub written: AtomicU64,
    /// Events that found no place, or that the server did not take.
    pub dropped: AtomicU64,
}

impl EventReporter {
    /// Starts the task that writes events; it ends with the reporter. `instance` is the name of this process. Must be
    /// called on a tokio runtime.
    pub fn start(client: Client, instance: &str, clock: Clock) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let counters = Arc::new(EventCounters::default());
        let writer = EventWriter {
            client,
            instance: instance.to_owned(),
            clock,
            counters: Arc::clone(&counters),
            is_faulty: false,
        };
        tokio::spawn(writer.run(receiver));
        Self { sender, remembered: RememberedEvents::default(), counters }
    }

    /// Reports the faults that an object has now. Those that were reported before are not reported again; those that it
    /// has no more are forgotten.
    pub fn follow(&mut self, kind: ObjectKind, meta: &Metadata, faults: Vec<ObjectFaultNote>) {
        if faults.is_empty() && self.remembered.known.is_empty() {
            return; // the usual case, for thousands of objects
        }
        let events: Vec<ObjectEvent> = faults.into_iter().map(|fault| ObjectEvent::about(kind, meta, fault)).collect();
        let now: Vec<EventId> = events.iter().map(ObjectEvent::id).collect();
        self.remembered.retain_of(&(kind, meta.key()), &now);
        events.into_iter().for_each(|event| self.report(event));
    }

    /// Reports an event, unless the same was reported before.
    pub fn report(&mut self, event: ObjectEvent) {
        let id = event.id();
        if self.remembered.contains(&id) {
            return;
        }
        if self.sender.try_send(event).is_ok() {
            self.remembered.insert(id);
        } else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of events, for metrics.
    pub fn counters(&self) -> &Arc<EventCounters> {
        &self.counters
    }
}

/// An object, the reason, and a hash of the note.
type EventId = (EventObject, Cow<'static, str>, u64);

type EventObject = (ObjectKind, ObjectKey);

/// Events that were reported, of which the oldest are forgotten.
#[derive(Debug, Default)]
struct RememberedEvents {
    /// With their places in the order.
    known: BTreeMap<EventId, u64>,
    order: BTreeMap<u64, EventId>,
    next: u64,
}

impl RememberedEvents {
    fn contains(&self, id: &EventId) -> bool {
        self.known.contains_key(id)
    }

    fn insert(&mut self, id: EventId) {
        if self.known.len() >= REMEMBERED_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
        }
        self.next += 1;
        self.order.insert(self.next, id.clone());
        self.known.insert(id, self.next);
    }

    /// Forgets the events of an object that are not among `kept`.
    fn retain_of(&mut self, object: &EventObject, kept: &[EventId]) {
        let first: EventId = (object.clone(), Cow::Borrowed(""), 0);
        let of_object = self.known.range(first..).take_while(|((one, ..), _)| one == object);
        let over = of_object.filter(|(id, _)| !kept.contains(id)).map(|(id, place)| (id.clone(), *place));
        for (id, place) in over.collect::<Vec<_>>() {
            self.known.remove(&id);
            self.order.remove(&place);
        }
    }
}

struct EventWriter {
    client: Client,
    instance: String,
    clock: Clock,
    counters: Arc<EventCounters>,
    is_faulty: bool,
}

impl EventWriter {
    async fn run(mut self, mut receiver: mpsc::Receiver<ObjectEvent>) {
        while let Some(event) = receiver.recv().await {
            let written = timeout(WRITE_TIME, self.write(&event)).await.unwrap_or(Err(ApiFault::Silent));
            let counter = if written.is_ok() { &self.counters.written } else { &self.counters.dropped };
            counter.fetch_add(1, Ordering::Relaxed);
            let was_faulty = std::mem::replace(&mut self.is_faulty, written.is_err());
            if let Err(fault) = written
                && !was_faulty
            {
                tracing::warn!("an event about {} {} is lost: {}", event.kind, event.key, fault.advice(&EVENT_ACCESS));
            }
        }
    }

    async fn write(&self, event: &ObjectEvent) -> Result<(), ApiFault> {
        let body = self.body(event);
        let namespace = body["metadata"]["namespace"].as_str().unwrap_or_default();
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string().into_bytes())
            .map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await?;
        Ok(())
    }

    fn body(&self, event: &ObjectEvent) -> Value {
        let now = self.clock.wall();
        let api = event.kind.api();
        let version = api.versions[0];
        let api_version = if api.group.is_empty() { version.to_owned() } else { format!("{}/{version}", api.group) };
        // Events about cluster-wide objects lie in the namespace `default`.
        let namespace = if event.key.namespace.is_empty() { "default" } else { &*event.key.namespace };
        let name = &event.key.name[..event.key.name.floor_char_boundary(NAME_BYTES_MAX)];
        let mut regarding =
            json!({ "apiVersion": api_version, "kind": api.kind, "name": event.key.name, "uid": event.uid });
        if !event.key.namespace.is_empty() {
            regarding["namespace"] = json!(event.key.namespace);
        }
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "namespace": namespace, "name": format!("{name}.{:x}", now.as_nanosecond()) },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            "reportingController": CONTROLLER_NAME,
            "reportingInstance": self.instance,
            "type": "Warning",
            "action": "Translate",
            "reason": event.reason,
            "regarding": regarding,
            "note": event.note[..event.note.floor_char_boundary(NOTE_BYTES_MAX)],
        })
    }
}

#[cfg(test)]
mod tests;

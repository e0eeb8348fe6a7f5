//! The writer: a merge patch of the status, with the version that the comparison was based on.
//!
//! Guarantees:
//! - Nothing but the status is written: metadata of the object, such as its annotations, stay as they are.
//! - One write at a time for each object, the newest update wins, at most [`WriteTimes::in_flight`] writes at once.
//! - At most [`WRITES_OF_OBJECT_MAX`] writes of one object in [`WriteTimes::spacing`].
//! - Submitting waits for nothing. A write that hangs is given up after [`WriteTimes::write`].
//! - After a conflict the update is dropped: the watch shows the newer object, and that is compared again.
//! - Refused, hanging and broken writes pause their kind, with a growing pause; other kinds go on.
//! - Without leadership nothing is written, waiting updates are dropped, and writes in flight are given up.
//!
//! Leaves to others:
//! - the comparison when the watch shows a change, when leadership begins, and every ten minutes: the caller.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::comparison::StatusUpdate;
use super::pending_updates::{ObjectId, PendingUpdates};
use super::recent_writes::RecentWrites;
#[cfg(doc)]
use super::recent_writes::WRITES_OF_OBJECT_MAX;
use crate::kube::api::{ApiFault, ApiPath, GrowingPause, RequiredAccess, find_path};
use crate::kube::objects::{ObjectKey, ObjectKind};

/// The times and the width of the writer.
#[derive(Clone, Copy, Debug)]
pub struct WriteTimes {
    /// The time for one write.
    pub write: Duration,
    /// The first pause of a kind after a fault. It doubles up to 30 s.
    pub first_pause: Duration,
    /// The time in which an object is written at most [`WRITES_OF_OBJECT_MAX`] times.
    pub spacing: Duration,
    /// The largest number of writes at once.
    pub in_flight: usize,
}

impl Default for WriteTimes {
    fn default() -> Self {
        Self {
            write: Duration::from_secs(5),
            first_pause: Duration::from_millis(800),
            spacing: Duration::from_secs(1),
            in_flight: 16,
        }
    }
}

/// How long the watch may take to show a write. After that, an update with the same base is tried.
const ECHO_TIME: Duration = Duration::from_secs(30);

/// Takes updates for the writer. A clone is the same queue.
#[derive(Clone, Debug, Default)]
pub struct StatusQueue(Arc<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    pending: Mutex<PendingUpdates>,
    changed: Notify,
    is_leader: AtomicBool,
    counters: WriteCounters,
}

#[derive(Debug, Default)]
struct WriteCounters {
    written: AtomicU64,
    conflicts: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// What the writer has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Writes that the server took.
    pub written: u64,
    /// Writes that came after another one.
    pub conflicts: u64,
    /// Writes that were refused, hung, or broke.
    pub failed: u64,
    /// Updates without a place in the queue.
    pub dropped: u64,
    /// Updates that wait.
    pub waiting: u64,
}

impl StatusQueue {
    /// Hands an update over. Without leadership it is dropped.
    pub fn submit(&self, update: StatusUpdate) {
        if !self.is_leader() {
            return;
        }
        if !self.with_pending(|pending| pending.put(update)) {
            self.0.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.0.changed.notify_one();
    }

    /// Withdraws the update of an object that shows what it should, or is gone.
    pub fn forget(&self, kind: ObjectKind, key: &ObjectKey) {
        self.with_pending(|pending| pending.forget(&(kind, key.clone())));
    }

    /// Sets whether this process leads. A new leader must compare all objects once, after this call.
    pub fn set_leader(&self, is_leader: bool) {
        self.0.is_leader.store(is_leader, Ordering::Release);
        if !is_leader {
            self.with_pending(PendingUpdates::clear);
        }
        self.0.changed.notify_one();
    }

    /// Whether this process leads.
    pub fn is_leader(&self) -> bool {
        self.0.is_leader.load(Ordering::Acquire)
    }

    /// What the writer has done.
    pub fn counts(&self) -> WriteCounts {
        let counters = &self.0.counters;
        WriteCounts {
            written: counters.written.load(Ordering::Relaxed),
            conflicts: counters.conflicts.load(Ordering::Relaxed),
            failed: counters.failed.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            waiting: self.with_pending(|pending| pending.len()) as u64,
        }
    }

    fn with_pending<R>(&self, act: impl FnOnce(&mut PendingUpdates) -> R) -> R {
        // A panic inside cannot leave half an update: every step is one call on a map.
        act(&mut self.0.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes the updates of `queue` until it is dropped (the future never ends by itself).
pub async fn run_status_writer(client: Client, queue: StatusQueue, times: WriteTimes) {
    let mut writer = Writer {
        client,
        queue,
        times,
        tasks: JoinSet::new(),
        in_flight: BTreeSet::new(),
        outdated: OutdatedVersions::default(),
        recent: RecentWrites::within(times.spacing),
        kinds: BTreeMap::new(),
    };
    loop {
        writer.recent.forget_old(Instant::now());
        writer.start_writes();
        let queue = Arc::clone(&writer.queue.0);
        let pauses = writer.kinds.values().filter_map(|kind| kind.paused_until);
        let wake = pauses.chain(writer.recent.next_end()).min();
        tokio::select! {
            () = queue.changed.notified() => {}
            Some(done) = writer.tasks.join_next() => {
                if let Ok(done) = done {
                    writer.finish(done);
                }
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => writer.end_pauses(),
        }
    }
}

struct Writer {
    client: Client,
    queue: StatusQueue,
    times: WriteTimes,
    tasks: JoinSet<FinishedWrite>,
    in_flight: BTreeSet<ObjectId>,
    outdated: OutdatedVersions,
    recent: RecentWrites,
    kinds: BTreeMap<ObjectKind, KindWrites>,
}

/// What is known about the writes of a kind.
#[derive(Debug, Default)]
struct KindWrites {
    path: Option<ApiPath>,
    pause: Option<GrowingPause>,
    paused_until: Option<Instant>,
}

/// Versions of objects that are known to be outdated: our own write has changed them, or a conflict has shown it. An
/// update that is based on one would be refused; the watch is about to show the newer object. An entry lasts for
/// [`ECHO_TIME`], so there are at most as many as writes in that time.
#[derive(Debug, Default)]
struct OutdatedVersions {
    versions: BTreeMap<ObjectId, (Instant, Box<str>)>,
    order: VecDeque<(Instant, ObjectId)>,
}

impl OutdatedVersions {
    fn contains(&self, id: &ObjectId, version: &str) -> bool {
        self.versions.get(id).is_some_and(|(since, outdated)| **outdated == *version && since.elapsed() < ECHO_TIME)
    }

    fn insert(&mut self, id: ObjectId, version: Box<str>) {
        let now = Instant::now();
        while let Some((since, _)) = self.order.front()
            && now.duration_since(*since) >= ECHO_TIME
        {
            let oldest = self.order.pop_front();
            if let Some((since, id)) = oldest
                && self.versions.get(&id).is_some_and(|(newest, _)| *newest == since)
            {
                self.versions.remove(&id);
            }
        }
        self.order.push_back((now, id.clone()));
        self.versions.insert(id, (now, version));
    }
}

struct FinishedWrite {
    update: StatusUpdate,
    path: Option<ApiPath>,
    /// The version after the write.
    result: Result<Box<str>, ApiFault>,
}

impl Writer {
    fn start_writes(&mut self) {
        if !self.queue.is_leader() {
            self.tasks.abort_all();
            self.tasks = JoinSet::new();
            self.in_flight.clear();
            self.outdated = OutdatedVersions::default();
            self.recent = RecentWrites::within(self.times.spacing);
            return;
        }
        while self.in_flight.len() < self.times.in_flight {
            let (in_flight, recent, kinds) = (&self.in_flight, &self.recent, &self.kinds);
            let is_paused =
                |kind: &ObjectKind| kinds.get(kind).is_some_and(|kind: &KindWrites| kind.paused_until.is_some());
            let may_start = |id: &ObjectId| !in_flight.contains(id) && recent.may_begin(id) && !is_paused(&id.0);
            let Some(update) = self.queue.with_pending(|pending| pending.take(may_start)) else { return };
            self.start_write(update);
        }
    }

    fn start_write(&mut self, update: StatusUpdate) {
        let id = (update.kind, update.key.clone());
        if self.outdated.contains(&id, &update.resource_version) {
            return;
        }
        let path = self.kinds.entry(update.kind).or_default().path.clone();
        let (client, time) = (self.client.clone(), self.times.write);
        self.recent.insert(id.clone(), Instant::now());
        self.in_flight.insert(id);
        self.tasks.spawn(async move {
            let (path, result) = match timeout(time, write(&client, path, &update)).await {
                Ok(Ok((path, version))) => (Some(path), Ok(version)),
                Ok(Err(fault)) => (None, Err(fault)),
                Err(_) => (None, Err(ApiFault::Silent)),
            };
            FinishedWrite { update, path, result }
        });
    }

    fn finish(&mut self, done: FinishedWrite) {
        let FinishedWrite { update, path, result } = done;
        let id = (update.kind, update.key.clone());
        self.in_flight.remove(&id);
        let counters = &self.queue.0.counters;
        let kind = self.kinds.entry(update.kind).or_default();
        match result {
            Ok(version) => {
                counters.written.fetch_add(1, Ordering::Relaxed);
                if kind.pause.take().is_some() {
                    tracing::info!(kind = %update.kind, "the status of {} is written again", update.kind);
                }
                kind.path = path;
                // A write that changed nothing has no new version, and the watch will not show it.
                if version != update.resource_version {
                    self.outdated.insert(id, update.resource_version);
                }
            }
            Err(ApiFault::Conflict) => {
                counters.conflicts.fetch_add(1, Ordering::Relaxed);
                self.outdated.insert(id, update.resource_version);
            }
            Err(fault) => {
                counters.failed.fetch_add(1, Ordering::Relaxed);
                self.note_fault(update, &fault);
            }
        }
    }

    fn note_fault(&mut self, update: StatusUpdate, fault: &ApiFault) {
        let (kind_name, times) = (update.kind, self.times);
        let kind = self.kinds.entry(kind_name).or_default();
        kind.path = None;
        if is_of_the_object(fault) {
            if !matches!(fault, ApiFault::NotFound) {
                tracing::warn!(kind = %kind_name, object = %update.key, "{}", fault.advice(&RequiredAccess::status(kind_name)));
            }
            return;
        }
        let is_new = kind.pause.is_none();
        let pause = kind.pause.get_or_insert_with(|| GrowingPause::starting_with(times.first_pause)).after_fault();
        kind.paused_until.get_or_insert(Instant::now() + pause);
        if is_new {
            tracing::warn!(kind = %kind_name, object = %update.key, "{}", fault.advice(&RequiredAccess::status(kind_name)));
        }
        self.queue.with_pending(|pending| pending.put_back(update));
    }

    fn end_pauses(&mut self) {
        let now = Instant::now();
        for kind in self.kinds.values_mut() {
            kind.paused_until = kind.paused_until.filter(|until| *until > now);
        }
    }
}

/// Whether a fault concerns one object: it is gone, or the server finds the status invalid. To try again would not
/// help.
fn is_of_the_object(fault: &ApiFault) -> bool {
    matches!(fault, ApiFault::NotFound | ApiFault::Refused(400 | 413 | 422, _))
}

/// Writes a status. Returns the path of the kind, and the version of the object after the write.
async fn write(client: &Client, path: Option<ApiPath>, update: &StatusUpdate) -> Result<(ApiPath, Box<str>), ApiFault> {
    let path = match path {
        Some(path) => path,
        None => find_path(client, update.kind).await?,
    };
    // With uid and version the patch is refused if the object has changed, or is another one.
    let metadata = json!({ "uid": update.uid, "resourceVersion": update.resource_version });
    let body = json!({ "metadata": metadata, "status": update.patch });
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(path.status(&update.key))
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    let object: Value = client.request(request).await?;
    Ok((path, object["metadata"]["resourceVersion"].as_str().unwrap_or_default().into()))
}

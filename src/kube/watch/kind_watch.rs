//! The watch of one kind: find its version, list, follow events, and begin again where that is needed.
//!
//! Guarantees:
//! - A list is bracketed by `Begin` and `End`. An error in between leads to another `Begin`.
//! - After a break the watch goes on where it was, without a list, unless the server has forgotten that place.
//! - A kind that the cluster does not serve counts as an empty list. Known objects of a kind that disappears are given
//!   up only after three answers that say so.
//!
//! Leaves to others:
//! - single requests: `listing`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::WatchEvent;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::listing::{EventStream, ListedKind, key_of, next_event, version_of};
use super::watch_gauge::{WatchGauge, WatchState};
use crate::kube::api::{ApiFault, GrowingPause, RequiredAccess, find_path};
use crate::kube::index::IndexEvent;
use crate::kube::objects::ObjectKind;

/// How many times the cluster must say that it does not serve a kind before known objects are given up: an API server
/// that starts may not know all kinds yet.
pub(crate) const MISSING_ANSWERS: u32 = 3;

/// A watch that lived for this long was in order: the next fault has the first pause.
const LIFE_IN_ORDER: Duration = Duration::from_secs(5);

/// The annotation of the bookmark after the initial events.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// The times of a watch.
#[derive(Clone, Copy, Debug)]
pub struct WatchTimes {
    /// How long a watch lasts until the server ends it. Whole seconds, less than 295.
    pub watch: Duration,
    /// The same for EndpointSlices, where a dead connection costs more.
    pub endpoint_watch: Duration,
    /// How much longer than the watch nothing may come.
    pub margin: Duration,
    /// How long nothing may come before the initial events are complete.
    pub initial_silence: Duration,
    /// The first pause after a fault. It doubles up to 30 s.
    pub first_pause: Duration,
    /// How many times the cluster must say that it does not serve a kind before the first list of it counts as empty.
    pub first_missing_answers: u32,
}

impl Default for WatchTimes {
    fn default() -> Self {
        Self {
            watch: Duration::from_secs(290),
            endpoint_watch: Duration::from_secs(60),
            margin: Duration::from_secs(5),
            initial_silence: Duration::from_secs(30),
            first_pause: Duration::from_millis(800),
            first_missing_answers: 1,
        }
    }
}

/// What a watch follows: a kind, in the whole cluster or in one namespace.
#[derive(Clone, Debug)]
pub(super) struct WatchPlace {
    pub(super) kind: ObjectKind,
    /// The number of the watch among those of its kind.
    pub(super) part: usize,
    pub(super) namespace: Option<String>,
}

/// The watch of one kind.
pub(super) struct KindWatch {
    kind: ObjectKind,
    part: usize,
    namespace: Option<String>,
    client: Client,
    events: mpsc::Sender<IndexEvent>,
    gauge: Arc<WatchGauge>,
    times: WatchTimes,
    pause: GrowingPause,
    /// Whether the server may stream lists. Not any more after it has refused.
    streams_lists: bool,
    missing_answers: u32,
}

/// Why a step ended.
#[derive(Debug)]
enum StepEnd {
    /// Nobody takes events any more.
    Closed,
    Fault(ApiFault),
}

impl From<ApiFault> for StepEnd {
    fn from(fault: ApiFault) -> Self {
        Self::Fault(fault)
    }
}

impl KindWatch {
    pub(super) fn new(
        WatchPlace { kind, part, namespace }: WatchPlace,
        client: Client,
        events: mpsc::Sender<IndexEvent>,
        gauge: Arc<WatchGauge>,
        times: WatchTimes,
    ) -> Self {
        let pause = GrowingPause::starting_with(times.first_pause);
        Self { kind, part, namespace, client, events, gauge, times, pause, streams_lists: true, missing_answers: 0 }
    }

    /// Runs until nobody takes events any more.
    pub(super) async fn run(mut self) {
        loop {
            let Err(end) = self.list_and_follow().await;
            let StepEnd::Fault(fault) = end else { return };
            if self.note_missing(&fault).await.is_err() {
                return;
            }
            self.wait_after(&fault).await;
        }
    }

    async fn list_and_follow(&mut self) -> Result<Infallible, StepEnd> {
        let listed = ListedKind {
            kind: self.kind,
            path: find_path(&self.client, self.kind).await?,
            namespace: self.namespace.clone(),
        };
        self.missing_answers = 0;
        let (mut version, mut stream) = self.list(&listed).await?;
        loop {
            let opened = Instant::now();
            let end = self.follow(&listed, &mut version, stream.take()).await;
            if opened.elapsed() > LIFE_IN_ORDER {
                self.pause.reset();
            }
            match end {
                Ok(()) if opened.elapsed() > self.times.first_pause => {}
                Ok(()) => sleep(self.pause.after_fault()).await,
                Err(StepEnd::Fault(fault)) if !needs_list(&fault) => self.wait_after(&fault).await,
                Err(end) => return Err(end),
            }
        }
    }

    /// Hands over all objects. Returns the version from which to go on, and the stream that has already begun there.
    async fn list(&mut self, listed: &ListedKind) -> Result<(String, Option<EventStream>), StepEnd> {
        if self.streams_lists {
            match self.list_by_stream(listed).await {
                Err(StepEnd::Fault(ApiFault::Refused(..) | ApiFault::Silent)) => self.streams_lists = false,
                Ok((version, stream)) => return Ok((version, Some(stream))),
                Err(end) => return Err(end),
            }
        }
        self.send(IndexEvent::Begin(self.kind)).await?;
        let mut next_page = None;
        loop {
            let page = listed.read_page(&self.client, next_page).await?;
            self.gauge.note_contact(self.place());
            for object in page.items.into_iter().flatten() {
                self.send(IndexEvent::Apply(self.kind, object)).await?;
            }
            next_page = page.metadata.next_page.filter(|token| !token.is_empty());
            if next_page.is_none() {
                self.complete().await?;
                return Ok((page.metadata.resource_version, None));
            }
        }
    }

    async fn list_by_stream(&mut self, listed: &ListedKind) -> Result<(String, EventStream), StepEnd> {
        let mut stream = listed.open(&self.client, None, self.watch_time()).await?;
        self.send(IndexEvent::Begin(self.kind)).await?;
        loop {
            let event = next_event(&mut stream, self.times.initial_silence).await?;
            self.gauge.note_contact(self.place());
            match event {
                Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    self.send(IndexEvent::Apply(self.kind, object)).await?;
                }
                Some(WatchEvent::Bookmark(mark)) if mark.metadata.annotations.contains_key(INITIAL_END) => {
                    self.complete().await?;
                    return Ok((mark.metadata.resource_version, stream));
                }
                Some(_) => {}
                None => return Err(ApiFault::Unreachable("the first list broke off".to_owned()).into()),
            }
        }
    }

    /// Follows events until the server ends the watch, which is in order.
    async fn follow(
        &mut self,
        listed: &ListedKind,
        version: &mut String,
        stream: Option<EventStream>,
    ) -> Result<(), StepEnd> {
        let time = self.watch_time();
        let mut stream = match stream {
            Some(stream) => stream,
            None => listed.open(&self.client, Some(version), time).await?,
        };
        self.note_live();
        while let Some(event) = next_event(&mut stream, time + self.times.margin).await? {
            self.gauge.note_contact(self.place());
            self.pause.reset();
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    keep_version(version, &object);
                    self.send(IndexEvent::Apply(self.kind, object)).await?;
                }
                WatchEvent::Deleted(object) => {
                    keep_version(version, &object);
                    self.send(IndexEvent::Delete(self.kind, key_of(&object))).await?;
                }
                WatchEvent::Bookmark(mark) => *version = mark.metadata.resource_version,
                WatchEvent::Error(_) => {}
            }
        }
        Ok(())
    }

    /// What the watch needs: in one namespace a Role is enough.
    fn access(&self) -> RequiredAccess {
        let access = RequiredAccess::watch(self.kind);
        if self.namespace.is_some() { RequiredAccess { role: "Role", ..access } } else { access }
    }

    /// The place in the gauge.
    fn place(&self) -> (ObjectKind, usize) {
        (self.kind, self.part)
    }

    fn watch_time(&self) -> Duration {
        if self.kind == ObjectKind::EndpointSlice { self.times.endpoint_watch } else { self.times.watch }
    }

    async fn send(&self, event: IndexEvent) -> Result<(), StepEnd> {
        self.events.send(event).await.map_err(|_| StepEnd::Closed)
    }

    async fn complete(&self) -> Result<(), StepEnd> {
        self.send(IndexEvent::End(self.kind)).await?;
        self.gauge.note_synced(self.place());
        Ok(())
    }

    /// Hands over an empty list for a kind that the cluster does not serve.
    async fn note_missing(&mut self, fault: &ApiFault) -> Result<(), StepEnd> {
        if *fault != ApiFault::MissingApi {
            return Ok(());
        }
        self.gauge.note_contact(self.place()); // it is an answer
        self.missing_answers = self.missing_answers.saturating_add(1);
        let is_first = !self.gauge.synced(self.kind);
        let needed = if is_first { self.times.first_missing_answers } else { MISSING_ANSWERS };
        if self.missing_answers != needed {
            return Ok(());
        }
        self.send(IndexEvent::Begin(self.kind)).await?;
        self.complete().await
    }

    fn note_live(&self) {
        self.gauge.note_contact(self.place());
        let before = self.gauge.note_state(self.place(), WatchState::Live);
        if !matches!(before, WatchState::Live | WatchState::Starting) {
            tracing::info!(kind = %self.kind, "the watch of {} works again", self.kind);
        }
    }

    /// Logs a fault when it begins, and waits.
    async fn wait_after(&mut self, fault: &ApiFault) {
        self.gauge.note_fault(self.place());
        let state = WatchState::of_fault(fault);
        let is_new = self.gauge.note_state(self.place(), state) != state;
        match state {
            WatchState::Starting | WatchState::Live => {
                tracing::info!(kind = %self.kind, "{}", fault.advice(&self.access()))
            }
            _ if is_new => tracing::warn!(kind = %self.kind, "{}", fault.advice(&self.access())),
            _ => {}
        }
        sleep(self.pause.after_fault()).await;
    }
}

/// Whether the place in the sequence of events is lost.
fn needs_list(fault: &ApiFault) -> bool {
    matches!(fault, ApiFault::Expired | ApiFault::NotFound | ApiFault::Malformed(_) | ApiFault::MissingApi)
}

fn keep_version(version: &mut String, object: &Value) {
    if let Some(newer) = version_of(object) {
        newer.clone_into(version);
    }
}

//! The loop of the controller: events in, configurations and statuses out.
//!
//! Guarantees:
//! - Endpoints do not pass through the loop (`endpoint_follower`).
//! - The loop itself waits for nothing but events: applying, writing and leadership have tasks of their own.
//! - A burst of events is one translation: it begins when no event has come for [`QUIET_TIME`], at the latest
//!   [`BURST_TIME`] after the first.
//! - A status is compared when the object, the configuration, or the leadership changes, and every [`COMPARE_TIME`].
//!
//! Leaves to others: each step (see `mod.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::applied::{AppliedTranslation, Applier};
use super::condition_events::PendingObjects;
use super::controller_gauge::{ControllerGauge, GaugeSources};
use super::data_plane::DataPlane;
use super::endpoint_follower::{EndpointNews, follow_endpoints};
use super::first_picture::{Arrival, FirstPicture, LastGoodSettings, is_written, read_last_good, serve_last_good};
use super::last_good::{LastGoodStore, RecordKeeper};
use super::service_writer::ServiceWriter;
use super::settled_routes::SettledRoutes;
use super::text_checks::TextChecks;
use super::wanted_status::{WantedObject, WantedRoute, WantedRoutes, document_faults, ingress_events, wanted_statuses};
use crate::clock::Clock;
use crate::kube::CONTROLLER_NAME;
use crate::kube::events::{EventReporter, ObjectFaultNote};
use crate::kube::index::{Change, Fact, Index, IndexEvent};
use crate::kube::lease::{LeaseElection, LeaseSettings};
use crate::kube::objects::{Metadata, ObjectKey, ObjectKind};
use crate::kube::status::{StatusQueue, StatusUpdate, WantedStatus, WriteTimes, compare_status, run_status_writer};
use crate::kube::translate::{ServiceSettings, Translator, depends_on_endpoints};
use crate::kube::watch::{MISSING_ANSWERS, RunningWatches, WatchScope, WatchTimes, start_scoped_watches};
use crate::lifecycle::DrainWatcher;

/// A burst of events has ended when none has come for this time.
const QUIET_TIME: Duration = Duration::from_millis(3);
/// The longest time from an event to the translation.
const BURST_TIME: Duration = Duration::from_millis(25);
/// The time between two comparisons of all statuses.
const COMPARE_TIME: Duration = Duration::from_secs(600);
/// The time after which a Service that could not be written is tried again.
const RETRY_TIME: Duration = Duration::from_secs(5);

/// The settings of a controller.
#[derive(Clone, Debug)]
pub struct ControllerSettings {
    /// The Services of Gateways.
    pub services: ServiceSettings,
    /// The election of the gateway that writes.
    pub lease: LeaseSettings,
    /// The last good configuration on the disk; `None` if none is kept.
    pub last_good: Option<LastGoodSettings>,
    /// Where kinds are watched.
    pub scope: WatchScope,
}

/// Follows the cluster until the drain begins. Then the lease is released.
pub async fn run_controller(
    client: Client,
    settings: ControllerSettings,
    (data_plane, gauge, clock): (Arc<dyn DataPlane>, Arc<ControllerGauge>, Clock),
    mut drain: DrainWatcher,
) {
    let last_good = settings.last_good.as_ref().filter(|last_good| is_written(&last_good.store));
    let queue = StatusQueue::default();
    let writer = tokio::spawn(run_status_writer(client.clone(), queue.clone(), WriteTimes::default()));
    let events_of_objects = EventReporter::start(client.clone(), &settings.lease.identity, clock.clone());
    let election = LeaseElection::start(client.clone(), settings.lease.clone(), clock.clone());
    let RunningWatches { mut events, endpoint_events, gauge: watches, tasks } =
        start_scoped_watches(&client, (&ObjectKind::ALL, &settings.scope), watch_times(last_good.is_some()));
    gauge.set_sources(GaugeSources {
        watches: Arc::clone(&watches),
        statuses: queue.clone(),
        events: Arc::clone(events_of_objects.counters()),
    });
    let index = Index::with_secrets_in(settings.scope.secret_namespaces());
    let news = Arc::new(EndpointNews::default());
    let (endpoints, plane) = (index.endpoints().clone(), Arc::clone(&data_plane));
    let follower = tokio::spawn(follow_endpoints(endpoint_events, endpoints, plane, Arc::clone(&news)));
    let mut controller = Controller {
        index,
        translator: Translator::new(settings.services),
        checks: TextChecks::new(clock.clone()),
        clock: clock.clone(),
        applier: Applier::start(Arc::clone(&data_plane), Arc::clone(&gauge)),
        gauge: Arc::clone(&gauge),
        services: ServiceWriter::new(client),
        queue,
        reporter: events_of_objects,
        pending: PendingChange::default(),
        beginning: PendingObjects::default(),
        settled: SettledRoutes::default(),
        is_leader: election.is_leader.clone(),
        has_endpoints: false,
    };
    let mut applied = controller.applier.applied.clone();
    let keeper = settings.last_good.as_ref().map(|last_good| {
        let live = (applied.clone(), controller.index.endpoints().clone());
        let parts = (Arc::clone(&gauge), clock.clone());
        let keeper = RecordKeeper::new(Arc::clone(&last_good.store), live, parts);
        tokio::spawn(keeper.run(drain.clone()))
    });
    if let Some(last_good) = last_good {
        let first = FirstPicture { events: &mut events, news: &news, watches: &watches };
        let is_whole = first.await_whole(last_good.wait, &mut drain, |arrival| controller.take_arrival(arrival)).await;
        if !is_whole && !drain.is_begun() {
            serve_until_synced(Arc::clone(&last_good.store), data_plane, (gauge, clock)).await;
        }
    }
    let mut is_leader = election.is_leader.clone();
    let mut compare = interval(COMPARE_TIME);
    let mut retry = interval(RETRY_TIME);
    for timer in [&mut compare, &mut retry] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let due = controller.pending.due();
        tokio::select! {
            biased;
            () = drain.begun() => break,
            services = news.take() => {
                controller.take_endpoint_news(&services);
            }
            Some(event) = events.recv() => {
                controller.take(event);
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => controller.act(),
            Ok(()) = applied.changed() => controller.compare_statuses(),
            Ok(()) = is_leader.changed() => controller.follow_leadership(*is_leader.borrow_and_update()),
            _ = compare.tick() => controller.compare_all_statuses(),
            _ = retry.tick() => controller.retry(),
        }
    }
    follower.abort();
    drop(tasks);
    election.release().await;
    writer.abort();
    if let Some(keeper) = keeper {
        let _ = keeper.await; // a panic was reported by its hook
    }
}

/// The times of the watches. An API server that starts may not know all kinds yet: what a last good configuration has
/// is not given up at its first answer.
fn watch_times(has_last_good: bool) -> WatchTimes {
    let first_missing_answers = if has_last_good { MISSING_ANSWERS } else { 1 };
    WatchTimes { first_missing_answers, ..WatchTimes::default() }
}

/// Reads the last good configuration and makes it live. Events wait in their channels meanwhile.
async fn serve_until_synced(
    store: Arc<LastGoodStore>,
    data_plane: Arc<dyn DataPlane>,
    (gauge, clock): (Arc<ControllerGauge>, Clock),
) {
    let served = tokio::task::spawn_blocking(move || {
        if let Some(config) = read_last_good(&store) {
            serve_last_good(&config, &*data_plane, (&gauge, &clock));
        }
    });
    let _ = served.await; // a panic was reported by its hook
}

/// What has changed since the last translation, and when it is due.
#[derive(Debug, Default)]
struct PendingChange {
    change: Change,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl PendingChange {
    fn add(&mut self, change: Change) {
        if change.is_nothing() {
            return;
        }
        let now = Instant::now();
        self.change.merge(change);
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    fn due(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        Some((last + QUIET_TIME).min(first + BURST_TIME))
    }

    fn take(&mut self) -> Change {
        std::mem::take(self).change
    }
}

struct Controller {
    index: Index,
    gauge: Arc<ControllerGauge>,
    translator: Translator,
    checks: TextChecks,
    clock: Clock,
    applier: Applier,
    services: ServiceWriter,
    queue: StatusQueue,
    reporter: EventReporter,
    pending: PendingChange,
    beginning: PendingObjects,
    settled: SettledRoutes,
    is_leader: watch::Receiver<bool>,
    /// Whether the data plane has the endpoints of the first list.
    has_endpoints: bool,
}

impl Controller {
    /// Takes an event. Returns whether it completes the picture of the cluster.
    fn take(&mut self, event: IndexEvent) -> bool {
        let (kind, is_end) = (event.kind(), matches!(event, IndexEvent::End(_)));
        let mut change = self.index.take(event);
        self.gauge.note_objects(kind, &self.index);
        // The end of the last list is the first picture, although it changes no fact.
        let completes = is_end && self.is_synced();
        change.facts |= completes;
        self.pending.add(change);
        completes
    }

    fn take_arrival(&mut self, arrival: Arrival) -> bool {
        match arrival {
            Arrival::Event(event) => self.take(event),
            Arrival::Endpoints(services) => self.take_endpoint_news(&services),
        }
    }

    /// Endpoints are live already. A translation follows if it depends on some of them, or if it waits for all. Returns
    /// whether they complete the first picture.
    fn take_endpoint_news(&mut self, services: &BTreeSet<ObjectKey>) -> bool {
        let is_first = !std::mem::replace(&mut self.has_endpoints, true);
        let concerns = |service: &ObjectKey| depends_on_endpoints(&self.index, self.translator.settings(), service);
        let facts = is_first || services.iter().any(concerns);
        self.pending.add(Change { facts, ..Change::default() });
        self.gauge.note_objects(ObjectKind::EndpointSlice, &self.index);
        is_first && self.is_synced()
    }

    fn is_synced(&self) -> bool {
        self.has_endpoints && ObjectKind::ALL.into_iter().all(|kind| self.index.is_synced(kind))
    }

    /// Translates and applies, or compares the status, as the pending change asks for.
    fn act(&mut self) {
        let change = self.pending.take();
        if !self.is_synced() {
            return; // the end of the last list adds a change
        }
        if change.facts {
            let begun = Instant::now();
            let translation = self.translator.translate(&self.index, &self.checks);
            self.gauge.note_translation(&translation, begun.elapsed());
            self.applier.submit(translation);
        } else if change.shown {
            self.compare_statuses();
        }
    }

    fn follow_leadership(&mut self, is_leader: bool) {
        tracing::info!(is_leader, "leadership of the controller");
        self.gauge.note_leadership(is_leader);
        self.queue.set_leader(is_leader);
        if is_leader {
            self.compare_all_statuses();
            self.write_services();
        }
    }

    fn latest(&self) -> Option<Arc<AppliedTranslation>> {
        self.applier.applied.borrow().clone()
    }

    fn write_services(&self) {
        if let Some(latest) = self.latest().filter(|_| *self.is_leader.borrow()) {
            self.services.start_round(&latest.translation);
        }
    }

    /// Compares the status of all objects, also of routes that have settled.
    fn compare_all_statuses(&mut self) {
        self.settled.clear();
        self.compare_statuses();
    }

    /// Compares the status of all objects with what they show, and hands the differences to the writer.
    fn compare_statuses(&mut self) {
        let Some(latest) = self.latest().filter(|_| *self.is_leader.borrow()) else { return };
        self.services.start_round(&latest.translation);
        let faults = document_faults(&latest.config);
        let mut compared = wanted_statuses(&latest.translation, &latest.config, &faults);
        for (kind, key, wanted) in &compared {
            self.submit_difference(*kind, key, wanted);
        }
        let wanted = WantedRoutes::new(&latest.config, &faults);
        self.settled.begin(&self.index, &latest.translation.routes);
        for page in latest.translation.routes.pages() {
            if wanted.may_settle_all() && self.settled.has_page(page) {
                continue;
            }
            let mut are_settled = true;
            for route in page.iter() {
                are_settled &= self.compare_route(wanted.route(route), &mut compared);
            }
            if are_settled {
                self.settled.note_page(page);
            }
        }
        for (kind, key) in &latest.translation.other_routes {
            self.compare_route(wanted.other_route(*kind, key), &mut compared);
        }
        let known = latest.translation.routes.len() + latest.translation.other_routes.len();
        self.settled.trim(known, |kind, key| self.index.route(kind, key).is_some());
        self.report_faults(&compared, &latest);
    }

    /// Compares the status of a route, unless it has settled. Returns whether it has settled now.
    fn compare_route(&mut self, route: WantedRoute<'_>, compared: &mut Vec<WantedObject>) -> bool {
        let Some(fact) = self.index.route(route.kind, route.key) else { return false };
        let may_settle = route.may_settle();
        if may_settle && self.settled.has(route.key, route.outcome, &fact) {
            return true;
        }
        let wanted = route.status();
        let is_shown = !self.submit_difference(route.kind, route.key, &wanted);
        self.settled.note(route.key, (route.outcome, fact), may_settle && is_shown);
        compared.push((route.kind, route.key.clone(), wanted));
        may_settle && is_shown
    }

    /// Hands the difference between the wanted and the shown status to the writer. Returns whether there is one.
    fn submit_difference(&self, kind: ObjectKind, key: &ObjectKey, wanted: &WantedStatus) -> bool {
        let update = self.difference(kind, key, wanted);
        let differs = update.is_some();
        match update {
            Some(update) => self.queue.submit(update),
            None => self.queue.forget(kind, key),
        }
        differs
    }

    /// Reports what is not in order: the conditions of objects, and the faults of Ingresses, which have none.
    fn report_faults(&mut self, compared: &[WantedObject], latest: &AppliedTranslation) {
        let now = Instant::now();
        let mut of_ingresses: BTreeMap<ObjectKey, Vec<ObjectFaultNote>> = BTreeMap::new();
        for (key, reason, note) in ingress_events(latest) {
            of_ingresses.entry(key).or_default().push((reason.into(), note));
        }
        for wanted in compared {
            let (kind, key, _) = wanted;
            let faults = match kind {
                ObjectKind::Ingress => of_ingresses.remove(key).unwrap_or_default(),
                _ => self.beginning.due_faults(wanted, now),
            };
            if let Some(meta) = metadata_of(&self.index, *kind, key) {
                self.reporter.follow(*kind, meta, faults);
            }
        }
        self.beginning.retain(compared); // a route that has settled has none
    }

    /// What is tried again from time to time.
    fn retry(&mut self) {
        if self.beginning.has_due(Instant::now()) {
            return self.compare_statuses();
        }
        self.write_services();
    }

    fn difference(&self, kind: ObjectKind, key: &ObjectKey, wanted: &WantedStatus) -> Option<StatusUpdate> {
        let now = self.clock.wall();
        match kind {
            ObjectKind::GatewayClass => self.compared(kind, self.index.gateway_classes().get(key)?, wanted, now),
            ObjectKind::Gateway => self.compared(kind, self.index.gateways().get(key)?, wanted, now),
            ObjectKind::HttpRoute => self.compared(kind, self.index.http_routes().get(key)?, wanted, now),
            ObjectKind::GrpcRoute => self.compared(kind, self.index.grpc_routes().get(key)?, wanted, now),
            ObjectKind::TlsRoute => self.compared(kind, self.index.tls_routes().get(key)?, wanted, now),
            ObjectKind::ListenerSet => self.compared(kind, self.index.listener_sets().get(key)?, wanted, now),
            ObjectKind::BackendTlsPolicy => {
                self.compared(kind, self.index.backend_tls_policies().get(key)?, wanted, now)
            }
            ObjectKind::Ingress => self.compared(kind, self.index.ingresses().get(key)?, wanted, now),
            ObjectKind::Department => self.compared(kind, self.index.departments().get(key)?, wanted, now),
            ObjectKind::CommandSet => self.compared(kind, self.index.command_sets().get(key)?, wanted, now),
            ObjectKind::Grant => self.compared(kind, self.index.grants().get(key)?, wanted, now),
            ObjectKind::ClientAuthPolicy => {
                self.compared(kind, self.index.client_auth_policies().get(key)?, wanted, now)
            }
            _ => None,
        }
    }

    fn compared<T>(
        &self,
        kind: ObjectKind,
        fact: &Fact<T>,
        wanted: &WantedStatus,
        now: jiff::Timestamp,
    ) -> Option<StatusUpdate> {
        compare_status(kind, fact, wanted, CONTROLLER_NAME, now)
    }
}

/// The metadata of an object with a status.
fn metadata_of<'i>(index: &'i Index, kind: ObjectKind, key: &ObjectKey) -> Option<&'i Metadata> {
    fn meta<T>(fact: &Fact<T>) -> &Metadata {
        &fact.meta
    }
    match kind {
        ObjectKind::GatewayClass => index.gateway_classes().get(key).map(meta),
        ObjectKind::Gateway => index.gateways().get(key).map(meta),
        ObjectKind::ListenerSet => index.listener_sets().get(key).map(meta),
        ObjectKind::HttpRoute => index.http_routes().get(key).map(meta),
        ObjectKind::GrpcRoute => index.grpc_routes().get(key).map(meta),
        ObjectKind::TlsRoute => index.tls_routes().get(key).map(meta),
        ObjectKind::BackendTlsPolicy => index.backend_tls_policies().get(key).map(meta),
        ObjectKind::Ingress => index.ingresses().get(key).map(meta),
        ObjectKind::Department => index.departments().get(key).map(meta),
        ObjectKind::CommandSet => index.command_sets().get(key).map(meta),
        ObjectKind::Grant => index.grants().get(key).map(meta),
        ObjectKind::ClientAuthPolicy => index.client_auth_policies().get(key).map(meta),
        _ => None,
    }
}

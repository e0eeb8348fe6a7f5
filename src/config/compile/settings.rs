//! What is read once, at start: `gateway`, `admin`, `ledger`, `calendar`, `workers`, `shutdown`, `capacity`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::document::{Capacity as CapacityDocument, Document, Shutdown as ShutdownDocument};
use crate::config::{Capacity, ListenerSettings, Settings, Shutdown, leaf};
use crate::model::CalendarOffset;
use crate::policy::Durability;

use super::listeners;
use super::place::Place;

/// More traffic threads than any machine of the house has.
const WORKERS_MAX: u64 = 1024;
/// Looked through for each request at the operator's door.
const ADMIN_HOSTS_MAX: usize = 64;
/// A quarter of a year of hours is kept unless somebody says otherwise.
const COMPACT_AFTER: Duration = Duration::from_secs(92 * 86_400);
const COMPACT_AFTER_MIN: Duration = Duration::from_secs(2 * 86_400);
/// The words of `durability`.
pub(super) const DURABILITIES: [(&str, Durability); 2] =
    [("process", Durability::Process), ("machine", Durability::Machine)];

pub(super) fn compile(document: &Document, folder: &Path, root: &Place<'_>) -> Settings {
    let ledger = root.key("ledger");
    let listeners = listeners::compile(&document.listeners, folder, &root.key("listeners"));
    Settings {
        gateway: root.key("gateway").name(document.gateway.as_deref().unwrap_or("tallygate")),
        admin: admin(document, &listeners, root),
        admin_hosts: admin_hosts(document, &root.key("admin").key("hosts")),
        listeners,
        ledger_path: ledger_path(document, folder, &ledger),
        durability: durability(document.ledger.durability.as_deref(), Durability::default(), &ledger),
        sync_every: sync_every(document.ledger.sync_every.as_deref(), &ledger.key("syncEvery")),
        compact_after: compact_after(document.ledger.compact_after.as_deref(), &ledger.key("compactAfter")),
        workers: workers(document, &root.key("workers")),
        calendar: calendar(document, root),
        shutdown: shutdown(document.shutdown.as_ref(), &root.key("shutdown")),
        capacity: capacity(document.capacity.as_ref(), &root.key("capacity")),
    }
}

/// An IP address and a port.
pub(super) fn address(text: &str, place: &Place<'_>) -> SocketAddr {
    let read = text.parse().map_err(|_| format!("{text:?} is not an address; write IP:port, such as 127.0.0.1:8443"));
    place.read(read).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// `durability` at a place, or the one it would be without.
pub(super) fn durability(text: Option<&str>, without: Durability, place: &Place<'_>) -> Durability {
    let Some(text) = text else { return without };
    place.key("durability").read(leaf::word(text, &DURABILITIES)).unwrap_or(without)
}

/// A duration that is longer than nothing, or the default.
pub(super) fn wait(text: Option<&str>, default: Duration, place: &Place<'_>) -> Duration {
    let duration = wait_or_none(text, default, place);
    if duration.is_zero() {
        place.problem("0 would be over before it began");
    }
    duration
}

fn wait_or_none(text: Option<&str>, default: Duration, place: &Place<'_>) -> Duration {
    text.and_then(|text| place.read(leaf::duration(text))).unwrap_or(default)
}

fn admin(document: &Document, listeners: &[ListenerSettings], root: &Place<'_>) -> Option<SocketAddr> {
    let place = root.key("admin").key("address");
    let admin = address(&document.admin.as_ref()?.address, &place);
    let taken = listeners.iter().position(|listener| listener.address == admin && admin.port() != 0);
    if let Some(index) = taken {
        place.problem(format!("{admin} is the address of listeners[{index}] already"));
    }
    Some(admin)
}

fn admin_hosts(document: &Document, place: &Place<'_>) -> Vec<String> {
    let hosts = document.admin.iter().flat_map(|admin| admin.hosts.iter().flatten());
    let hosts = hosts.enumerate().filter_map(|(index, host)| place.item(index).read(leaf::host(host)));
    let hosts: Vec<String> = hosts.collect();
    if hosts.len() > ADMIN_HOSTS_MAX {
        place.problem(format!("at most {ADMIN_HOSTS_MAX} names can be answered for"));
    }
    hosts
}

fn ledger_path(document: &Document, folder: &Path, ledger: &Place<'_>) -> std::path::PathBuf {
    if document.ledger.path.as_os_str().is_empty() {
        ledger.key("path").problem("a path is missing");
    }
    folder.join(&document.ledger.path)
}

fn sync_every(text: Option<&str>, place: &Place<'_>) -> Duration {
    let every = wait(text, Duration::from_millis(50), place);
    if every > Duration::from_secs(60) {
        place.problem("more than a minute of counts would be lost with the machine; write at most 60s");
    }
    every
}

fn compact_after(text: Option<&str>, place: &Place<'_>) -> Option<Duration> {
    if text == Some("never") {
        return None;
    }
    let after = text.and_then(|text| place.read(leaf::duration(text))).unwrap_or(COMPACT_AFTER);
    if after < COMPACT_AFTER_MIN {
        place.problem("hours are needed until their day is over and sealed; write at least 2d, or never");
    }
    Some(after)
}

fn workers(document: &Document, place: &Place<'_>) -> usize {
    let Some(workers) = document.workers else { return default_workers(document) };
    if !(1..=WORKERS_MAX).contains(&workers) {
        place.problem(format!("{workers} is not a number of threads between 1 and {WORKERS_MAX}"));
    }
    usize::try_from(workers).unwrap_or(1)
}

/// One per core, but no more than any server may carry requests: each worker has its part of these. Were it otherwise, what is
/// right on one machine would be a problem on another with more cores.
fn default_workers(document: &Document) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let servers = document.subsystems.iter().flat_map(|subsystem| &subsystem.upstreams);
    let fewest = servers.filter_map(|server| server.max_requests).filter(|max| *max > 0).min();
    fewest.and_then(|fewest| usize::try_from(fewest).ok()).map_or(cores, |fewest| fewest.min(cores))
}

fn calendar(document: &Document, root: &Place<'_>) -> CalendarOffset {
    let offset = document.calendar.as_ref().and_then(|calendar| calendar.offset.as_deref());
    let place = root.key("calendar").key("offset");
    offset.and_then(|text| place.read(CalendarOffset::parse(text))).unwrap_or_default()
}

fn shutdown(shutdown: Option<&ShutdownDocument>, place: &Place<'_>) -> Shutdown {
    let (delay, grace) = shutdown.map_or((None, None), |s| (s.delay.as_deref(), s.grace.as_deref()));
    Shutdown {
        delay: wait_or_none(delay, Duration::from_secs(5), &place.key("delay")),
        grace: wait_or_none(grace, Duration::from_secs(30), &place.key("grace")),
    }
}

fn capacity(capacity: Option<&CapacityDocument>, place: &Place<'_>) -> Capacity {
    let Some(capacity) = capacity else { return Capacity::default() };
    let default = Capacity::default();
    let count = |value: Option<u64>, default: usize, key: &str| cap(value, default, &place.key(key));
    let time = |value: &Option<String>, default, key: &str| wait(value.as_deref(), default, &place.key(key));
    Capacity {
        connections: capacity.connections.map(|written| count(Some(written), 1, "connections")),
        department_connections: count(
            capacity.department_connections,
            default.department_connections,
            "departmentConnections",
        ),
        address_connections: count(capacity.address_connections, default.address_connections, "addressConnections"),
        handshakes: count(capacity.handshakes, default.handshakes, "handshakes"),
        in_flight: count(capacity.in_flight, default.in_flight, "inFlight"),
        series: count(capacity.series, default.series, "series"),
        head_bytes: head_bytes(capacity.head_bytes.as_deref(), default.head_bytes, &place.key("headBytes")),
        head_fields: count(capacity.head_fields, default.head_fields, "headFields"),
        handshake: time(&capacity.handshake, default.handshake, "handshake"),
        head_time: time(&capacity.head_time, default.head_time, "headTime"),
        idle: time(&capacity.idle, default.idle, "idle"),
        body_idle: time(&capacity.body_idle, default.body_idle, "bodyIdle"),
        body_rate: body_rate(capacity.body_rate.as_deref(), default.body_rate, &place.key("bodyRate")),
        answer_idle: time(&capacity.answer_idle, default.answer_idle, "answerIdle"),
        connection_age: time(&capacity.connection_age, default.connection_age, "connectionAge"),
        connection_commands: capacity.connection_commands.map(|written| count(Some(written), 1, "connectionCommands")),
        upstream_idle: count(capacity.upstream_idle, default.upstream_idle, "upstreamIdle"),
        upstream_idle_time: time(&capacity.upstream_idle_time, default.upstream_idle_time, "upstreamIdleTime"),
    }
}

pub(super) fn cap(value: Option<u64>, default: usize, place: &Place<'_>) -> usize {
    let Some(value) = value else { return default };
    if value == 0 {
        place.problem("0 would let nothing through; write at least 1");
    }
    let read = usize::try_from(value).map_err(|_| format!("{value} is too many"));
    place.read(read).unwrap_or(default)
}

fn body_rate(text: Option<&str>, default: u64, place: &Place<'_>) -> u64 {
    text.and_then(|text| place.read(leaf::size(text))).unwrap_or(default)
}

/// hyper needs 8 KiB for the head of a request.
fn head_bytes(text: Option<&str>, default: usize, place: &Place<'_>) -> usize {
    let Some(bytes) = text.and_then(|text| place.read(leaf::size(text))) else { return default };
    if !(8 * 1024..=1024 * 1024).contains(&bytes) {
        place.problem(format!("{bytes} bytes is not between 8KiB and 1MiB"));
    }
    usize::try_from(bytes).unwrap_or(default)
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            connections: None,
            department_connections: 1_000,
            address_connections: 1_000,
            handshakes: 1_024,
            in_flight: 20_000,
            series: 20_000,
            head_bytes: 32 * 1024,
            head_fields: 100,
            handshake: Duration::from_secs(10),
            head_time: Duration::from_secs(10),
            idle: Duration::from_secs(180),
            body_idle: Duration::from_secs(60),
            body_rate: 500,
            answer_idle: Duration::from_secs(30),
            connection_age: Duration::from_secs(3600),
            connection_commands: None,
            upstream_idle: 64,
            upstream_idle_time: Duration::from_secs(55),
        }
    }
}

//! Compiles the settings beside listeners and policy: `gateway`, `admin`, `ledger`, `calendar`, `workers`, `shutdown`,
//! `capacity`, `accessLog`, `tracing`.

mod access_log;
mod tracing;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::document::{CapacityDocument, ConfigDocument, ShutdownDocument};
use crate::config::settings::gateway_settings::{
    CapacitySettings, GatewaySettings, ListenerSettings, ShutdownSettings,
};
use crate::model::CalendarOffset;
use crate::policy::Durability;

use super::compile_context::{CompileContext, ServerDocuments};
use super::doc_path::DocPath;
use super::values::{count_or, duration_or, nonzero_duration_or, parse_address};
use super::{listeners, scalars};

/// Limit of worker threads: more than any expected machine needs.
const WORKERS_MAX: u64 = 1024;
/// Limit of admin hosts. Each request to the admin listener searches all of them.
const ADMIN_HOSTS_MAX: usize = 64;
/// The default of `compactAfter`: hours are kept for a quarter of a year before compaction.
const COMPACT_AFTER: Duration = Duration::from_secs(92 * 86_400);
const COMPACT_AFTER_MIN: Duration = Duration::from_secs(2 * 86_400);
/// The keywords of `durability`.
pub(crate) const DURABILITY_KEYWORDS: [(&str, Durability); 2] =
    [("process", Durability::Process), ("machine", Durability::Machine)];

pub(crate) fn compile_settings(
    document: &ConfigDocument,
    servers: &ServerDocuments<'_>,
    context: CompileContext<'_>,
    root: &DocPath<'_>,
) -> GatewaySettings {
    let folder = context.sources.folder();
    let ledger = root.key("ledger");
    let listeners = listeners::compile_listeners(&document.listeners, context, &root.key("listeners"));
    GatewaySettings {
        gateway: root.key("gateway").parse_name(document.gateway.as_deref().unwrap_or("tallygate")),
        admin: compile_admin(document, &listeners, root),
        admin_hosts: compile_admin_hosts(document, &root.key("admin").key("hosts")),
        listeners,
        ledger_path: compile_ledger_path(document, folder, &ledger),
        durability: compile_durability(document.ledger.durability.as_deref(), Durability::default(), &ledger),
        sync_every: compile_sync_every(document.ledger.sync_every.as_deref(), &ledger.key("syncEvery")),
        compact_after: compile_compact_after(document.ledger.compact_after.as_deref(), &ledger.key("compactAfter")),
        workers: compile_workers((document, servers), &root.key("workers")),
        calendar: compile_calendar(document, root),
        shutdown: compile_shutdown(document.shutdown.as_ref(), &root.key("shutdown")),
        capacity: compile_capacity(document.capacity.as_ref(), &root.key("capacity")),
        access_log: access_log::compile_access_log(document.access_log.as_ref(), folder, &root.key("accessLog")),
        tracing: tracing::compile_tracing(document.tracing.as_ref(), &root.key("tracing")),
    }
}

/// Compiles `durability` at a path; `without` is the default.
pub(crate) fn compile_durability(text: Option<&str>, without: Durability, place: &DocPath<'_>) -> Durability {
    let Some(text) = text else { return without };
    place.key("durability").value_or_problem(scalars::parse_keyword(text, &DURABILITY_KEYWORDS)).unwrap_or(without)
}

fn compile_admin(document: &ConfigDocument, listeners: &[ListenerSettings], root: &DocPath<'_>) -> Option<SocketAddr> {
    let place = root.key("admin").key("address");
    let admin = parse_address(&document.admin.as_ref()?.address, &place);
    let taken = listeners.iter().position(|listener| listener.address == admin && admin.port() != 0);
    if let Some(index) = taken {
        place.problem(format!("{admin} is already the address of listeners[{index}]"));
    }
    Some(admin)
}

fn compile_admin_hosts(document: &ConfigDocument, place: &DocPath<'_>) -> Vec<String> {
    let hosts = document.admin.iter().flat_map(|admin| admin.hosts.iter().flatten());
    let hosts =
        hosts.enumerate().filter_map(|(index, host)| place.item(index).value_or_problem(scalars::parse_host(host)));
    let hosts: Vec<String> = hosts.collect();
    if hosts.len() > ADMIN_HOSTS_MAX {
        place.problem(format!("at most {ADMIN_HOSTS_MAX} names are allowed"));
    }
    hosts
}

fn compile_ledger_path(document: &ConfigDocument, folder: &Path, ledger: &DocPath<'_>) -> std::path::PathBuf {
    if document.ledger.path.as_os_str().is_empty() {
        ledger.key("path").problem("a path is missing");
    }
    folder.join(&document.ledger.path)
}

fn compile_sync_every(text: Option<&str>, place: &DocPath<'_>) -> Duration {
    let every = nonzero_duration_or(text, Duration::from_millis(50), place);
    if every > Duration::from_secs(60) {
        place.problem("a crash of the machine could lose more than a minute of counts; write at most 60s");
    }
    every
}

fn compile_compact_after(text: Option<&str>, place: &DocPath<'_>) -> Option<Duration> {
    if text == Some("never") {
        return None;
    }
    let after = text.and_then(|text| place.value_or_problem(scalars::parse_duration(text))).unwrap_or(COMPACT_AFTER);
    if after < COMPACT_AFTER_MIN {
        place.problem("hours are needed until their day has ended and is sealed; write at least 2d, or never");
    }
    Some(after)
}

fn compile_workers((document, servers): (&ConfigDocument, &ServerDocuments<'_>), place: &DocPath<'_>) -> usize {
    let Some(workers) = document.workers else { return default_workers(servers) };
    if !(1..=WORKERS_MAX).contains(&workers) {
        place.problem(format!("{workers} is not a number of threads between 1 and {WORKERS_MAX}"));
    }
    usize::try_from(workers).unwrap_or(1)
}

/// The default number of workers: one per core, but at most the smallest `maxRequests` of a server, because that limit
/// is divided among the workers. Otherwise a configuration that is valid on one machine would have a problem on another
/// machine with more cores.
fn default_workers(documents: &ServerDocuments<'_>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let servers = documents.subsystems.iter().flat_map(|(_, subsystem)| &subsystem.upstreams);
    let servers = servers.chain(documents.backends.iter().filter_map(|backend| backend.upstreams.as_ref()).flatten());
    let fewest = servers.filter_map(|server| server.max_requests).filter(|max| *max > 0).min();
    fewest.and_then(|fewest| usize::try_from(fewest).ok()).map_or(cores, |fewest| fewest.min(cores))
}

fn compile_calendar(document: &ConfigDocument, root: &DocPath<'_>) -> CalendarOffset {
    let offset = document.calendar.as_ref().and_then(|calendar| calendar.offset.as_deref());
    let place = root.key("calendar").key("offset");
    offset.and_then(|text| place.value_or_problem(CalendarOffset::parse(text))).unwrap_or_default()
}

fn compile_shutdown(shutdown: Option<&ShutdownDocument>, place: &DocPath<'_>) -> ShutdownSettings {
    let key = |read: fn(&ShutdownDocument) -> &Option<String>| shutdown.and_then(|document| read(document).as_deref());
    let delay = duration_or(key(|document| &document.delay), Duration::from_secs(5), &place.key("delay"));
    let (quiet, quiet_place) = (key(|document| &document.quiet), place.key("quiet"));
    let quiet = quiet.map(|quiet| nonzero_duration_or(Some(quiet), delay / 2, &quiet_place));
    if let Some(quiet) = quiet.filter(|quiet| *quiet >= delay) {
        quiet_place
            .problem(format!("{quiet:?} would never end the delay, which is {delay:?}; write less, or a longer delay"));
    }
    ShutdownSettings {
        delay,
        quiet,
        grace: duration_or(key(|document| &document.grace), Duration::from_secs(30), &place.key("grace")),
    }
}

fn compile_capacity(capacity: Option<&CapacityDocument>, place: &DocPath<'_>) -> CapacitySettings {
    let Some(capacity) = capacity else { return CapacitySettings::default() };
    let default = CapacitySettings::default();
    let count = |value: Option<u64>, default: usize, key: &str| count_or(value, default, &place.key(key));
    let time =
        |value: &Option<String>, default, key: &str| nonzero_duration_or(value.as_deref(), default, &place.key(key));
    CapacitySettings {
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
        head_bytes: compile_head_bytes(capacity.head_bytes.as_deref(), default.head_bytes, &place.key("headBytes")),
        head_fields: count(capacity.head_fields, default.head_fields, "headFields"),
        handshake: time(&capacity.handshake, default.handshake, "handshake"),
        head_time: time(&capacity.head_time, default.head_time, "headTime"),
        idle: time(&capacity.idle, default.idle, "idle"),
        body_idle: time(&capacity.body_idle, default.body_idle, "bodyIdle"),
        body_rate: compile_body_rate(capacity.body_rate.as_deref(), default.body_rate, &place.key("bodyRate")),
        response_idle: time(&capacity.response_idle, default.response_idle, "responseIdle"),
        connection_age: time(&capacity.connection_age, default.connection_age, "connectionAge"),
        connection_commands: capacity.connection_commands.map(|written| count(Some(written), 1, "connectionCommands")),
        upstream_idle: count(capacity.upstream_idle, default.upstream_idle, "upstreamIdle"),
        upstream_idle_time: time(&capacity.upstream_idle_time, default.upstream_idle_time, "upstreamIdleTime"),
    }
}

fn compile_body_rate(text: Option<&str>, default: u64, place: &DocPath<'_>) -> u64 {
    text.and_then(|text| place.value_or_problem(scalars::parse_size(text))).unwrap_or(default)
}

/// Compiles the size limit of a request head. hyper needs at least 8 KiB.
fn compile_head_bytes(text: Option<&str>, default: usize, place: &DocPath<'_>) -> usize {
    let Some(bytes) = text.and_then(|text| place.value_or_problem(scalars::parse_size(text))) else { return default };
    if !(8 * 1024..=1024 * 1024).contains(&bytes) {
        place.problem(format!("{bytes} bytes is not between 8KiB and 1MiB"));
    }
    usize::try_from(bytes).unwrap_or(default)
}

impl Default for CapacitySettings {
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
            response_idle: Duration::from_secs(30),
            connection_age: Duration::from_secs(3600),
            connection_commands: None,
            upstream_idle: 64,
            upstream_idle_time: Duration::from_secs(55),
        }
    }
}

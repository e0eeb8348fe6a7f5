//! Compiles the groups of servers: those of the subsystems, and `backends`.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::config::document::{
    BackendDocument, ConfigDocument, EndpointsDocument, ServerGroup, ServerTimeouts, SubsystemDocument,
};
use crate::model::{Name, NameInterner};
use crate::policy::{Backend, BackendTimeouts, EndpointDiscovery, UpstreamProtocol};

use super::compile_context::{BackendParts, PartList, PartSearch, ServerDocuments};
use super::doc_path::DocPath;
use super::values::nonzero_duration_or;
use super::{scalars, upstreams};

const PROTOCOL_KEYWORDS: [(&str, UpstreamProtocol); 3] =
    [("http1", UpstreamProtocol::Http1), ("http2", UpstreamProtocol::Http2), ("tcp", UpstreamProtocol::Tcp)];

/// All backends of a document.
#[derive(Debug, Default)]
pub(crate) struct CompiledBackends<'a> {
    /// The backends: those of the subsystems, then the others, both in the order of the document.
    pub(crate) all: Vec<Arc<Backend>>,
    /// The position of each backend, by its id as written.
    by_id: HashMap<&'a str, usize, RandomState>,
    /// The position of each backend, by its number.
    by_number: HashMap<u32, usize, RandomState>,
    /// The backends that were found since the last call of [`Self::take_found`].
    found: RefCell<Vec<Arc<Backend>>>,
}

impl<'a> CompiledBackends<'a> {
    /// The backend with this id. What is compiled from it depends on it.
    pub(crate) fn find(&self, id: &str) -> Option<&Arc<Backend>> {
        let backend = self.all.get(*self.by_id.get(id)?)?;
        self.found.borrow_mut().push(Arc::clone(backend));
        Some(backend)
    }

    /// The backends that were found since the last call.
    pub(crate) fn take_found(&self) -> Vec<Arc<Backend>> {
        self.found.take()
    }

    /// The backend with this number.
    pub(crate) fn with_number(&self, number: u32) -> Option<&Arc<Backend>> {
        self.all.get(*self.by_number.get(&number)?)
    }

    fn add(&mut self, id: &'a str, backend: Arc<Backend>) {
        let position = self.all.len();
        self.by_id.entry(id).or_insert(position);
        self.by_number.entry(backend.number).or_insert(position);
        self.all.push(backend);
    }
}

/// Compiles the servers of the subsystems, then `backends`, for this number of workers. Those of `before` are used
/// again where their documents are the same.
pub(crate) fn compile_backends<'a, T>(
    (document, servers): (&'a ConfigDocument, &ServerDocuments<'a>),
    (workers, numbers): (usize, &NameInterner),
    before: Option<(&BackendParts, &PartList<SubsystemDocument, T>)>,
    root: &DocPath<'_>,
) -> (CompiledBackends<'a>, BackendParts) {
    let (mut compiled, mut parts) = (CompiledBackends::default(), BackendParts::default());
    let mut search = PartSearch::new(before.map(|(backends, _)| &backends.own));
    for (index, written) in servers.subsystems.iter().filter(|(_, written)| !written.upstreams.is_empty()) {
        let backend = search.find(written).map(Arc::clone).unwrap_or_else(|| {
            let place = root.key("subsystems").item(*index);
            Arc::new(Backend { is_own: true, ..compile_servers(written.servers(), (workers, numbers), &place) })
        });
        parts.own.push(written, Arc::clone(&backend));
        compiled.add(&written.id, backend);
    }
    if document.backends.is_empty() {
        return (compiled, parts);
    }
    let subsystems = SubsystemPlaces::new(document, before.map(|(_, subsystems)| subsystems));
    let mut named: HashMap<&str, usize, RandomState> = HashMap::default();
    let mut search = PartSearch::new(before.map(|(backends, _)| &backends.named));
    for (index, written) in document.backends.iter().enumerate() {
        let known = search.find(written).map(Arc::clone);
        let subsystem = subsystems.find(&written.id, known.is_none());
        let backend = known.unwrap_or_else(|| {
            Arc::new(compile_backend(written, (workers, numbers), &root.key("backends").item(index)))
        });
        if let Some(subsystem) = subsystem {
            let place = root.key("backends").item(index);
            let message = format!("{:?} is the id of a subsystem; ids of backends and subsystems differ", written.id);
            place.key("id").problem_beside(message, &root.key("subsystems").item(subsystem).key("id"));
        }
        if let Some(first) = named.insert(&written.id, index) {
            let place = root.key("backends").item(index);
            let message = format!("{:?} is the id of two backends", written.id);
            place.key("id").problem_beside(message, &root.key("backends").item(first).key("id"));
        }
        parts.named.push(written, Arc::clone(&backend));
        compiled.add(&written.id, backend);
    }
    (compiled, parts)
}

/// The positions of the subsystems, by their ids.
struct SubsystemPlaces<'a> {
    document: &'a ConfigDocument,
    all: OnceCell<HashMap<&'a str, usize, RandomState>>,
    /// Those that the document before does not have.
    new: HashMap<&'a str, usize, RandomState>,
}

impl<'a> SubsystemPlaces<'a> {
    fn new<T>(document: &'a ConfigDocument, before: Option<&PartList<SubsystemDocument, T>>) -> Self {
        let mut search = PartSearch::new(before);
        let placed = document.subsystems.iter().enumerate();
        let new = placed.filter(|(_, written)| search.find(written).is_none());
        Self { document, all: OnceCell::new(), new: new.map(|(index, written)| (written.id.as_str(), index)).collect() }
    }

    /// The subsystem with the id of a backend. A backend and a subsystem of the document before have different ids.
    fn find(&self, id: &str, is_new_backend: bool) -> Option<usize> {
        let all = || {
            let placed = self.document.subsystems.iter().enumerate();
            placed.map(|(index, written)| (written.id.as_str(), index)).collect()
        };
        let places = if is_new_backend { self.all.get_or_init(all) } else { &self.new };
        places.get(id).copied()
    }
}

fn compile_backend(written: &BackendDocument, build: (usize, &NameInterner), place: &DocPath<'_>) -> Backend {
    place.key("id").parse_name(&written.id);
    if written.upstreams.is_none() && written.endpoints.is_none() {
        place.key("upstreams").problem_with_hint("is missing", "write [] for a backend without servers");
    }
    compile_servers(written.servers(), build, place)
}

fn compile_servers(
    written: ServerGroup<'_>,
    (workers, numbers): (usize, &NameInterner),
    place: &DocPath<'_>,
) -> Backend {
    let protocol = scalars::parse_keyword(written.protocol.unwrap_or("http1"), &PROTOCOL_KEYWORDS);
    let protocol = place.key("protocol").value_or_problem(protocol).unwrap_or_default();
    if protocol == UpstreamProtocol::Tcp {
        refuse_http_keys(written, place);
    }
    Backend {
        id: Name::parse(written.id).unwrap_or_else(|_| Name::unknown()),
        number: numbers.intern(&format!("b/{}", written.id)),
        is_own: false,
        upstreams: upstreams::compile_upstreams(written.upstreams, (workers, protocol), &place.key("upstreams")),
        discovery: written.endpoints.and_then(|endpoints| compile_endpoints(endpoints, &place.key("endpoints"))),
        protocol,
        balance: upstreams::compile_balance(written.balance, &place.key("balance")),
        queue: upstreams::compile_queue(written.queue, &place.key("queue")),
        retries: upstreams::compile_retries(written.retries, &place.key("retries")),
        slow_start: upstreams::compile_slow_start(written.slow_start, &place.key("slowStart")),
        health_check: upstreams::compile_health_check(written.health_check, &place.key("healthCheck")),
        timeouts: compile_timeouts(written.timeouts, &place.key("timeouts")),
    }
}

fn compile_endpoints(written: &EndpointsDocument, place: &DocPath<'_>) -> Option<EndpointDiscovery> {
    if !written.is_discoverable {
        place.problem_with_hint("is only for documents that a controller has made", "list the servers in upstreams");
        return None;
    }
    let EndpointsDocument { service, port, secure, .. } = written;
    Some(EndpointDiscovery { service: service.as_str().into(), port: port.as_str().into(), is_secure: *secure })
}

/// Reports the keys about HTTP towards servers that get the bytes of TLS connections.
fn refuse_http_keys(written: ServerGroup<'_>, place: &DocPath<'_>) {
    let keys = [
        ("retries", written.retries.is_some()),
        ("healthCheck", written.health_check.is_some()),
        ("timeouts.response", written.timeouts.response.is_some()),
        ("timeouts.deadline", written.timeouts.deadline.is_some()),
    ];
    for (key, _) in keys.into_iter().filter(|(_, is_written)| *is_written) {
        place.key(key).problem_with_hint("has no effect with protocol tcp, which is not HTTP", "remove it");
    }
}

fn compile_timeouts(written: ServerTimeouts<'_>, place: &DocPath<'_>) -> BackendTimeouts {
    let time = |text, default, key| nonzero_duration_or(text, Duration::from_secs(default), &place.key(key));
    BackendTimeouts {
        connect: time(written.connect, 2, "connect"),
        response: time(written.response, 15, "response"),
        idle: time(written.idle, 300, "idle"),
        deadline: time(written.deadline, 3600, "deadline"),
    }
}

/// Reports the keys about servers of a subsystem that has none: they would silently have no effect on the servers of
/// the backends that its commands name.
pub(crate) fn refuse_unused_keys(written: &SubsystemDocument, place: &DocPath<'_>) {
    let ServerGroup { tls, balance, queue, slow_start, retries, health_check, timeouts, .. } = written.servers();
    let keys = [
        ("protocol", written.protocol.is_some()),
        ("tls", tls.is_some()),
        ("balance", balance.is_some()),
        ("queue", queue.is_some()),
        ("slowStart", slow_start.is_some()),
        ("retries", retries.is_some()),
        ("healthCheck", health_check.is_some()),
        ("timeouts.connect", timeouts.connect.is_some()),
        ("timeouts.response", timeouts.response.is_some()),
        ("timeouts.idle", timeouts.idle.is_some()),
        ("timeouts.deadline", timeouts.deadline.is_some()),
    ];
    for (key, _) in keys.into_iter().filter(|(_, is_written)| *is_written) {
        place
            .key(key)
            .problem_with_hint("has no effect without upstreams", "write it in the backends, or give upstreams");
    }
}

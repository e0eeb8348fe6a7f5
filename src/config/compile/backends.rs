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

use super::compile_context::{BackendParts, PartList, ServerDocuments};
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
    /// Whether they are the same values, in the same order, as those of the document before.
    pub(crate) are_as_before: bool,
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
    let with_servers = servers.subsystems.iter().filter(|(_, written)| !written.upstreams.is_empty());
    let (positions, own): (Vec<usize>, Vec<Arc<SubsystemDocument>>) =
        with_servers.map(|(index, written)| (*index, Arc::clone(written))).unzip();
    let renewed_own = PartList::renewed(
        &own,
        before.map(|(backends, _)| &backends.own),
        |_| true,
        |index, written| {
            let place = root.key("subsystems").item(positions[index]);
            let servers = compile_servers(written.servers(), (workers, numbers), &place);
            Some(Arc::new(Backend { is_own: true, ..servers }))
        },
    );
    let known = before.map(|(backends, _)| &backends.named);
    let new = known.map_or_else(|| (0..document.backends.len()).collect(), |known| known.unknown(&document.backends));
    check_ids(document, (&new, before.map(|(_, subsystems)| subsystems)), root);
    let renewed_named = PartList::renewed(
        &document.backends,
        known,
        |_| true,
        |index, written| {
            Some(Arc::new(compile_backend(written, (workers, numbers), &root.key("backends").item(index))))
        },
    );
    let mut compiled = CompiledBackends {
        are_as_before: before.is_some()
            && [&renewed_own.gone, &renewed_named.gone].into_iter().all(|gone| gone.is_empty())
            && renewed_own.compiled + renewed_named.compiled == 0,
        ..CompiledBackends::default()
    };
    let written = servers.with_upstreams().map(|written| &written.id);
    let written = written.chain(document.backends.iter().map(|written| &written.id));
    for (id, backend) in written.zip(renewed_own.list.parts().chain(renewed_named.list.parts())) {
        compiled.add(id, Arc::clone(backend));
    }
    (compiled, BackendParts { own: renewed_own.list, named: renewed_named.list })
}

/// Reports the backends that have the id of an earlier one, or of a subsystem. `new` are the positions of the backends
/// that the document before does not have.
fn check_ids<T>(
    document: &ConfigDocument,
    (new, before): (&[usize], Option<&PartList<SubsystemDocument, T>>),
    root: &DocPath<'_>,
) {
    if document.backends.is_empty() {
        return;
    }
    let subsystems = SubsystemPlaces::new(document, before);
    let mut new = new.iter().copied().peekable();
    let mut named: HashMap<&str, usize, RandomState> = HashMap::default();
    for (index, written) in document.backends.iter().enumerate() {
        let place = root.key("backends").item(index).key("id");
        if let Some(subsystem) = subsystems.find(&written.id, new.next_if_eq(&index).is_some()) {
            let message = format!("{:?} is the id of a subsystem; ids of backends and subsystems differ", written.id);
            place.problem_beside(message, &root.key("subsystems").item(subsystem).key("id"));
        }
        if let Some(first) = named.insert(&written.id, index) {
            let message = format!("{:?} is the id of two backends", written.id);
            place.problem_beside(message, &root.key("backends").item(first).key("id"));
        }
    }
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
        let all = || (0..document.subsystems.len()).collect();
        let new = before.map_or_else(all, |before| before.unknown(&document.subsystems)).into_iter();
        let new = new.map(|index| (document.subsystems[index].id.as_str(), index)).collect();
        Self { document, all: OnceCell::new(), new }
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

//! The record of a command for the access log and for traces: begun when the command arrives, handed over when it has
//! ended.
//!
//! Guarantees:
//! - If neither wants the command, there is no record, and each function here returns after two comparisons.
//! - A record has the names under which the ledger counts the command. Its bytes and units are those of the ledger.
//!
//! Leaves to others: formats, files and limits (`telemetry::access_log`, `telemetry::spans`).

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Version};

use crate::limit::RateLimitInfo;
use crate::model::{CommandKey, CommandTrace, Department, Outcome, Refused};
use crate::proxy::message::request_id::RequestId;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::config_view::WorkerConfig;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::{AccessRecord, RecordText};

/// The protocol of a TLS connection that is one command.
const TLS_PROTOCOL: &str = "TLS";

/// The record of a command that has just arrived; `None` if the access log is off, and the command is not sampled for
/// traces.
pub(crate) fn begin_record(
    (worker, config): (&TrafficWorker, &WorkerConfig),
    peer: &DownstreamPeer,
    (request_id, trace): (RequestId, Option<CommandTrace>),
) -> Option<Box<AccessRecord>> {
    let sampled = trace.filter(|trace| trace.is_sampled);
    if config.access_log.is_none() && sampled.is_none() {
        return None; // most commands of most gateways
    }
    let mut record = Box::new(AccessRecord::new(worker.components.clock.wall(), request_id.to_number(), peer.socket()));
    record.trace = sampled.map(|trace| Box::new(trace.context));
    record.tls = peer.tls_version();
    record.client = peer.client_address(&HeaderMap::new());
    record.set_text(RecordText::Listener, peer.listener().as_str().as_bytes());
    if let Some(caller) = peer.caller() {
        record.set_text(RecordText::Caller, caller.header().as_bytes());
    }
    Some(record)
}

/// Notes what a request asks for. Not called for a request whose head could not be read.
pub(crate) fn note_request<B>(
    record: &mut AccessRecord,
    (peer, has_query): (&DownstreamPeer, bool),
    request: &Request<B>,
) {
    record.protocol = protocol_name(request.version());
    record.client = peer.client_address(request.headers());
    record.set_text(RecordText::Method, request.method().as_str().as_bytes());
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let named = named.or_else(|| request.headers().get(HOST).map(HeaderValue::as_bytes));
    record.set_text(RecordText::Host, named.unwrap_or_default());
    record.set_text(RecordText::Path, request.uri().path().as_bytes());
    if let Some(query) = request.uri().query().filter(|_| has_query) {
        record.set_text(RecordText::Query, query.as_bytes());
    }
}

/// Notes what an admitted command costs, and the names under which the ledger counts it.
pub(crate) fn note_admission(
    record: &mut AccessRecord,
    (department, command): (&Department, &CommandKey),
    (units, rate_limit): (u64, Option<RateLimitInfo>),
) {
    set_names(record, department, command);
    record.units = units;
    note_rate_limit(record, rate_limit);
}

/// Notes the state of the tightest rate limit.
pub(crate) fn note_rate_limit(record: &mut AccessRecord, rate_limit: Option<RateLimitInfo>) {
    record.rate_limit = rate_limit.map(|info| (info.quota, info.remaining));
}

/// Hands over the record of a head that was refused before a request was made of it.
pub(crate) fn log_unread_head(worker: &TrafficWorker, peer: &DownstreamPeer, department: &Department) {
    let request_id = worker.next_request_id();
    let trace = worker.begin_trace(request_id, None);
    let record = begin_record((worker, &worker.config()), peer, (request_id, trace));
    if let Some(record) = record {
        log_refused(worker, record, (department, &CommandKey::unknown()), Refused::Malformed);
    }
}

/// The record of a TLS connection that is one command.
pub(crate) fn begin_connection_record(
    (worker, config): (&TrafficWorker, &WorkerConfig),
    peer: &DownstreamPeer,
) -> Option<Box<AccessRecord>> {
    let request_id = worker.next_request_id();
    let mut record = begin_record((worker, config), peer, (request_id, worker.begin_trace(request_id, None)))?;
    record.protocol = Some(TLS_PROTOCOL);
    record.set_text(RecordText::Host, peer.server_name().unwrap_or_default().as_bytes());
    Some(record)
}

/// Hands over the record of a command that was refused.
pub(crate) fn log_refused(
    worker: &TrafficWorker,
    mut record: Box<AccessRecord>,
    (department, command): (&Department, &CommandKey),
    refused: Refused,
) {
    set_names(&mut record, department, command);
    record.outcome = Outcome::Refused(refused);
    worker.log_command(record);
}

/// Sets the names under which the ledger counts the command.
fn set_names(record: &mut AccessRecord, department: &Department, command: &CommandKey) {
    record.set_text(RecordText::Department, department.id.as_str().as_bytes());
    record.set_text(RecordText::Subsystem, command.subsystem.as_str().as_bytes());
    record.set_text(RecordText::Command, command.command.as_str().as_bytes());
}

fn protocol_name(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("HTTP/1.0"),
        Version::HTTP_11 => Some("HTTP/1.1"),
        Version::HTTP_2 => Some("HTTP/2"),
        _ => None,
    }
}

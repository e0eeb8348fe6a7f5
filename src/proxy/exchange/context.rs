//! The context of one command, shared by every step from admission to response.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::clock::{FrozenTime, MonotonicTime};
use crate::model::Window;
use crate::policy::Backend;
use crate::proxy::message::grpc;
use crate::proxy::message::interim_response::InterimTarget;
use crate::proxy::message::request_id::RequestId;
use crate::proxy::message::upgrade_request::UpgradeRequest;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::config_view::WorkerConfig;
use crate::proxy::worker::peer::DownstreamPeer;
use crate::telemetry::AccessRecord;

use super::command_record::{begin_record, note_request};
use super::destination::ChosenBackend;

/// One command in progress: the facts that every step needs.
pub(crate) struct RequestContext {
    pub(crate) worker: Rc<TrafficWorker>,
    pub(crate) config: Rc<WorkerConfig>,
    pub(crate) peer: Rc<DownstreamPeer>,
    pub(crate) request_id: RequestId,
    pub(crate) arrival: MonotonicTime,
    /// The arrival on the system clock, for timers.
    pub(crate) arrived_at: Instant,
    pub(crate) window: Window,
    /// Whether the method is HEAD: no response to the request has a body.
    pub(crate) is_head_request: bool,
    /// Whether the caller uses gRPC: local responses then use gRPC too. False where a 200 would mean that a tunnel
    /// begins.
    pub(crate) is_grpc: bool,
    /// The caller's time limit for a gRPC call.
    pub(crate) grpc_timeout: Option<Duration>,
    /// The protocol that the caller asks to switch to, if it asks for one.
    pub(crate) upgrade: Option<Box<UpgradeRequest>>,
    /// The target for interim responses, if the caller accepts any.
    pub(crate) interim_target: Option<InterimTarget>,
    /// Whether the trace of the command is recorded; `None` while traces are off.
    pub(crate) is_trace_sampled: Option<bool>,
    /// The record for the access log and for traces, until the command is admitted or refused; `None` if neither wants
    /// it.
    pub(crate) record: Cell<Option<Box<AccessRecord>>>,
}

impl RequestContext {
    /// The configuration of the backend that was chosen for the command.
    pub(crate) fn backend(&self, chosen: ChosenBackend) -> &Backend {
        &self.config.servers_of(chosen.index).policy
    }

    /// Counts an arriving command as received, and binds one configuration to it until its end. An extended CONNECT is
    /// a GET from here on.
    pub(crate) fn receive(
        worker: &Rc<TrafficWorker>,
        peer: &Rc<DownstreamPeer>,
        request: &mut Request<Incoming>,
        still: &FrozenTime,
    ) -> Self {
        worker.meter.received();
        peer.note_request();
        let upgrade = UpgradeRequest::take(request);
        // Of CONNECT requests, only a plain one still has that method.
        let asks_for_tunnel = *request.method() == Method::CONNECT
            || upgrade.as_ref().is_some_and(|upgrade| upgrade.is_extended_connect());
        let is_grpc = grpc::is_grpc(request.headers()) && !asks_for_tunnel;
        let (config, request_id) = (worker.config(), worker.next_request_id());
        let trace = worker.begin_trace(request_id, Some(request.headers()));
        Self {
            record: Cell::new(begin_record((worker, &config), peer, (request_id, trace))),
            is_trace_sampled: trace.map(|trace| trace.is_sampled),
            config,
            request_id,
            arrival: worker.components.clock.monotonic(),
            arrived_at: still.instant().into(),
            window: worker.components.clock.window(),
            is_head_request: *request.method() == Method::HEAD,
            is_grpc,
            grpc_timeout: is_grpc.then(|| grpc::call_timeout(request.headers())).flatten(),
            upgrade,
            interim_target: None,
            worker: Rc::clone(worker),
            peer: Rc::clone(peer),
        }
    }

    /// Notes in the record what the request asks for. Not called for a request whose head could not be read.
    pub(crate) fn note_request<B>(&self, request: &Request<B>) {
        if let Some(mut record) = self.record.take() {
            let has_query = self.config.access_log.as_ref().is_some_and(|settings| settings.has_query);
            note_request(&mut record, (&self.peer, has_query), request);
            self.record.set(Some(record));
        }
    }
}

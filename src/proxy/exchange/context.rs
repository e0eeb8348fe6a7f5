//! One command on its way, as every step of its life sees it.

use std::rc::Rc;

use http::{Method, Request};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::clock::{FrozenTime, MonotonicTime};
use crate::model::Window;

use crate::proxy::message::extended_connect::is_extended_connect;
use crate::proxy::message::grpc;
use crate::proxy::message::interim_response::InterimTarget;
use crate::proxy::message::request_id::RequestId;
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::config_view::WorkerConfig;
use crate::proxy::worker::peer::DownstreamPeer;

/// One command on its way: what every step needs to know.
pub(crate) struct RequestContext {
    pub(crate) worker: Rc<TrafficWorker>,
    pub(crate) config: Rc<WorkerConfig>,
    pub(crate) peer: Rc<DownstreamPeer>,
    pub(crate) request_id: RequestId,
    pub(crate) arrival: MonotonicTime,
    /// The same on the machine's clock, for timers.
    pub(crate) arrived_at: Instant,
    pub(crate) window: Window,
    /// Whether it asks for a head alone: then no answer has a body.
    pub(crate) is_head_request: bool,
    /// Whether its caller speaks gRPC: then our own answers do, too. Not where 200 would mean that a tunnel begins.
    pub(crate) is_grpc: bool,
    /// Where interim answers to it go, if its caller takes any.
    pub(crate) interim_target: Option<InterimTarget>,
}

impl RequestContext {
    /// A command arrives: it is counted as received, and sees one configuration for the rest of its life.
    pub(crate) fn receive(
        worker: &Rc<TrafficWorker>,
        peer: &Rc<DownstreamPeer>,
        request: &Request<Incoming>,
        still: &FrozenTime,
    ) -> Self {
        worker.meter.received();
        peer.note_request();
        Self {
            config: worker.config(),
            request_id: worker.next_request_id(),
            arrival: worker.clock.monotonic(),
            arrived_at: still.instant().into(),
            window: worker.clock.window(),
            is_head_request: *request.method() == Method::HEAD,
            is_grpc: grpc::is_grpc(request.headers()) && !asks_for_tunnel(request),
            interim_target: None,
            worker: Rc::clone(worker),
            peer: Rc::clone(peer),
        }
    }
}

fn asks_for_tunnel<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT || is_extended_connect(request)
}

//! One command on its way, as every step of its life sees it.

use std::convert::Infallible;
use std::rc::Rc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::clock::{Moment, Still};
use crate::model::Window;

use super::body::Body;
use super::extended::is_extended;
use super::grpc;
use super::interim::InterimLine;
use super::live::Live;
use super::peer::Peer;
use super::request_id::RequestId;
use super::worker::Worker;

/// Every command has an answer, whatever happened: nothing else may reach hyper from here.
pub(super) type Answer = Result<Response<Body>, Infallible>;

/// One command on its way: what every step needs to know.
pub(super) struct Call {
    pub(super) worker: Rc<Worker>,
    pub(super) live: Rc<Live>,
    pub(super) peer: Rc<Peer>,
    pub(super) id: RequestId,
    pub(super) arrived: Moment,
    /// The same on the machine's clock, for timers.
    pub(super) instant: Instant,
    pub(super) window: Window,
    /// Whether it asks for a head alone: then no answer has a body.
    pub(super) head_only: bool,
    /// Whether its caller speaks gRPC: then our own answers do, too. Not where 200 would mean that a tunnel begins.
    pub(super) is_grpc: bool,
    /// Where interim answers to it go, if its caller takes any.
    pub(super) interim: Option<InterimLine>,
}

impl Call {
    /// A command arrives: it is counted as received, and sees one configuration for the rest of its life.
    pub(super) fn arrive(worker: &Rc<Worker>, peer: &Rc<Peer>, request: &Request<Incoming>, still: &Still) -> Self {
        worker.meter.received();
        peer.asks();
        Self {
            live: worker.live(),
            id: worker.next_request_id(),
            arrived: worker.clock.monotonic(),
            instant: still.instant().into(),
            window: worker.clock.window(),
            head_only: *request.method() == Method::HEAD,
            is_grpc: grpc::is_spoken(request.headers()) && !asks_for_a_tunnel(request),
            interim: None,
            worker: Rc::clone(worker),
            peer: Rc::clone(peer),
        }
    }
}

fn asks_for_a_tunnel<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT || is_extended(request)
}

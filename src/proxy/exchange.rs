//! The life of a command, in one function. **Read this first.**
//!
//! Guarantees: what arrives is counted as received before anything is decided, and leaves this function either forwarded
//! (its ticket rides in the answer's body) or refused (and counted so). hyper drops this future when the caller leaves;
//! that is safe at every `.await`, because all counting is done by values that settle when they are dropped.

use std::convert::Infallible;
use std::future::ready;
use std::rc::Rc;

use futures_util::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::clock::Moment;
use crate::model::Window;

use super::admit::admit;
use super::body::Body;
use super::connection::Peer;
use super::forward::forward;
use super::live::Live;
use super::refuse::refuse;
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
    pub(super) window: Window,
}

impl Call {
    /// A command arrives: it is counted as received, and sees one configuration for the rest of its life.
    fn arrive(worker: &Rc<Worker>, peer: &Rc<Peer>) -> Self {
        worker.meter.received();
        Self {
            live: worker.live(),
            id: worker.next_request_id(),
            arrived: worker.clock.monotonic(),
            window: worker.clock.window(),
            worker: Rc::clone(worker),
            peer: Rc::clone(peer),
        }
    }
}

/// Takes one command through its life: identified, authorised, limited, on the tally, forwarded, answered; or refused.
///
/// Decides before it returns; what is returned only forwards, or answers at once. hyper and tokio move that future often,
/// so it holds nothing twice.
pub(super) fn exchange(
    worker: &Rc<Worker>,
    peer: &Rc<Peer>,
    request: Request<Incoming>,
) -> impl Future<Output = Answer> + use<> {
    let call = Call::arrive(worker, peer);
    match admit(&call, &request) {
        Ok(admitted) => Either::Left(forward(call, admitted, request)),
        Err(refusal) => Either::Right(ready(Ok(refuse(&call, &refusal)))),
    }
}

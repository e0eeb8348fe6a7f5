//! The life of a command, in one function. **Read this first.**
//!
//! Guarantees: what arrives is counted as received before anything is decided, and leaves this function either forwarded
//! (its ticket rides in the answer's body) or refused (and counted so). hyper drops this future when the caller leaves;
//! that is safe at every `.await`, because all counting is done by values that settle when they are dropped.

use std::convert::Infallible;
use std::future::ready;
use std::rc::Rc;

use futures_util::future::Either;
use http::header::EXPECT;
use http::{Request, Response, Version};
use hyper::body::{Body as _, Incoming};

use crate::clock::Moment;
use crate::model::Window;

use super::admit::admit;
use super::body::{Body, linger};
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
        Err(refusal) => {
            let answer = refuse(&call, &refusal);
            hear_out(request);
            Either::Right(ready(Ok(answer)))
        }
    }
}

/// Lets a refused caller over HTTP/1.1 finish its sentence, unless it waits to be asked for it (`Expect: 100-continue`).
fn hear_out(request: Request<Incoming>) {
    let waits = request.headers().contains_key(EXPECT);
    if request.version() == Version::HTTP_11 && !waits && !request.body().is_end_stream() {
        tokio::task::spawn_local(linger(request.into_body()));
    }
}

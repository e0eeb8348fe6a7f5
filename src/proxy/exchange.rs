//! The life of a command, in one function. **Read this first.**
//!
//! Guarantees: what arrives is counted as received before anything is decided, and leaves this function forwarded
//! (its ticket rides in the answer's body), answered by the configuration itself, or refused (and counted so). hyper drops this future when the caller leaves;
//! that is safe at every `.await`, because all counting is done by values that settle when they are dropped.

use std::future::ready;
use std::rc::Rc;

use futures_util::future::Either;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;

use crate::clock::Still;

use super::admit::admit;
use super::call::{Answer, Call};
use super::extended::as_get;
use super::fault::Fault;
use super::forward::forward;
use super::here::answer_here;
use super::interim::InterimLine;
use super::peer::Peer;
use super::refuse::refuse;
use super::request_body::hear_out;
use super::worker::Worker;

/// Takes one command through its life: identified, authorised, limited, on the tally, forwarded, answered; or refused.
///
/// `interim` is where interim answers to it go, if its caller takes any. Decides before it returns; what is returned only forwards, or answers at once. hyper and tokio move that future often,
/// so it holds nothing twice.
pub(super) fn exchange(
    worker: &Rc<Worker>,
    peer: &Rc<Peer>,
    mut request: Request<Incoming>,
    interim: Option<InterimLine>,
) -> impl Future<Output = Answer> + use<> {
    as_get(&mut request);
    let still = Still::now(); // one moment for the whole decision
    let call = Call { interim, ..Call::arrive(worker, peer, &request, &still) };
    let decided = admit(&call, &request);
    drop(still);
    match decided {
        Ok(admitted) => match admitted.here {
            None => Either::Left(forward(call, admitted, request)),
            Some(here) => Either::Right(Either::Left(answer_here(call, admitted, here, request))),
        },
        Err(refusal) => {
            let mut answer = refuse(&call, &refusal);
            if peer.is_sent_away() && request.version() <= Version::HTTP_11 {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close")); // HTTP/2 has GOAWAY
            }
            hear_out(request);
            Either::Right(Either::Right(ready(Ok(answer))))
        }
    }
}

/// Counts and refuses what came and is not HTTP as this house accepts it; `stand_in` is our own request in its place.
pub(super) fn turn_away(worker: &Rc<Worker>, peer: &Rc<Peer>, stand_in: &Request<Incoming>, fault: Fault) -> Answer {
    let call = Call::arrive(worker, peer, stand_in, &Still::now());
    let refusal = call.malformed(fault);
    Ok(refuse(&call, &refusal))
}

//! Copies of requests, for a subsystem that is tried out: sent beside the command, and answered to nobody.
//!
//! Guarantees: a copy is no command: nothing of it is on the ledger, and the command neither waits for it nor hears of its
//! fate. It is made of what the command's own subsystem gets, marked by `X-Tallygate-Mirror: 1`, and sent once the whole
//! body has passed. At most [`COPIES_MAX`] are held by a worker, each with at most [`BODY_MAX`] bytes; the others are left out.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};

use crate::policy::Subsystem;
use crate::telemetry::Mirrored;

use super::forward::note_answer;
use super::headers::Passing;
use super::live::Live;
use super::progress::Progress;
use super::request_body::RequestBody;
use super::seats::Seat;
use super::upstream::{AnswerBody, Framing, Key, Outgoing, Patience, Sent, Written};
use super::worker::Worker;

/// Copies that one worker holds at once, those included whose body is still coming.
pub(super) const COPIES_MAX: usize = 64;
/// The largest body that is copied, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// The longest answer that is read, so that its connection can be used again, and for how long.
const ANSWER_MAX: usize = 64 * 1024;
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A copy whose body is still to come. Dropped before that, it is left out.
pub(super) struct Copy {
    head: Written,
    framing: Framing,
    /// Taken when the copy is sent.
    road: Option<Road>,
    body: Vec<u8>,
}

/// Where a copy goes.
struct Road {
    live: Rc<Live>,
    /// The subsystem's index.
    subsystem: usize,
    /// What keeps it with one server there.
    key: Option<Key>,
    worker: Rc<Worker>,
    _seat: Seat,
}

impl Copy {
    /// A copy of a request that is about to be sent, if its command wants one of this one.
    pub(super) fn of(passing: Passing<'_>) -> Option<Self> {
        let mirror = passing.admitted.command.mirror()?;
        let (worker, live) = (&passing.call.worker, &passing.call.live);
        if !worker.is_one_of(mirror.percent) {
            return None;
        }
        let is_large = matches!(passing.framing, Framing::Length(length) if length > BODY_MAX as u64);
        let Some(seat) = worker.copies.take().filter(|_| !is_large) else {
            worker.telemetry.mirrored(Mirrored::LeftOut);
            return None;
        };
        let subsystem = live.snapshot.subsystems.get(mirror.subsystem)?;
        let department = &passing.admitted.department.department.id;
        let key = live.upstreams_of(subsystem).key(passing.request.headers(), department);
        let road =
            Road { live: Rc::clone(live), subsystem: mirror.subsystem, key, worker: Rc::clone(worker), _seat: seat };
        let head = Passing { copy_for: Some(subsystem), ..passing }.written();
        Some(Self { head, framing: passing.framing, road: Some(road), body: Vec::new() })
    }

    /// A piece of the body has passed. Whether the copy may go on.
    pub(super) fn add(&mut self, data: &[u8]) -> bool {
        let fits = self.body.len() + data.len() <= BODY_MAX;
        if fits {
            self.body.extend_from_slice(data);
        }
        fits
    }

    /// The whole body has passed: the copy goes its own way.
    pub(super) fn send(mut self) {
        let Some(road) = self.road.take() else { return };
        let body = RequestBody::whole(std::mem::take(&mut self.body).into());
        let head = std::mem::replace(&mut self.head, Written::Http1(Bytes::new()));
        let request = head.with(body, self.framing);
        tokio::task::spawn_local(road.go(request));
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Some(road) = &self.road {
            road.worker.telemetry.mirrored(Mirrored::LeftOut);
        }
    }
}

impl Road {
    async fn go(self, request: Outgoing) {
        let worker = &self.worker;
        let Some(subsystem) = self.live.snapshot.subsystems.get(self.subsystem) else { return };
        let sent = self.ask(subsystem, request).await;
        worker.telemetry.mirrored(if sent.is_some() { Mirrored::Answered } else { Mirrored::Failed });
        let Some(Sent { answer, lease }) = sent else { return };
        note_answer(&lease, answer.status, answer.is_only_busy());
        let mut body = answer.body;
        if timeout(ANSWER_TIME, read_out(&mut body)).await == Ok(true) {
            lease.give_back(&mut body);
        }
    }

    async fn ask(&self, subsystem: &Subsystem, request: Outgoing) -> Option<Sent> {
        let upstreams = self.live.upstreams_of(subsystem);
        let progress = Progress::uncounted(Instant::now());
        let (alarms, response) = (&self.worker.alarms, subsystem.timeouts.response);
        let patience = Patience { alarms, response, until: None, progress: &progress, interim: None };
        let begun = upstreams.begin(request, self.key);
        upstreams.finish_copy(begun, self.key, patience).await.ok()
    }
}

/// Reads an answer that nobody needs; whether it came to its end.
async fn read_out(body: &mut AnswerBody) -> bool {
    let mut left = ANSWER_MAX;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

//! Traffic mirroring: shadow copies of requests for a backend on trial. Their responses are discarded.
//!
//! Guarantees:
//!
//! - A shadow request is not a command: nothing of it is on the ledger. The command does not wait for it and does not
//!   depend on its fate.
//! - It consists of the request that the command's own backend gets, without the header edits of that backend's share,
//!   marked by `X-Tallygate-Mirror: 1`. It is sent once the whole body has passed.
//! - A worker holds at most `SHADOW_REQUESTS_MAX` of them, each with at most `SHADOW_BODY_MAX` bytes. Further ones are
//!   skipped. The copies of one request share one body, and each counts.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::policy::MirrorTarget;
use crate::proxy::message::request_body::{BodyTap, RequestBody};
use crate::proxy::message::upload_progress::UploadProgress;
use crate::proxy::upstream::{
    EncodedHead, HashKey, LeasedResponse, RequestFraming, ResponseDeadline, UpstreamBody, UpstreamRequest,
};
use crate::proxy::worker::TrafficWorker;
use crate::proxy::worker::config_view::WorkerConfig;
use crate::telemetry::MirrorOutcome;

use super::forward::note_response;
use super::upstream_head::UpstreamHead;

/// The largest body that is copied, in bytes.
const SHADOW_BODY_MAX: usize = 64 * 1024;
/// The longest response that is drained for reuse of its connection, in bytes. The next constant bounds the time.
const RESPONSE_DISCARD_MAX: usize = 64 * 1024;
const RESPONSE_DISCARD_TIME: Duration = Duration::from_secs(5);

/// The shadow copies of a request whose body is incomplete. They are skipped if this is dropped before the body is
/// complete.
pub(crate) struct ShadowRequest {
    framing: RequestFraming,
    body: Vec<u8>,
    /// At least one. Taken when the copies are sent.
    copies: Vec<ShadowCopy>,
}

/// One copy of a request, for one backend.
struct ShadowCopy {
    head: EncodedHead,
    target: ShadowTarget,
}

/// The destination of a shadow request.
struct ShadowTarget {
    config: Rc<WorkerConfig>,
    /// The index of the backend in the worker's configuration.
    backend: usize,
    /// The key for sticky routing within the backend.
    hash_key: Option<HashKey>,
    worker: Rc<TrafficWorker>,
    _permit: OwnedSemaphorePermit,
}

impl ShadowRequest {
    /// The shadow copies of a request that is about to be sent: one for each mirror target of the command for which
    /// this request is sampled.
    pub(crate) fn for_request(passing: UpstreamHead<'_>) -> Option<Self> {
        let targets = passing.admitted.command.mirrors();
        let copies: Vec<_> = targets.iter().filter_map(|target| ShadowCopy::for_target(passing, *target)).collect();
        (!copies.is_empty()).then(|| Self { framing: passing.framing, body: Vec::new(), copies })
    }
}

impl ShadowCopy {
    fn for_target(passing: UpstreamHead<'_>, mirror: MirrorTarget) -> Option<Self> {
        let (worker, config) = (&passing.context.worker, &passing.context.config);
        if !worker.is_sampled(mirror.fraction) {
            return None;
        }
        let is_large = matches!(passing.framing, RequestFraming::Length(length) if length > SHADOW_BODY_MAX as u64);
        let permit = Arc::clone(&worker.shadow_permits).try_acquire_owned().ok();
        let Some(permit) = permit.filter(|_| !is_large) else {
            worker.components.telemetry.count_mirrored(MirrorOutcome::Skipped);
            return None;
        };
        let backend = config.index_of(mirror.backend)?;
        let servers = config.servers_of(backend);
        let department = &passing.admitted.department.department.id;
        let key = servers.hash_key(passing.request.headers(), department);
        let target = ShadowTarget {
            config: Rc::clone(config),
            backend,
            hash_key: key,
            worker: Rc::clone(worker),
            _permit: permit,
        };
        let edits = passing.admitted.command.request_edits();
        let head = UpstreamHead { backend: &servers.policy, edits, is_copy: true, ..passing }.encode();
        Some(Self { head, target })
    }
}

impl BodyTap for ShadowRequest {
    /// Copies a piece of the body. Returns whether the copy is still within its limit.
    fn add_data(&mut self, data: &[u8]) -> bool {
        let fits = self.body.len() + data.len() <= SHADOW_BODY_MAX;
        if fits {
            self.body.extend_from_slice(data);
        }
        fits
    }

    /// Sends each copy in a task of its own, now that the whole body has passed.
    fn finish(mut self: Box<Self>) {
        let body = Bytes::from(std::mem::take(&mut self.body));
        for ShadowCopy { head, target } in std::mem::take(&mut self.copies) {
            let request = head.with_body(RequestBody::buffered(body.clone()), self.framing);
            tokio::task::spawn_local(target.deliver(request));
        }
    }
}

impl Drop for ShadowRequest {
    fn drop(&mut self) {
        for ShadowCopy { target, .. } in &self.copies {
            target.worker.components.telemetry.count_mirrored(MirrorOutcome::Skipped);
        }
    }
}

impl ShadowTarget {
    async fn deliver(self, request: UpstreamRequest) {
        let worker = &self.worker;
        let sent = self.send_request(request).await;
        worker.components.telemetry.count_mirrored(if sent.is_some() {
            MirrorOutcome::Responded
        } else {
            MirrorOutcome::Failed
        });
        let Some(LeasedResponse { response: answer, lease, .. }) = sent else { return };
        note_response(&lease, answer.status, answer.is_retry_later());
        let mut body = answer.body;
        if timeout(RESPONSE_DISCARD_TIME, discard_response(&mut body)).await == Ok(true) {
            lease.return_connection(&mut body);
        }
    }

    async fn send_request(&self, request: UpstreamRequest) -> Option<LeasedResponse> {
        let upstreams = self.config.servers_of(self.backend);
        let progress = UploadProgress::uncounted(Instant::now());
        let (timers, response) = (&self.worker.tick_timers, upstreams.policy.timeouts.response);
        let deadline = ResponseDeadline {
            timers,
            response_timeout: response,
            attempt_timeout: None,
            attempt_end: Cell::new(None),
            not_after: None,
            progress: &progress,
            on_interim: None,
        };
        let pending_send = upstreams.try_send(request, self.hash_key);
        upstreams.wait_shadow_response(pending_send, self.hash_key, deadline).await.ok()
    }
}

/// Drains a response. Returns whether it reached its end within the limit.
async fn discard_response(body: &mut UpstreamBody) -> bool {
    let mut left = RESPONSE_DISCARD_MAX;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

//! The thread that sends spans to the collector.
//!
//! Guarantees:
//! - A batch has at most [`BATCH_MAX`] spans, and waits at most [`BATCH_TIME`] for more of them.
//! - A batch is sent at most [`ATTEMPTS_MAX`] times, each for at most the configured timeout; then it is dropped and
//!   counted.
//! - The log has one line when sending begins to fail, and one when it works again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::telemetry::access_log::BoxedRecord;

use super::collector::{Collector, CollectorFault};
use super::counts::{SpanCounts, SpanDropReason};
use super::span::export_request;

/// The most spans of one request.
pub(super) const BATCH_MAX: usize = 512;
/// The longest wait for more spans.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// How often a batch is sent.
const ATTEMPTS_MAX: u32 = 4;
/// The pause after the first failed attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last spans.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The sender of spans.
pub(super) struct SpanExporter {
    pub(super) collector: Collector,
    pub(super) resource: Resource,
    pub(super) timeout: Duration,
    pub(super) counts: Arc<SpanCounts>,
    /// Spans that were dropped when sending began to fail; `None` while it works.
    pub(super) failing_since: Option<u64>,
}

impl SpanExporter {
    /// Sends what comes, until it is told to close.
    pub(super) async fn run(mut self, mut records: mpsc::Receiver<BoxedRecord>, mut closing: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            tokio::select! {
                () = fill(&mut records, &mut batch) => {}
                _ = &mut closing => break,
            }
            tokio::select! {
                () = self.export(&mut batch) => {}
                _ = &mut closing => break, // the batch is sent again below, as far as there is time
            }
        }
        if timeout(CLOSE_TIMEOUT, self.export_rest(&mut records, &mut batch)).await.is_err() {
            let waiting = batch.len() + records.len();
            self.counts.add_dropped(SpanDropReason::CollectorAway, waiting as u64);
            tracing::warn!(spans = waiting, "the last spans could not be sent in time");
        }
    }

    async fn export_rest(&mut self, records: &mut mpsc::Receiver<BoxedRecord>, batch: &mut Vec<BoxedRecord>) {
        loop {
            while batch.len() < BATCH_MAX
                && let Ok(record) = records.try_recv()
            {
                batch.push(record);
            }
            if batch.is_empty() {
                return;
            }
            self.export(batch).await;
        }
    }

    /// Sends a batch, and leaves it empty.
    async fn export(&mut self, batch: &mut Vec<BoxedRecord>) {
        let spans = batch.len() as u64;
        let body = Bytes::from(export_request(&self.resource, batch).encode_to_vec());
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            let sent = timeout(self.timeout, self.collector.send(body.clone())).await;
            let sent =
                sent.unwrap_or_else(|_| Err(CollectorFault::Passing(format!("no answer within {:?}", self.timeout))));
            match sent {
                Ok(answer) => {
                    let rejected = answer.rejected.min(spans);
                    self.counts.add_exported(spans - rejected);
                    self.counts.add_dropped(SpanDropReason::Rejected, rejected);
                    if rejected > 0 {
                        tracing::debug!(rejected, reason = answer.words, "the collector rejected spans");
                    }
                    self.note_success();
                    return batch.clear();
                }
                Err(CollectorFault::Lasting(reason)) => {
                    self.note_failure(&reason);
                    self.counts.add_dropped(SpanDropReason::Rejected, spans);
                    return batch.clear();
                }
                Err(CollectorFault::Passing(reason)) => self.note_failure(&reason),
            }
            if attempt < ATTEMPTS_MAX {
                sleep(pause).await;
                pause *= 2;
            }
        }
        self.counts.add_dropped(SpanDropReason::CollectorAway, spans);
        batch.clear();
    }

    fn note_failure(&mut self, reason: &str) {
        if self.failing_since.is_none() {
            self.failing_since = Some(self.counts.dropped_total());
            tracing::warn!(
                endpoint = %self.collector.endpoint,
                reason,
                "spans cannot be sent; they wait, and are dropped when too many wait; traffic goes on"
            );
        }
    }

    fn note_success(&mut self) {
        if let Some(before) = self.failing_since.take() {
            let dropped = self.counts.dropped_total() - before;
            tracing::info!(endpoint = %self.collector.endpoint, dropped, "spans are sent again");
        }
    }
}

/// Waits for the first record, then for more of them, until the batch is full or its time is over. What it has received
/// is in the batch, also when it is dropped.
async fn fill(records: &mut mpsc::Receiver<BoxedRecord>, batch: &mut Vec<BoxedRecord>) {
    if records.recv_many(batch, BATCH_MAX).await == 0 {
        return std::future::pending().await; // every sender has gone: only the end is left
    }
    let until = Instant::now() + BATCH_TIME;
    while batch.len() < BATCH_MAX {
        let room = BATCH_MAX - batch.len();
        if timeout_at(until, records.recv_many(batch, room)).await.map_or(true, |received| received == 0) {
            return;
        }
    }
}

//! The export of traces of one gateway: its sampler, its queue and its thread (`TraceExport`).
//!
//! Guarantees:
//! - At most `tracing.queue` records wait; more are dropped and counted.
//! - A push never waits.
//!
//! Leaves to others: records (`recorder`), and sending them (`exporter`).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use crate::config::TracingSettings;
use crate::model::{Name, TraceContext};
use crate::telemetry::access_log::BoxedRecord;

use super::collector::Collector;
use super::counts::{SpanCounts, SpanDropReason};
use super::exporter::{CLOSE_TIMEOUT, SpanExporter};
use super::span::resource_of;
use super::trace_sampler::TraceSampler;

/// Beside [`CLOSE_TIMEOUT`]: time for the thread to end.
const END_TIME: Duration = Duration::from_secs(1);

/// The export of traces of one gateway.
#[derive(Debug)]
pub struct TraceExport {
    sampler: TraceSampler,
    records: mpsc::Sender<BoxedRecord>,
    counts: Arc<SpanCounts>,
    ending: Mutex<Option<ExportEnding>>,
}

/// What ends the thread, and what tells that it has ended.
#[derive(Debug)]
struct ExportEnding {
    close: oneshot::Sender<()>,
    ended: std::sync::mpsc::Receiver<()>,
}

impl TraceExport {
    /// Starts the thread. `tls` are the authorities for an endpoint with https.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        settings: &TracingSettings,
        counts: &Arc<SpanCounts>,
        (gateway, tls): (&Name, Option<Arc<ClientConfig>>),
    ) -> io::Result<Arc<Self>> {
        let (records, received) = mpsc::channel(settings.queue);
        let (close, closing) = oneshot::channel();
        let (ends, ended) = std::sync::mpsc::sync_channel(1);
        let exporter = SpanExporter {
            collector: Collector { endpoint: settings.endpoint.clone(), tls },
            resource: resource_of(&settings.service_name, gateway.as_str()),
            timeout: settings.timeout,
            counts: Arc::clone(counts),
            failing_since: None,
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(exporter.run(received, closing));
            let _ = ends.try_send(()); // nobody may wait
        })?;
        Ok(Arc::new(Self {
            sampler: TraceSampler::new(settings),
            records,
            counts: Arc::clone(counts),
            ending: Mutex::new(Some(ExportEnding { close, ended })),
        }))
    }

    /// Whether a command with this place becomes a span.
    pub fn samples(&self, context: &TraceContext) -> bool {
        self.sampler.samples(context)
    }

    /// Hands records over, and leaves the batch empty.
    pub(crate) fn push(&self, batch: &mut Vec<BoxedRecord>) {
        let mut dropped = 0;
        for record in batch.drain(..) {
            dropped += u64::from(self.records.try_send(record).is_err());
        }
        self.counts.add_dropped(SpanDropReason::QueueFull, dropped);
    }

    /// Sends the spans that wait, and ends the thread. Blocks until then, for at most four seconds.
    pub fn close(&self) {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(ExportEnding { close, ended }) = ending else { return };
        let _ = close.send(()); // the thread has ended already
        if ended.recv_timeout(CLOSE_TIMEOUT + END_TIME).is_err() {
            tracing::warn!("the export of traces did not end in time");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::TraceEndpoint;
    use crate::telemetry::AccessRecord;

    pub(crate) fn settings(port: u16) -> TracingSettings {
        TracingSettings {
            endpoint: TraceEndpoint {
                is_tls: false,
                host: "127.0.0.1".to_owned(),
                port,
                authority: format!("127.0.0.1:{port}"),
                path: "/v1/traces".to_owned(),
            },
            one_of: 1,
            is_parent_based: true,
            service_name: "tallygate".to_owned(),
            timeout: Duration::from_millis(200),
            queue: 4,
        }
    }

    fn records(count: u64) -> Vec<BoxedRecord> {
        let record = |number| {
            let mut record = AccessRecord::new(Timestamp::UNIX_EPOCH, 1, SocketAddr::from(([127, 0, 0, 1], 9)));
            record.trace = Some(Box::new(TraceContext { trace_id: 1, span_id: number, parent: None }));
            Box::new(record)
        };
        (1..=count).map(record).collect()
    }

    /// A collector that answers each request so, or never.
    async fn collector(answer: Option<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 65536]).await;
                match answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                    None => held.push(stream),
                }
            }
        });
        port
    }

    fn started(port: u16) -> (Arc<TraceExport>, Arc<SpanCounts>) {
        let counts = Arc::new(SpanCounts::default());
        let gateway = Name::parse("tallygate").expect("a name");
        (TraceExport::start(&settings(port), &counts, (&gateway, None)).expect("a thread"), counts)
    }

    async fn closed(export: Arc<TraceExport>) {
        tokio::task::spawn_blocking(move || export.close()).await.expect("it ends");
    }

    #[tokio::test]
    async fn spans_that_wait_are_sent_at_the_end() {
        let (export, counts) = started(collector(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await);
        export.push(&mut records(3));
        closed(export).await;
        assert_eq!((counts.exported(), counts.dropped_total()), (3, 0));
    }

    #[tokio::test]
    async fn spans_that_a_collector_refuses_are_counted() {
        let (export, counts) = started(collector(Some("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")).await);
        export.push(&mut records(2));
        closed(export).await;
        assert_eq!((counts.exported(), counts.dropped(SpanDropReason::Rejected)), (0, 2));
    }

    #[tokio::test]
    async fn hanging_collector_holds_nobody_up_and_every_span_is_counted() {
        let (export, counts) = started(collector(None).await);
        for _ in 0..10 {
            export.push(&mut records(10)); // never waits
        }
        assert!(counts.dropped(SpanDropReason::QueueFull) >= 80, "{counts:?}");
        closed(export).await;
        assert_eq!((counts.exported(), counts.dropped_total()), (0, 100), "{counts:?}");
    }
}

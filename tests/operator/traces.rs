//! Traces: sampled commands arrive at a collector as spans, a caller's trace goes on, and a collector that is away or hangs
//! harms no traffic. The collector here decodes OTLP with the messages of opentelemetry-proto; `make traces-test` has a real
//! one.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;

use crate::world::{Plan, READ, World, empty, request, reserve_address, until};

/// What a collector does with a request.
#[derive(Clone, Copy)]
enum Conduct {
    Takes,
    Hangs,
    /// Answers with a page of HTML and this status.
    Answers(u16),
}

/// A collector, and the requests that it has received.
#[derive(Clone)]
struct TestCollector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl TestCollector {
    fn start(conduct: Conduct) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = Arc::clone(&collector.requests);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&mut stream) else { continue };
                match conduct {
                    Conduct::Takes => {
                        requests.lock().unwrap().push(request);
                        let head =
                            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                        stream.write_all(head.as_bytes()).unwrap();
                    }
                    Conduct::Hangs => held.push(stream),
                    Conduct::Answers(status) => {
                        let answer = format!("HTTP/1.1 {status} So\r\ncontent-length: 6\r\n\r\n<html>");
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                }
            }
        });
        collector
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|one| &one.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }
}

/// Reads one request of OTLP over HTTP.
fn read_request(stream: &mut std::net::TcpStream) -> Option<ExportTraceServiceRequest> {
    let (mut bytes, mut part) = (Vec::new(), [0; 65536]);
    loop {
        let read = stream.read(&mut part).ok().filter(|read| *read > 0)?;
        bytes.extend(&part[..read]);
        let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let length: usize = length.parse().unwrap();
        if bytes.len() == head_end + 4 + length {
            return Some(ExportTraceServiceRequest::decode(&bytes[head_end + 4..]).unwrap());
        }
    }
}

fn traced(collector: SocketAddr, more: serde_json::Value) -> Plan {
    World::city().edit(move |document| {
        let mut section = json!({ "endpoint": format!("http://{collector}"), "sample": "all", "timeout": "1s" });
        section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document["tracing"] = section;
    })
}

fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Attribute| match value {
        Attribute::StringValue(text) => text.clone(),
        Attribute::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter();
    pairs.map(|one| (one.key.as_str(), text(one.value.as_ref().unwrap().value.as_ref().unwrap()))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn commands_become_spans_and_the_trace_of_a_caller_goes_on() {
    let collector = TestCollector::start(Conduct::Takes);
    let world = traced(collector.address, json!({ "serviceName": "gate" })).start().await;
    let client = world.client("traffic-police");
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let called = |flags: &str, state: Option<&str>| {
        let mut called = request("GET", READ, empty());
        called.headers_mut().insert("traceparent", format!("00-{trace}-{parent}-{flags}").parse().unwrap());
        if let Some(state) = state {
            called.headers_mut().insert("tracestate", state.parse().unwrap());
        }
        called
    };
    assert_eq!(client.send(called("01", Some("vendor=1"))).await.status, 200);
    assert_eq!(client.send(called("00", None)).await.status, 200); // the caller records nothing: no span
    let new = client.get(READ).await;
    assert_eq!(client.get("/nothing").await.status, 404);
    let spans =
        until("three spans have arrived", async || Some(collector.spans()).filter(|spans| spans.len() >= 3)).await;
    assert_eq!(spans.len(), 3);
    let received = world.server("cameras").log.all();
    let upstream: Vec<&str> = received.iter().map(|one| one.header("traceparent")).collect();
    let of_trace = |id: &str| spans.iter().find(|span| hex(&span.trace_id) == id).unwrap();
    let going_on = of_trace(trace);
    assert_eq!((hex(&going_on.parent_span_id).as_str(), going_on.name.as_str()), (parent, "cameras/snapshot.read"));
    assert_eq!(upstream[0], format!("00-{trace}-{}-01", hex(&going_on.span_id)), "the subsystem is its child");
    assert!(upstream[1].starts_with(&format!("00-{trace}-")) && upstream[1].ends_with("-00"), "{}", upstream[1]);
    assert_eq!(received[0].header("tracestate"), "vendor=1");
    let own = of_trace(new.header("x-request-id"));
    assert!(
        own.parent_span_id.is_empty() && upstream[2] == format!("00-{}-{}-01", hex(&own.trace_id), hex(&own.span_id))
    );
    let facts = attributes(own);
    for (name, value) in [
        ("tallygate.department", "traffic-police"),
        ("tallygate.outcome", "ok"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.path", READ),
        ("network.protocol.version", "1.1"),
        ("tls.protocol.version", "1.3"),
        ("tallygate.attempts", "1"),
    ] {
        assert_eq!(facts.get(name).map(String::as_str), Some(value), "{name}: {facts:?}");
    }
    assert!(own.end_time_unix_nano > own.start_time_unix_nano && own.events.len() == 2, "{own:?}");
    let refused =
        spans.iter().find(|span| attributes(span).get("tallygate.outcome").is_some_and(|one| one == "unknown_command"));
    assert_eq!(refused.unwrap().name, "unknown/unknown");
    let service = collector.requests.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    assert!(service.attributes.iter().any(|one| one.key == "service.name"), "{service:?}");
    assert_eq!(world.metrics().await.sum("tallygate_spans_exported_total"), 3);
    // A malformed traceparent begins a new trace, and the tracestate beside it belongs to none.
    let mut malformed = called("01", Some("vendor=1"));
    malformed.headers_mut().insert("traceparent", "00-zero-zero-01".parse().unwrap());
    assert_eq!(client.send(malformed).await.status, 200);
    let last = world.server("cameras").log.all().pop().unwrap();
    assert!(!last.header("traceparent").contains("zero") && last.header("tracestate").is_empty(), "{last:?}");
    world.close().await;
    assert_eq!(collector.spans().len(), 4, "the last span is sent at the end");
}

#[tokio::test]
async fn collector_that_is_away_hangs_or_refuses_harms_no_traffic() {
    for (conduct, reason) in
        [(None, "queue_full"), (Some(Conduct::Hangs), "queue_full"), (Some(Conduct::Answers(404)), "rejected")]
    {
        let address = conduct.map_or_else(reserve_address, |conduct| TestCollector::start(conduct).address);
        let world = traced(address, json!({ "queue": 8 })).start().await;
        let client = world.client("traffic-police");
        let mut sent = 0_u64;
        let labels = [("reason", reason)];
        until("spans are dropped", async || {
            for _ in 0..40 {
                assert_eq!(client.get(READ).await.status, 200);
                sent += 1;
            }
            world.metrics().await.value("tallygate_spans_dropped_total", &labels).filter(|dropped| *dropped > 0.0)
        })
        .await;
        let metrics = world.metrics().await;
        assert_eq!(metrics.sum("tallygate_spans_exported_total"), 0, "{reason}");
        assert!(metrics.sum("tallygate_spans_dropped_total") <= i64::try_from(sent).unwrap(), "{reason}");
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), sent, "every command is counted");
    }
}

#[tokio::test]
async fn commands_beside_the_sample_are_no_spans() {
    let collector = TestCollector::start(Conduct::Takes);
    let world = traced(collector.address, json!({ "sample": "none" })).start().await;
    let client = world.client("traffic-police");
    for _ in 0..20 {
        client.get(READ).await;
    }
    let received = world.server("cameras").log.all();
    assert!(received.iter().all(|one| one.header("traceparent").ends_with("-00")), "subsystems need not record either");
    let metrics = world.metrics().await;
    assert_eq!(metrics.sum("tallygate_spans_exported_total") + metrics.sum("tallygate_spans_dropped_total"), 0);
    world.close().await;
    assert!(collector.spans().is_empty());
}

//! The record of a command as a span of OTLP.
//!
//! Guarantees: values of attributes are text as far as they are UTF-8; other bytes become U+FFFD. The names are those
//! of OpenTelemetry's semantic conventions for HTTP servers, and `tallygate.*` for our own facts.
//!
//! Source: opentelemetry-proto, `trace.proto`; semantic conventions 1.37, "HTTP server span".

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::model::{Blame, TraceContext};
use crate::telemetry::access_log::BoxedRecord;
use crate::telemetry::{AccessRecord, RecordText};

/// Flags of a span: sampled, and whether its parent is in another process (`SPAN_FLAGS_CONTEXT_*`).
const SAMPLED: u32 = 0x01;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// The texts of a record, by the names of their attributes.
const TEXTS: [(RecordText, &str); 11] = [
    (RecordText::Method, "http.request.method"),
    (RecordText::Host, "server.address"),
    (RecordText::Path, "url.path"),
    (RecordText::Query, "url.query"),
    (RecordText::Department, "tallygate.department"),
    (RecordText::Subsystem, "tallygate.subsystem"),
    (RecordText::Command, "tallygate.command"),
    (RecordText::Listener, "tallygate.listener"),
    (RecordText::Caller, "tallygate.caller"),
    (RecordText::Upstream, "tallygate.upstream"),
    (RecordText::Reason, "tallygate.reason"),
];

/// The request with the spans of these records. A record without a place in a trace is left out.
pub(super) fn export_request(resource: &Resource, records: &[BoxedRecord]) -> ExportTraceServiceRequest {
    let spans = records.iter().filter_map(|record| Some(span_of(record, record.trace.as_deref()?))).collect();
    let scope = InstrumentationScope {
        name: "tallygate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = ResourceSpans { resource: Some(resource.clone()), scope_spans, ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

/// What all spans of a gateway share.
pub(super) fn resource_of(service: &str, gateway: &str) -> Resource {
    let attributes =
        [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", gateway)];
    Resource { attributes: attributes.map(|(name, value)| text(name, value)).into(), ..Resource::default() }
}

fn span_of(record: &AccessRecord, trace: &TraceContext) -> Span {
    let began = nanoseconds(record);
    let at = |after: Duration| began.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX));
    let (parent_span_id, flags) = match trace.parent {
        Some(parent) => (parent.span_id.to_be_bytes().to_vec(), SAMPLED | PARENT_IS_KNOWN | PARENT_IS_REMOTE),
        None => (Vec::new(), SAMPLED),
    };
    Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: trace.span_id.to_be_bytes().to_vec(),
        parent_span_id,
        flags,
        name: span_name(record),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: began,
        end_time_unix_nano: at(record.duration),
        attributes: attributes_of(record),
        events: events_of(record, at),
        status: Some(status_of(record)),
        ..Span::default()
    }
}

fn nanoseconds(record: &AccessRecord) -> u64 {
    u64::try_from(record.began.as_nanosecond()).unwrap_or_default()
}

/// `cameras/snapshot.read`: names of the configuration only, so that the number of names is bounded.
fn span_name(record: &AccessRecord) -> String {
    let part = |field| String::from_utf8_lossy(record.text(field).unwrap_or(b"unknown")).into_owned();
    format!("{}/{}", part(RecordText::Subsystem), part(RecordText::Command))
}

/// An error is what failed by fault of the gateway or of the subsystem: a caller's fault is none of a server span.
fn status_of(record: &AccessRecord) -> Status {
    match record.outcome.blame() {
        Blame::Us | Blame::Upstream => {
            let reason = record.text(RecordText::Reason).unwrap_or_default();
            Status { code: StatusCode::Error.into(), message: String::from_utf8_lossy(reason).into_owned() }
        }
        Blame::None | Blame::Caller => Status::default(),
    }
}

fn attributes_of(record: &AccessRecord) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("tallygate.request_id", &format!("{:032x}", record.request_id)),
        text("tallygate.outcome", record.outcome.name()),
        number("tallygate.units", record.units),
        number("tallygate.attempts", record.attempts.into()),
        text("client.address", &record.client.to_string()),
        text("network.peer.address", &record.peer.ip().to_string()),
        number("network.peer.port", record.peer.port().into()),
        number("http.request.body.size", record.request_bytes),
        number("http.response.body.size", record.response_bytes),
    ];
    let texts = TEXTS.iter().filter_map(|(field, name)| Some((name, record.text(*field)?)));
    attributes.extend(texts.map(|(name, value)| text(name, &String::from_utf8_lossy(value))));
    attributes.extend(record.status.map(|status| number("http.response.status_code", status.into())));
    attributes.extend(record.retry_after_s.map(|seconds| number("tallygate.retry_after_s", seconds)));
    attributes.extend(record.tls.and_then(|tls| tls.strip_prefix("TLSv")).map(|tls| text("tls.protocol.version", tls)));
    if let Some(protocol) = record.protocol {
        let (name, version) = protocol.split_once('/').unwrap_or((protocol, ""));
        attributes.push(text("network.protocol.name", &name.to_ascii_lowercase()));
        attributes.extend((!version.is_empty()).then(|| text("network.protocol.version", version)));
    }
    attributes
}

/// When the request was handed over, and when the head of the response was there.
fn events_of(record: &AccessRecord, at: impl Fn(Duration) -> u64) -> Vec<Event> {
    let Some(gateway_time) = record.gateway_time else { return Vec::new() };
    let event = |name: &str, after| Event { time_unix_nano: at(after), name: name.to_owned(), ..Event::default() };
    let response = record.subsystem_time.map(|time| event("response head", gateway_time + time));
    std::iter::once(event("request handed over", gateway_time)).chain(response).collect()
}

fn text(name: &str, value: &str) -> KeyValue {
    key_value(name, Value::StringValue(value.to_owned()))
}

fn number(name: &str, value: u64) -> KeyValue {
    key_value(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn key_value(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::{Finished, Outcome, ParentSpan, Refused};

    fn record() -> AccessRecord {
        let peer = std::net::SocketAddr::from(([10, 0, 0, 9], 4711));
        let mut record = AccessRecord::new(Timestamp::from_second(100).expect("a time"), 0xabc, peer);
        record.trace = Some(Box::new(TraceContext { trace_id: 0xabc, span_id: 0x1f, parent: None }));
        record.set_text(RecordText::Subsystem, b"cameras");
        record.set_text(RecordText::Command, b"snapshot.read");
        record.set_text(RecordText::Path, b"/cameras/\xff");
        record.protocol = Some("HTTP/2");
        record.duration = Duration::from_millis(5);
        record.gateway_time = Some(Duration::from_millis(1));
        record.subsystem_time = Some(Duration::from_millis(3));
        record
    }

    fn attribute<'s>(span: &'s Span, name: &str) -> Option<&'s Value> {
        span.attributes.iter().find(|one| one.key == name)?.value.as_ref()?.value.as_ref()
    }

    #[test]
    fn span_has_the_facts_of_its_command() {
        let mut record = record();
        record.outcome = Outcome::Finished(Finished::Ok);
        let span = span_of(&record, record.trace.as_deref().expect("a trace"));
        assert_eq!((span.name.as_str(), span.kind), ("cameras/snapshot.read", i32::from(SpanKind::Server)));
        assert_eq!(
            (span.trace_id.len(), &span.span_id[..], span.parent_span_id.len()),
            (16, &[0, 0, 0, 0, 0, 0, 0, 0x1f][..], 0)
        );
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5_000_000);
        let events: Vec<_> = span.events.iter().map(|event| event.time_unix_nano - span.start_time_unix_nano).collect();
        assert_eq!(events, [1_000_000, 4_000_000]);
        let text = |value: &str| Some(Value::StringValue(value.to_owned()));
        assert_eq!(attribute(&span, "network.protocol.version").cloned(), text("2"));
        assert_eq!(attribute(&span, "url.path").cloned(), text("/cameras/\u{fffd}"));
        assert_eq!(attribute(&span, "network.peer.port").cloned(), Some(Value::IntValue(4711)));
        assert_eq!(attribute(&span, "tallygate.reason"), None);
    }

    #[test]
    fn error_is_what_failed_by_our_fault_or_that_of_the_subsystem() {
        for (outcome, code) in [
            (Outcome::Finished(Finished::Ok), StatusCode::Unset),
            (Outcome::Finished(Finished::ClientError), StatusCode::Unset),
            (Outcome::Finished(Finished::Timeout), StatusCode::Error),
            (Outcome::Refused(Refused::Forbidden), StatusCode::Unset),
            (Outcome::Refused(Refused::Overloaded), StatusCode::Error),
        ] {
            let mut record = record();
            record.outcome = outcome;
            assert_eq!(status_of(&record).code, i32::from(code), "{outcome}");
        }
    }

    #[test]
    fn parent_is_that_of_the_caller() {
        let record = record();
        let parent = Some(ParentSpan { span_id: 7, is_sampled: true });
        let span = span_of(&record, &TraceContext { parent, ..**record.trace.as_ref().expect("a trace") });
        assert_eq!((&span.parent_span_id[..], span.flags), (&[0, 0, 0, 0, 0, 0, 0, 7][..], 0x301));
    }
}

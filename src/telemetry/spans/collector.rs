//! One request to a collector: OTLP over HTTP, in protobuf, on a connection of its own.
//!
//! Guarantees: the answer has at most [`ANSWER_BYTES_MAX`]. A fault says whether the same request may be sent again.
//!
//! Leaves to `exporter`: time limits, and sending again. Source: OTLP specification 1.7, "OTLP/HTTP".

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::TraceEndpoint;

/// The most bytes of an answer, which says how many spans were rejected, and why.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The most characters of the collector's words in the log.
const WORDS_MAX: usize = 200;

/// A collector.
#[derive(Clone, Debug)]
pub(super) struct Collector {
    pub(super) endpoint: TraceEndpoint,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// What a collector made of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CollectorAnswer {
    /// Spans that it refused, of an answer that is otherwise good.
    pub(super) rejected: u64,
    pub(super) words: String,
}

/// Why a request failed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CollectorFault {
    /// The collector may take the request later.
    #[error("{0}")]
    Passing(String),
    /// It will never take the request.
    #[error("{0}")]
    Lasting(String),
}

impl Collector {
    /// Sends a request. Returns what the collector made of it.
    pub(super) async fn send(&self, body: Bytes) -> Result<CollectorAnswer, CollectorFault> {
        let TraceEndpoint { host, port, .. } = &self.endpoint;
        let connected = TcpStream::connect((host.as_str(), *port)).await;
        let stream = connected.map_err(|error| CollectorFault::Passing(format!("no connection: {error}")))?;
        let Some(config) = &self.tls else { return self.exchange(stream, body).await };
        let name = ServerName::try_from(host.clone()).map_err(|error| CollectorFault::Lasting(error.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        let stream = stream.map_err(|error| CollectorFault::Passing(format!("TLS: {error}")))?;
        self.exchange(stream, body).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Bytes,
    ) -> Result<CollectorAnswer, CollectorFault> {
        let broken =
            |error: hyper::Error| CollectorFault::Passing(format!("the answer is not HTTP, or ended early: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::post(&self.endpoint.path)
            .header(HOST, &self.endpoint.authority)
            .header(USER_AGENT, concat!("tallygate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(body))
            .map_err(|error| CollectorFault::Lasting(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        let body = body.map_err(|error| CollectorFault::Passing(format!("the answer cannot be read: {error}")))?;
        answer_of(head.status, &body.to_bytes())
    }
}

fn answer_of(status: StatusCode, body: &[u8]) -> Result<CollectorAnswer, CollectorFault> {
    if status.is_success() {
        // A collector may answer with nothing at all.
        let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        let (rejected, words) =
            partial.map_or((0, String::new()), |partial| (partial.rejected_spans, partial.error_message));
        return Ok(CollectorAnswer { rejected: u64::try_from(rejected).unwrap_or_default(), words: excerpt(&words) });
    }
    let words = format!("status {}: {}", status.as_u16(), excerpt(&String::from_utf8_lossy(body)));
    let may_pass = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    Err(if may_pass.contains(&status) { CollectorFault::Passing(words) } else { CollectorFault::Lasting(words) })
}

/// The beginning of the collector's words, on one line.
fn excerpt(text: &str) -> String {
    text.chars()
        .map(|one| if one.is_control() { ' ' } else { one })
        .take(WORDS_MAX)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    #[test]
    fn status_says_whether_a_request_may_be_sent_again() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
        let partial = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        let rejected = CollectorAnswer { rejected: 3, words: "too old".to_owned() };
        assert_eq!(answer_of(StatusCode::OK, &partial), Ok(rejected));
        assert_eq!(answer_of(StatusCode::OK, b""), Ok(CollectorAnswer { rejected: 0, words: String::new() }));
        for (status, is_passing) in [(429, true), (503, true), (400, false), (404, false), (500, false), (302, false)] {
            let status = StatusCode::from_u16(status).expect("a status");
            let fault = answer_of(status, b"<html>\nno").expect_err("a fault");
            assert_eq!(matches!(fault, CollectorFault::Passing(_)), is_passing, "{status}");
            assert!(fault.to_string().ends_with(": <html> no"), "{fault}");
        }
    }
}

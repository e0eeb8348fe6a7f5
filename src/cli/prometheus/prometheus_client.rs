//! A client of the query API of one Prometheus.
//!
//! Guarantees: a query takes at most [`QUERY_TIME`], its answer at most [`ANSWER_BYTES_MAX`]. Credentials are sent, and
//! are in no message.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Full;
use rustls::ClientConfig;
use tokio::runtime::{Builder, Runtime};

use crate::clock::Clock;
use crate::identity::system_client_tls;

use super::http_post::send_request;
use super::prometheus_error::{BadPrometheusOption, PrometheusError, QueryFault};
use super::prometheus_url::PrometheusUrl;
use super::query_answer::{QueryAnswer, parse_answer};

/// The longest time of a query, from the connection to the end of its answer.
const QUERY_TIME: Duration = Duration::from_secs(120);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// The most bytes of a token file.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// A client of the query API.
pub(in crate::cli) struct PrometheusClient {
    url: PrometheusUrl,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
    runtime: Runtime,
    query_time: Duration,
    bytes_max: usize,
}

impl PrometheusClient {
    /// A client of the Prometheus at `url`. With `token`, a file, it sends its content as a bearer token.
    pub(super) fn new(url: &str, token: Option<&Path>, clock: &Clock) -> anyhow::Result<Self> {
        let url = PrometheusUrl::parse(url).map_err(|error| BadPrometheusOption(format!("--prometheus {error}")))?;
        let credentials = match (token.map(bearer_token).transpose()?, &url.basic) {
            (Some(_), Some(_)) => {
                let both = "--prometheus-token: the URL has a user already; give one of the two";
                return Err(BadPrometheusOption(both.to_owned()).into());
            }
            (token, basic) => token.or_else(|| basic.clone()),
        };
        let authorization = credentials.map(secret_value).transpose()?;
        let tls = if url.is_tls { Some(prometheus_tls(clock)?) } else { None };
        let runtime = Builder::new_current_thread().enable_all().build().context("starting the client")?;
        Ok(Self { url, authorization, tls, runtime, query_time: QUERY_TIME, bytes_max: ANSWER_BYTES_MAX })
    }

    /// Evaluates a query at a moment, in Unix seconds.
    pub(super) fn query(&self, query: &str, at: i64) -> Result<QueryAnswer, PrometheusError> {
        let answer = self.runtime.block_on(self.answer(query, at));
        answer.map_err(|what| PrometheusError { url: self.url.to_string(), what })
    }

    async fn answer(&self, query: &str, at: i64) -> Result<QueryAnswer, QueryFault> {
        let form =
            Serializer::new(String::new()).append_pair("query", query).append_pair("time", &at.to_string()).finish();
        let request = self.request(form)?;
        let sent = send_request(&self.url, self.tls.clone(), request, self.bytes_max);
        let (status, body) = match tokio::time::timeout(self.query_time, sent).await {
            Ok(answer) => answer?,
            Err(_) => return Err(QueryFault::Slow(self.query_time.as_secs())),
        };
        parse_answer(status, &body, query)
    }

    fn request(&self, form: String) -> Result<Request<Full<Bytes>>, QueryFault> {
        let mut request = Request::post(&self.url.path)
            .header(HOST, &self.url.authority)
            .header(USER_AGENT, concat!("tallygate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(form.into())).map_err(|error| QueryFault::Unreachable(error.to_string()))
    }
}

fn bearer_token(file: &Path) -> Result<String, BadPrometheusOption> {
    let refused = |why: String| BadPrometheusOption(format!("--prometheus-token {}: {why}", file.display()));
    let length = std::fs::metadata(file).map_err(|error| refused(error.to_string()))?.len();
    if length > TOKEN_BYTES_MAX {
        return Err(refused(format!("it has more than {TOKEN_BYTES_MAX} bytes; name the file of the token")));
    }
    let token = std::fs::read_to_string(file).map_err(|error| refused(error.to_string()))?;
    match token.trim() {
        "" => Err(refused("it is empty".to_owned())),
        token => Ok(format!("Bearer {token}")),
    }
}

fn secret_value(credentials: String) -> Result<HeaderValue, BadPrometheusOption> {
    let mut value = HeaderValue::try_from(credentials).map_err(|_| {
        BadPrometheusOption("the credentials for the Prometheus have characters that HTTP cannot send".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// The TLS configuration towards a Prometheus.
fn prometheus_tls(clock: &Clock) -> Result<Arc<ClientConfig>, BadPrometheusOption> {
    system_client_tls(clock).map_err(|problems| {
        let problems: Vec<_> = problems.into_iter().map(|problem| problem.what).collect();
        BadPrometheusOption(format!("--prometheus: {}", problems.join("; ")))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::thread::JoinHandle;

    use super::*;

    /// A server that reads a request and answers with a text, or with nothing for as long as the client stays.
    fn serve_once(answer: Option<String>) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            while !String::from_utf8_lossy(&request).contains("time=") {
                let read = stream.read(&mut part).expect("a request");
                request.extend(&part[..read]);
            }
            match answer {
                Some(answer) => {
                    let _ = stream.write_all(answer.as_bytes()); // the client may have left
                }
                None => while stream.read(&mut part).is_ok_and(|read| read > 0) {},
            }
            String::from_utf8_lossy(&request).into_owned()
        });
        (address, server)
    }

    fn client(url: &str) -> PrometheusClient {
        let client = PrometheusClient::new(url, None, &Clock::system()).expect("a client");
        PrometheusClient { query_time: Duration::from_secs(1), bytes_max: 1 << 20, ..client }
    }

    fn answer(head: &str, body: &str) -> Option<String> {
        Some(format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    #[test]
    fn query_is_a_form_below_the_prefix_with_credentials() {
        let empty = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        let (address, server) = serve_once(answer("200 OK", empty));
        let answer = client(&format!("http://me:secret@{address}/prom/")).query("a{b=\"c\"}[1h]", 7).expect("series");
        assert!(answer.series.is_empty());
        let request = server.join().expect("a request").to_lowercase();
        for part in [
            "post /prom/api/v1/query http/1.1\r\n",
            &format!("\r\nhost: {address}\r\n"),
            "\r\nauthorization: basic bwu6c2vjcmv0\r\n", // in lower case, as all of it
            "query=a%7bb%3d%22c%22%7d%5b1h%5d&time=7",
        ] {
            assert!(request.contains(part), "{part}: {request}");
        }
    }

    #[test]
    fn prometheus_that_gives_no_answer_is_described() {
        let large = "x".repeat(2 << 20);
        for (given, expected) in [
            (None, "failed: no answer within 1 seconds"),
            (Some(String::new()), "the answer is not HTTP, or it ended early"),
            (Some("hello\r\n\r\n".to_owned()), "the answer is not HTTP, or it ended early"),
            (
                Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_owned()),
                "the answer is not HTTP, or it ended early",
            ),
            (
                answer("401 Unauthorized", "who?"),
                "status 401: give user and password in the URL, or --prometheus-token",
            ),
            (answer("302 Found\r\nLocation: /graph", ""), "status 302 to \"/graph\", which is not followed"),
            (answer("200 OK", "<!DOCTYPE html>"), "the answer is not that of the query API (<!DOCTYPE html>)"),
            (answer("200 OK", &large), "the answer is larger than 1 MiB"),
            (
                answer("400 Bad Request", r#"{"status":"error","error":"parse"}"#),
                "refused the query \"a\": status 400, parse",
            ),
        ] {
            let (address, server) = serve_once(given);
            let failed = client(&format!("http://me:secret@{address}")).query("a", 7).expect_err(expected).to_string();
            assert!(failed.contains(expected), "{expected}: {failed}");
            assert!(failed.starts_with(&format!("the query of http://{address}/api/v1/query failed: ")), "{failed}");
            assert!(!failed.contains("secret"), "{failed}");
            server.join().expect("a request");
        }
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let failed = client(&format!("http://{closed}")).query("a", 7).expect_err("no server").to_string();
        assert!(failed.contains("no connection: Connection refused"), "{failed}");
    }
}

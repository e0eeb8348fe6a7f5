//! Reads the gateway's `/metrics` for the live table, as Prometheus does.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::city::Line;

const FAMILY: &str = "tallygate_commands_total{";

/// One sample of `tallygate_commands_total`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) line: Line,
    pub(crate) outcome: String,
    pub(crate) commands: u64,
}

/// The gateway's counts so far.
pub(crate) async fn scrape(admin: SocketAddr) -> anyhow::Result<Vec<Sample>> {
    let stream = TcpStream::connect(admin).await.context("cannot reach the admin address")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection); // ends with the sender
    let request = Request::get("/metrics").header(HOST, admin.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == StatusCode::OK, "/metrics answered {}", response.status());
    let text = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&text).lines().filter_map(sample).collect())
}

fn sample(text: &str) -> Option<Sample> {
    let (labels, value) = text.strip_prefix(FAMILY)?.rsplit_once("} ")?;
    let label =
        |name: &str| labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'));
    let line = Line::new(label("department")?, label("subsystem")?, label("command")?);
    Some(Sample { line, outcome: label("outcome")?.to_owned(), commands: value.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_parsed_with_labels_in_any_order() {
        let text =
            r#"tallygate_commands_total{command="lot.read",department="you",outcome="ok",subsystem="parking"} 12"#;
        let expected = Sample { line: Line::new("you", "parking", "lot.read"), outcome: "ok".into(), commands: 12 };
        assert_eq!(sample(text), Some(expected));
    }

    #[test]
    fn other_lines_are_skipped() {
        for text in ["# TYPE tallygate_commands_total counter", "", "tallygate_command_units_total{} 3"] {
            assert_eq!(sample(text), None, "{text}");
        }
    }
}

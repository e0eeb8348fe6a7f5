//! A health check of one server: one request over the same path as commands, decided by the head of the response.
//!
//! Guarantees:
//! - A check is not metered, and does not count as a command or an attempt.
//! - A check uses its own connection, so it also tests whether the server accepts new ones.
//! - A check ends within its timeout.
//!
//! Leaves to others: when a server is checked (`health_checks`), and the effect of the result (`outlier_ejection`).

use std::future::poll_fn;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Uri, Version};
use tokio::time::timeout;

use crate::policy::{HealthCheckPolicy, UpstreamAddress, UpstreamProtocol, UpstreamServer};
use crate::proxy::message::field_line::put_header;
use crate::proxy::message::request_body::RequestBody;
use crate::proxy::upstream::endpoint::outlier_ejection::ServerHealth;
use crate::proxy::upstream::h1::{self, RequestFraming};
use crate::proxy::upstream::h2::replayable_body::ReplayableBody;
use crate::proxy::upstream::transport::connector::Connector;
use crate::proxy::upstream::transport::protocol::{UpstreamExchange, UpstreamRequest};

/// The `User-Agent` of a check.
const PROBE_AGENT: &str = concat!("tallygate-health/", env!("CARGO_PKG_VERSION"));

/// The check of one server.
pub(crate) struct HealthProbe {
    pub(crate) connector: Connector,
    pub(crate) check: HealthCheckPolicy,
    /// The `Host` of its requests.
    host: String,
}

impl HealthProbe {
    pub(crate) fn new(connector: Connector, check: HealthCheckPolicy, server: &UpstreamServer) -> Self {
        let host = match server.address {
            UpstreamAddress::Tcp(..) => server.authority.clone(),
            UpstreamAddress::Unix(_) => "localhost".to_owned(),
        };
        Self { connector, check, host }
    }

    /// Whether both probes check the same server in the same way.
    pub(crate) fn is_same_check(&self, other: &Self) -> bool {
        self.check == other.check && self.connector.is_same_endpoint(&other.connector)
    }

    /// Performs one check; the error says why it failed.
    pub(crate) async fn run_check(&self, health: &Arc<ServerHealth>) -> Result<(), String> {
        let within = self.check.timeout;
        match timeout(within, self.fetch_status(health)).await {
            Ok(Ok(status)) if self.check.status.contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(format!("response with status {status}")),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err(format!("no response within {} ms", within.as_millis())),
        }
    }

    async fn fetch_status(&self, health: &Arc<ServerHealth>) -> Result<u16, String> {
        let link = self.connector.connect(self.check.timeout, health).await.map_err(|reason| reason.to_string())?;
        let request = self.request().ok_or("no valid request can be made of its host and path")?;
        let Ok(mut exchange) = UpstreamExchange::begin(link, request) else {
            return Err("the server uses another protocol".to_owned());
        };
        let head = poll_fn(|context| exchange.poll_head(context)).await;
        head.map(|head| head.status().as_u16()).map_err(|reason| reason.to_string())
    }

    fn request(&self) -> Option<UpstreamRequest> {
        match self.connector.protocol {
            UpstreamProtocol::Http1 => {
                let mut head = format!("GET {} HTTP/1.1\r\n", self.check.path).into_bytes();
                for (name, value) in
                    [("host", self.host.as_str()), ("user-agent", PROBE_AGENT), ("connection", "close")]
                {
                    put_header(&mut head, name, value.as_bytes());
                }
                head.extend_from_slice(b"\r\n");
                Some(UpstreamRequest::Http1(h1::Http1Request::new(head, RequestBody::empty(), RequestFraming::None)))
            }
            UpstreamProtocol::Http2 => {
                let scheme = if self.connector.uses_tls { "https" } else { "http" };
                let uri = Uri::builder().scheme(scheme).authority(self.host.as_str()).path_and_query(&*self.check.path);
                let request = Request::get(uri.build().ok()?).version(Version::HTTP_2).header(USER_AGENT, PROBE_AGENT);
                Some(UpstreamRequest::Http2(Box::new(request.body(ReplayableBody::new(RequestBody::empty())).ok()?)))
            }
            UpstreamProtocol::Tcp => None, // `config` refuses a health check there
        }
    }
}

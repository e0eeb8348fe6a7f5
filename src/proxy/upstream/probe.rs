//! One check: a server is asked over the way that commands go, and its answer's head says whether it is well.
//!
//! Guarantees: nothing of a check is metered, or counted as a command or an attempt; it has a connection of its own, so that
//! it also tells whether the server takes new ones; it ends within its timeout.

use std::future::poll_fn;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Uri, Version};
use tokio::time::timeout;

use crate::policy::{Address, HealthCheck, Protocol, Upstream};
use crate::proxy::request_body::RequestBody;

use super::connect::Way;
use super::h1::{self, Framing, put_field};
use super::health::Health;
use super::loan::LentBody;
use super::protocol::{Exchange, Outgoing};

/// What servers know a check by.
const AGENT: &str = concat!("tallygate-health/", env!("CARGO_PKG_VERSION"));

/// How one server is asked.
pub(super) struct Probe {
    pub(super) way: Way,
    pub(super) check: HealthCheck,
    /// The host of its requests.
    host: String,
}

impl Probe {
    pub(super) fn new(way: Way, check: HealthCheck, server: &Upstream) -> Self {
        let host = match server.address {
            Address::Tcp(..) => server.authority.clone(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        Self { way, check, host }
    }

    /// Whether the other asks the same server in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.check == other.check && self.way.is_same(&other.way)
    }

    /// Asks once; why the server is not well.
    pub(super) async fn ask(&self, health: &Arc<Health>) -> Result<(), String> {
        let within = self.check.timeout;
        match timeout(within, self.status(health)).await {
            Ok(Ok(status)) if self.check.status.contains(&status) => Ok(()),
            Ok(Ok(status)) => Err(format!("it answered {status}")),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(format!("no answer within {} ms", within.as_millis())),
        }
    }

    async fn status(&self, health: &Arc<Health>) -> Result<u16, String> {
        let link = self.way.connect(self.check.timeout, health).await.map_err(|why| why.to_string())?;
        let request = self.request().ok_or("its host or path makes no request")?;
        let Ok(mut exchange) = Exchange::begin(link, request) else {
            return Err("it speaks another protocol".to_owned());
        };
        let head = poll_fn(|context| exchange.poll_head(context)).await;
        head.map(|head| head.status().as_u16()).map_err(|why| why.to_string())
    }

    fn request(&self) -> Option<Outgoing> {
        match self.way.protocol {
            Protocol::Http1 => {
                let mut head = format!("GET {} HTTP/1.1\r\n", self.check.path).into_bytes();
                for (name, value) in [("host", self.host.as_str()), ("user-agent", AGENT), ("connection", "close")] {
                    put_field(&mut head, name, value.as_bytes());
                }
                head.extend_from_slice(b"\r\n");
                Some(Outgoing::Http1(h1::Outgoing::new(head, RequestBody::none(), Framing::None)))
            }
            Protocol::Http2 => {
                let scheme = if self.way.secure { "https" } else { "http" };
                let uri = Uri::builder().scheme(scheme).authority(self.host.as_str()).path_and_query(&*self.check.path);
                let request = Request::get(uri.build().ok()?).version(Version::HTTP_2).header(USER_AGENT, AGENT);
                Some(Outgoing::Http2(Box::new(request.body(LentBody::new(RequestBody::none())).ok()?)))
            }
        }
    }
}

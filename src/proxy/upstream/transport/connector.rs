//! The connector: opens connections to servers within the connect timeout. The steps are DNS, TCP or a Unix socket, TLS
//! with ALPN, and the HTTP/2 handshake.
//!
//! Guarantees: where TLS is configured, nothing is sent before
//! - the server's certificate was verified for its name and against the configured authorities, and
//! - ALPN agreed on the protocol to be spoken.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::identity::SubsystemTls;
use crate::policy::{Backend, UpstreamAddress, UpstreamProtocol, UpstreamServer};
use crate::proxy::capacity::load_shedding::InFlightLimiter;
use crate::proxy::io::tcp_connection::TcpConnection;
use crate::proxy::upstream::endpoint::dns::DnsResolver;
use crate::proxy::upstream::endpoint::outlier_ejection::ServerHealth;
use crate::proxy::upstream::endpoint::stream::ServerStream;
use crate::proxy::upstream::h1::Http1Connection;
use crate::proxy::upstream::h2::Http2Session;

use super::protocol::UpstreamConnection;

/// The address, protocol and TLS settings of one server.
pub(crate) struct Connector {
    pub(crate) address: UpstreamAddress,
    pub(crate) protocol: UpstreamProtocol,
    /// Whether the connection uses TLS; `tls` then has the settings.
    pub(crate) uses_tls: bool,
    pub(crate) tls: Option<SubsystemTls>,
    pub(crate) resolver: Rc<DnsResolver>,
    pub(crate) in_flight: Rc<InFlightLimiter>,
}

impl Connector {
    /// The connector for a server of a backend.
    pub(crate) fn new(
        backend: &Backend,
        server: &UpstreamServer,
        tls: Option<SubsystemTls>,
        (resolver, in_flight): (&Rc<DnsResolver>, &Rc<InFlightLimiter>),
    ) -> Self {
        Self {
            address: server.address.clone(),
            protocol: backend.protocol,
            uses_tls: server.secure,
            tls,
            resolver: Rc::clone(resolver),
            in_flight: Rc::clone(in_flight),
        }
    }

    /// Whether connections of one connector also serve the other. A reloaded trust store makes them different.
    pub(crate) fn is_same_endpoint(&self, other: &Self) -> bool {
        let config = |connector: &Self| connector.tls.as_ref().map(|tls| Arc::as_ptr(&tls.config));
        let plain = |connector: &Self| (connector.address.clone(), connector.protocol, connector.uses_tls);
        plain(self) == plain(other) && config(self) == config(other)
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self, within: Duration, health: &Arc<ServerHealth>) -> io::Result<UpstreamConnection> {
        timed(within, self.open_connection(health)).await
    }

    /// Opens the byte stream of a connection, for a protocol that the gateway does not speak.
    pub(crate) async fn connect_stream(&self, within: Duration) -> io::Result<ServerStream> {
        timed(within, self.open_stream()).await
    }

    async fn open_connection(&self, health: &Arc<ServerHealth>) -> io::Result<UpstreamConnection> {
        let stream = self.open_stream().await?;
        match self.protocol {
            UpstreamProtocol::Http1 => {
                Ok(UpstreamConnection::Http1(Box::new(Http1Connection::new(stream, health, &self.in_flight))))
            }
            UpstreamProtocol::Http2 => {
                Http2Session::open(stream, health).await.map(UpstreamConnection::Http2).map_err(io::Error::other)
            }
            UpstreamProtocol::Tcp => Err(io::Error::other("the server does not expect HTTP (protocol: tcp)")),
        }
    }

    async fn open_stream(&self) -> io::Result<ServerStream> {
        match &self.address {
            UpstreamAddress::Unix(path) => Ok(ServerStream::Unix(UnixStream::connect(path).await?)),
            UpstreamAddress::Tcp(host, port) => {
                let addresses = self.resolver.resolve(host, *port).await?;
                let socket = TcpConnection::new(TcpStream::connect(addresses.as_slice()).await?)?;
                if self.uses_tls { self.tls_handshake(socket, host).await } else { Ok(ServerStream::Tcp(socket)) }
            }
        }
    }

    /// Performs the TLS handshake.
    async fn tls_handshake(&self, socket: TcpConnection, host: &str) -> io::Result<ServerStream> {
        let tls =
            self.tls.as_ref().ok_or_else(|| io::Error::other("no authority is configured to verify this subsystem"))?;
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, socket).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        match (self.protocol, agreed) {
            (UpstreamProtocol::Http2, Some(b"h2"))
            | (UpstreamProtocol::Http1, None | Some(b"http/1.1"))
            | (UpstreamProtocol::Tcp, _) => Ok(ServerStream::Tls(Box::new(stream))),
            (UpstreamProtocol::Http2, _) => Err(io::Error::other("the server does not offer HTTP/2 (ALPN h2)")),
            (UpstreamProtocol::Http1, _) => {
                Err(io::Error::other("the server requires a protocol other than HTTP/1.1 (ALPN)"))
            }
        }
    }
}

async fn timed<T>(within: Duration, opening: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let opened = tokio::time::timeout(within, opening).await;
    opened.unwrap_or_else(|_| Err(io::Error::other(format!("no connection within {} ms", within.as_millis()))))
}

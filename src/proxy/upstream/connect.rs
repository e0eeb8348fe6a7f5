//! New connections to servers, within the connect timeout of tower: a name, TCP or a Unix socket, TLS, HTTP/2.
//!
//! Guarantees: where TLS is configured, nothing is sent before the server's certificate was verified, for its name and
//! against its authorities, and before ALPN agreed on the protocol that will be spoken.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tower::{ServiceExt as _, service_fn, timeout::Timeout};

use crate::identity::SubsystemTls;
use crate::policy::{Address, Protocol, Subsystem, Upstream};
use crate::proxy::load::Load;
use crate::proxy::socket::Socket;

use super::h1::Wire;
use super::h2::Session;
use super::health::Health;
use super::names::Names;
use super::protocol::Link;
use super::stream::Stream;

/// How one server is reached.
pub(super) struct Way {
    pub(super) address: Address,
    pub(super) protocol: Protocol,
    /// Whether TLS is spoken there; then `tls` says how.
    pub(super) secure: bool,
    pub(super) tls: Option<SubsystemTls>,
    pub(super) names: Rc<Names>,
    pub(super) load: Rc<Load>,
}

impl Way {
    /// The way to a server of a subsystem.
    pub(super) fn new(
        subsystem: &Subsystem,
        server: &Upstream,
        tls: Option<SubsystemTls>,
        (names, load): (&Rc<Names>, &Rc<Load>),
    ) -> Self {
        Self {
            address: server.address.clone(),
            protocol: subsystem.protocol,
            secure: server.secure,
            tls,
            names: Rc::clone(names),
            load: Rc::clone(load),
        }
    }

    /// Whether two ways are the same, so that connections made on one serve the other. Trust that was read again is not.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let config = |way: &Self| way.tls.as_ref().map(|tls| Arc::as_ptr(&tls.config));
        let plain = |way: &Self| (way.address.clone(), way.protocol, way.secure);
        plain(self) == plain(other) && config(self) == config(other)
    }

    /// Opens a connection.
    pub(super) async fn connect(&self, within: Duration, health: &Arc<Health>) -> io::Result<Link> {
        let open = |()| async { self.open(health).await };
        let connecting = Timeout::new(service_fn(open), within).oneshot(());
        connecting.await.map_err(|why| match why.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(_) => io::Error::other(format!("no connection within {} ms", within.as_millis())),
        })
    }

    async fn open(&self, health: &Arc<Health>) -> io::Result<Link> {
        let stream = self.stream().await?;
        match self.protocol {
            Protocol::Http1 => Ok(Link::Http1(Box::new(Wire::new(stream, health, &self.load)))),
            Protocol::Http2 => Session::open(stream, health).await.map(Link::Http2).map_err(io::Error::other),
        }
    }

    async fn stream(&self) -> io::Result<Stream> {
        match &self.address {
            Address::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
            Address::Tcp(host, port) => {
                let addresses = self.names.addresses(host, *port).await?;
                let socket = Socket::new(TcpStream::connect(addresses.as_slice()).await?)?;
                if self.secure { self.greet(socket, host).await } else { Ok(Stream::Tcp(socket)) }
            }
        }
    }

    /// The TLS handshake.
    async fn greet(&self, socket: Socket, host: &str) -> io::Result<Stream> {
        let tls = self.tls.as_ref().ok_or_else(|| io::Error::other("nobody is trusted to be this subsystem"))?;
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, socket).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        match (self.protocol, agreed) {
            (Protocol::Http2, Some(b"h2")) | (Protocol::Http1, None | Some(b"http/1.1")) => {
                Ok(Stream::Tls(Box::new(stream)))
            }
            (Protocol::Http2, _) => Err(io::Error::other("the server does not offer HTTP/2 (ALPN h2)")),
            (Protocol::Http1, _) => Err(io::Error::other("the server insists on another protocol than HTTP/1.1")),
        }
    }
}

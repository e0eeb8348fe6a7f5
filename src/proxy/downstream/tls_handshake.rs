//! The beginning of a TLS connection: its ClientHello decides what becomes of it, then its handshake follows, or it is
//! passed through.
//!
//! Guarantees:
//! - The ClientHello is read within its limits ([`super::hello_recorder`]) before anything is decided or answered.
//! - A connection that is passed through loses no byte, and gets none from the gateway.
//! - A server name that belongs to nobody ends the connection: with a TLS alert where the listener has certificates,
//!   and with a plain close where it has not, or takes no HTTP.
//!
//! Leaves to others: the time limit and the record of a failure (`connection`), and the certificate (`identity`).

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::identity::unserved_host_error;
use crate::policy::{ConnectionMatch, ConnectionMode, PolicySnapshot};
use crate::proxy::io::tcp_connection::TcpConnection;
use crate::proxy::worker::peer::AcceptingListener;

use super::hello_recorder::HelloRecorder;
use super::proxy_protocol;

/// A TLS stream after its handshake.
pub(crate) type TlsSocket = Box<TlsStream<TcpConnection>>;

/// The beginning of a connection whose use is known.
pub(crate) enum BegunConnection {
    /// HTTP over TLS.
    Https(TlsSocket),
    /// A connection whose decrypted bytes are forwarded.
    Terminated(TlsSocket),
    /// A connection whose bytes are forwarded as they are.
    PassedThrough(Box<PassedConnection>),
}

/// A connection that is passed through.
pub(crate) struct PassedConnection {
    pub(crate) socket: TcpConnection,
    /// The bytes that were read: the ClientHello, and perhaps what follows it.
    pub(crate) hello: Bytes,
    pub(crate) server_name: Box<str>,
}

/// A failed handshake: its error, and the socket if its last bytes are worth a lingering close.
pub(crate) type FailedBegin = (io::Error, Option<TcpConnection>);

/// What the ClientHello decides.
enum HelloVerdict {
    Handshake { config: Arc<ServerConfig>, is_http: bool },
    PassThrough(Box<str>),
    Refuse,
}

/// Begins the connection of an accepted socket. Returns also the caller's address if a PROXY header names one. After a
/// failure the TLS alert is already on its way.
pub(crate) async fn begin_connection(
    stream: std::net::TcpStream,
    (listener, snapshot): (&AcceptingListener, impl Fn() -> Arc<PolicySnapshot>),
    by_balancer: bool,
    hello_answered: Rc<Cell<bool>>,
) -> Result<(BegunConnection, Option<IpAddr>), FailedBegin> {
    let mut socket = TcpStream::from_std(stream).and_then(TcpConnection::new).map_err(|error| (error, None))?;
    let proxied_address = match by_balancer {
        true => proxy_protocol::read_proxy_header(&mut socket).await.map_err(|error| (error, None))?,
        false => None,
    };
    let socket = socket.with_first_write_flag(hello_answered); // Our first write follows the complete ClientHello.
    let mut acceptor = LazyConfigAcceptor::new(Acceptor::default(), HelloRecorder::new(socket));
    let StartHandshake { accepted, io: recorder, .. } = match (&mut acceptor).await {
        Ok(hello) => hello,
        Err(error) => return Err((error, acceptor.take_io().map(|recorder| recorder.into_parts().0))),
    };
    let (socket, hello) = recorder.into_parts();
    let verdict = judge_hello(listener, &snapshot(), accepted.client_hello().server_name());
    let begun = match verdict {
        HelloVerdict::Handshake { config, is_http } => {
            drop(hello);
            let accept = StartHandshake::from_parts(accepted, socket).into_stream(config).into_fallible();
            let stream = Box::new(accept.await.map_err(|(error, socket)| (error, Some(socket)))?);
            if is_http { BegunConnection::Https(stream) } else { BegunConnection::Terminated(stream) }
        }
        HelloVerdict::PassThrough(server_name) => {
            BegunConnection::PassedThrough(Box::new(PassedConnection { socket, hello, server_name }))
        }
        HelloVerdict::Refuse => {
            return Err((io::Error::new(io::ErrorKind::InvalidData, unserved_host_error()), Some(socket)));
        }
    };
    Ok((begun, proxied_address))
}

fn judge_hello(listener: &AcceptingListener, snapshot: &PolicySnapshot, server_name: Option<&str>) -> HelloVerdict {
    let is_http = match (snapshot.find_connection(&listener.name, server_name), server_name) {
        (ConnectionMatch::Command { mode: ConnectionMode::Passthrough, .. }, Some(name)) => {
            return HelloVerdict::PassThrough(name.into());
        }
        (ConnectionMatch::Command { .. }, _) => false,
        (ConnectionMatch::Http, _) => true,
        (ConnectionMatch::None, _) => return HelloVerdict::Refuse,
    };
    let Some(tls) = &listener.tls else { return HelloVerdict::Refuse };
    let config = match is_http {
        true => tls.at_handshake.config_for_sni(server_name),
        false => tls.at_handshake.connection_config_for_sni(server_name),
    };
    HelloVerdict::Handshake { config: Arc::clone(config), is_http }
}

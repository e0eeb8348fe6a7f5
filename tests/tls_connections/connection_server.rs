//! Subsystems that get the bytes of TLS connections, and callers of theirs. Both count the bytes on the wire: two of the
//! books that these tests compare.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::{FragmentingStream, Identity, Pki, Plan, Usage, World, within};

/// The host of the connections, and a host below it.
pub const BROKER: &str = "broker.city.example";
pub const NORTH: &str = "north.broker.city.example";
/// What a server says after its caller has ended.
pub const FAREWELL: &[u8] = b"farewell";

/// The bytes of one or several connections.
#[derive(Debug, Default)]
pub struct ByteCounts {
    read: AtomicU64,
    written: AtomicU64,
}

impl ByteCounts {
    /// The bytes that were read, and those that were written.
    pub fn both(&self) -> (u64, u64) {
        (self.read.load(Ordering::Acquire), self.written.load(Ordering::Acquire))
    }
}

/// A stream that counts its bytes.
#[derive(Debug)]
pub struct CountingStream<S> {
    stream: S,
    counts: Arc<ByteCounts>,
}

impl<S> CountingStream<S> {
    pub fn new(stream: S, counts: &Arc<ByteCounts>) -> Self {
        Self { stream, counts: Arc::clone(counts) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountingStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let counting = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut counting.stream).poll_read(context, buffer))?;
        counting.counts.read.fetch_add((buffer.filled().len() - before) as u64, Ordering::AcqRel);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountingStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let counting = self.get_mut();
        let written = ready!(Pin::new(&mut counting.stream).poll_write(context, bytes))?;
        counting.counts.written.fetch_add(written as u64, Ordering::AcqRel);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// A server that sends back what it gets until its caller ends, and then says [`FAREWELL`].
pub struct ConnectionServer {
    pub address: SocketAddr,
    pub counts: Arc<ByteCounts>,
    /// The server name of each connection; empty without TLS.
    pub names: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ConnectionServer {
    /// Starts a server, with TLS if it has a certificate.
    pub async fn start(identity: Option<&Identity>) -> Self {
        let acceptor = identity.map(|identity| {
            let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(identity.chain.clone(), identity.key.clone_key())
                .unwrap();
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counts, names) = (Arc::<ByteCounts>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (of_task, names_of_task) = (Arc::clone(&counts), Arc::clone(&names));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let stream = CountingStream::new(stream, &of_task);
                let (acceptor, names) = (acceptor.clone(), Arc::clone(&names_of_task));
                tokio::spawn(async move {
                    let Some(acceptor) = acceptor else {
                        names.lock().unwrap().push(String::new());
                        return echo(stream).await;
                    };
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    names.lock().unwrap().push(stream.get_ref().1.server_name().unwrap_or_default().to_owned());
                    echo(stream).await;
                });
            }
        });
        Self { address, counts, names, task }
    }

    /// The server names of its connections so far.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().unwrap().clone()
    }
}

impl Drop for ConnectionServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut piece = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => break,
            Ok(length) => {
                if stream.write_all(&piece[..length]).await.is_err() {
                    return;
                }
                let _ = stream.flush().await; // the next write shows an error
            }
            Err(_) => return,
        }
    }
    let _ = stream.write_all(FAREWELL).await; // the caller may be gone
    let _ = stream.shutdown().await;
}

/// A subsystem with this mode and these servers.
pub fn subsystem(mode: &str, servers: &[SocketAddr]) -> Value {
    let upstreams: Vec<Value> = servers.iter().map(|address| json!({ "url": format!("tcp://{address}") })).collect();
    json!({
        "id": "broker",
        "hosts": [BROKER, "*.broker.city.example"],
        "tlsMode": mode,
        "upstreams": upstreams,
        "commands": [{ "id": "connect", "units": 3 }],
    })
}

/// A city that passes the connections of [`BROKER`] through on its mTLS listener, for the department traffic-police.
pub fn passing_city(servers: &[SocketAddr]) -> Plan {
    let mut broker = subsystem("passthrough", servers);
    broker["department"] = json!("traffic-police");
    World::city().edit(|document| {
        document["subsystems"].as_array_mut().unwrap().push(broker);
        let grant = json!({ "department": "traffic-police", "subsystem": "broker", "commands": ["connect"] });
        document["grants"].as_array_mut().unwrap().push(grant);
    })
}

/// The city of [`passing_city`] with one server, which has a certificate of its own.
pub async fn city_with_server() -> (Plan, ConnectionServer) {
    let mut identity = None;
    let plan = passing_city(&[]).with_pki(|pki| identity = Some(broker_certificate(pki)));
    let server = ConnectionServer::start(identity.as_ref()).await;
    let address = server.address;
    let plan = plan.edit(|document| {
        document["subsystems"][1]["upstreams"] = json!([{ "url": format!("tcp://{address}") }]);
    });
    (plan, server)
}

/// The certificate of a server for [`BROKER`] and hosts below it.
pub fn broker_certificate(pki: &Pki) -> Identity {
    let leaf = crate::world::Leaf::dns(BROKER).and_dns("*.broker.city.example");
    pki.issue_server_as("broker", &leaf)
}

/// A caller's TLS configuration.
pub fn caller_config(pki: &Pki, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// A caller's connection with its bytes on the wire.
pub struct Caller {
    pub stream: TlsStream<CountingStream<FragmentingStream>>,
    pub counts: Arc<ByteCounts>,
}

/// Connects to the gateway, naming this server.
pub async fn connect(world: &World, name: &str, config: ClientConfig) -> io::Result<Caller> {
    let stream = TcpStream::connect(world.gateway_address()).await?;
    stream.set_nodelay(true)?;
    connect_over(FragmentingStream::unfragmented(stream), name, config).await
}

/// Performs the handshake over a transport, naming this server.
pub async fn connect_over(stream: FragmentingStream, name: &str, config: ClientConfig) -> io::Result<Caller> {
    let counts = Arc::<ByteCounts>::default();
    let stream = CountingStream::new(stream, &counts);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = within("the handshake", connecting).await?;
    Ok(Caller { stream, counts })
}

impl Caller {
    /// Sends bytes, and returns when they have come back.
    pub async fn echo(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut back = vec![0; bytes.len()];
        within("the echo", self.stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, bytes);
    }

    /// Ends its side, and returns what still comes.
    pub async fn end(&mut self) -> Vec<u8> {
        self.stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        within("the end", self.stream.read_to_end(&mut rest)).await.unwrap();
        rest
    }
}

/// Compares the bytes of callers and servers with the ledger: they are equal on the wire if TLS is passed through.
pub fn bytes_agree(usage: &Usage, department: &str, callers: &[&Caller], servers: &[&ConnectionServer]) {
    callers_agree(usage, department, callers);
    let (arrived, answered) = sum(servers.iter().map(|server| server.counts.both()));
    let counted = usage.admitted(department);
    assert_eq!((counted.request_bytes, counted.response_bytes), (arrived, answered), "ledger and servers");
}

/// Compares the bytes of callers with the ledger, where a server may have spoken after the end of a connection.
pub fn callers_agree(usage: &Usage, department: &str, callers: &[&Caller]) {
    let (received, sent) = sum(callers.iter().map(|caller| caller.counts.both()));
    let counted = usage.admitted(department);
    assert_eq!((counted.request_bytes, counted.response_bytes), (sent, received), "ledger and callers");
}

fn sum(counts: impl Iterator<Item = (u64, u64)>) -> (u64, u64) {
    counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

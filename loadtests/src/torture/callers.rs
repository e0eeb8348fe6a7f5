//! `loadtests callers`: eight departments that call continuously over HTTP/1.1 and HTTP/2, in a separate process.
//!
//! Guarantees:
//! - Every command is in the log before it is sent. It is logged again when its whole response has been read, or when
//!   it has failed.
//! - After a lost connection the callers reconnect.
//!
//! Commands on stdin, one per line:
//! - `call`: always the same command.
//! - `spread`: a new command each time, so that the tally has to grow.
//! - `pause`: finish the commands in flight, then send none.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::watch;

use super::journal::{Event, Journal};
use crate::driver::{Door, Protocol};
use crate::pki::{DEPARTMENTS, HOST, Pki, department};

/// Concurrent commands on each HTTP/2 connection.
const STREAMS: usize = 2;

/// Delay before a reconnect.
const DIAL_AGAIN: Duration = Duration::from_millis(5);

/// Timeout of one command. A killed gateway closes its connections immediately.
const PATIENCE: Duration = Duration::from_secs(20);

/// Number of different commands in `spread`: `/cameras/many/0` to `/cameras/many/599`.
pub const MANY: u64 = 600;

/// The options of the callers.
#[derive(Clone, Debug, clap::Args)]
pub struct Callers {
    /// Address of the gateway
    #[arg(long)]
    pub address: SocketAddr,
    /// The folder with the certificates
    #[arg(long)]
    pub pki: PathBuf,
    /// The log to append to
    #[arg(long)]
    pub log: PathBuf,
}

/// The last command on stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Pause,
    Call,
    Spread,
}

/// The state that all callers share.
struct Office {
    journal: RefCell<Journal>,
    told: watch::Receiver<Told>,
    next: Cell<u64>,
}

impl Office {
    fn note(&self, department: &str, event: Event) {
        self.journal.borrow_mut().note(department, event).expect("the log takes a line: without it nothing is proved");
    }

    fn path(&self) -> String {
        match *self.told.borrow() {
            Told::Spread => {
                self.next.set(self.next.get() + 1);
                format!("/cameras/many/{}", self.next.get() % MANY)
            }
            Told::Call | Told::Pause => "/cameras/v1/snapshots/7".to_owned(),
        }
    }

    fn is_paused(&self) -> bool {
        *self.told.borrow() == Told::Pause
    }
}

/// Sends commands until stdin ends.
pub async fn call(options: Callers) -> Result<()> {
    let (tell, told) = watch::channel(Told::Pause);
    let journal = RefCell::new(Journal::open(&options.log)?);
    let office = Rc::new(Office { journal, told, next: Cell::new(0) });
    let pki = Pki::existing(&options.pki);
    let work = tokio::task::LocalSet::new();
    for name in (0..DEPARTMENTS).map(department) {
        for (protocol, alpn) in [(Protocol::H1, &b"http/1.1"[..]), (Protocol::H2, b"h2")] {
            let door = Door { address: options.address, tls: pki.client(&name, alpn)? };
            work.spawn_local(line(Rc::clone(&office), name.clone(), door, protocol));
        }
    }
    work.run_until(obey(tell)).await
}

async fn obey(tell: watch::Sender<Told>) -> Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        tell.send_replace(match line.as_str() {
            "pause" => Told::Pause,
            "call" => Told::Call,
            "spread" => Told::Spread,
            other => bail!("`{other}` is none of pause, call, spread"),
        });
    }
    Ok(())
}

/// Keeps one connection open, with reconnects, for the life of the process.
async fn line(office: Rc<Office>, department: String, door: Door, protocol: Protocol) {
    let mut told = office.told.clone();
    loop {
        if told.wait_for(|told| *told != Told::Pause).await.is_err() {
            return;
        }
        match connect(&door, protocol).await {
            Ok(senders) => {
                let lanes = senders.into_iter().map(|sender| lane(Rc::clone(&office), department.clone(), sender));
                let lanes: Vec<_> = lanes.map(tokio::task::spawn_local).collect();
                for lane in lanes {
                    let _ = lane.await; // a panic has been printed, and its command has no outcome in the log
                }
            }
            Err(_) => tokio::time::sleep(DIAL_AGAIN).await, // the gateway is dead or not ready yet
        }
    }
}

/// Sends commands in sequence until the connection breaks or the callers pause.
async fn lane(office: Rc<Office>, department: String, mut sender: Sender) {
    while !office.is_paused() && sender.is_ready().await {
        let path = office.path();
        office.note(&department, Event::Sent);
        let answer = tokio::time::timeout(PATIENCE, sender.command(&path)).await;
        match answer.unwrap_or_else(|_| bail!("no answer in {PATIENCE:?}")) {
            Ok(status) => office.note(&department, Event::Answered(status)),
            Err(_) => return office.note(&department, Event::Failed),
        }
    }
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

async fn connect(door: &Door, protocol: Protocol) -> Result<Vec<Sender>> {
    let stream = TokioIo::new(door.enter().await?);
    if protocol == Protocol::H2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection); // its errors come back through the senders
        return Ok((0..STREAMS).map(|_| Sender::Http2(sender.clone())).collect());
    }
    let (sender, connection) = http1::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(vec![Sender::Http1(sender)])
}

impl Sender {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    async fn command(&mut self, path: &str) -> Result<u16> {
        let answer = match self {
            Self::Http1(sender) => {
                sender.send_request(Request::get(path).header("host", HOST).body(Empty::new())?).await
            }
            Self::Http2(sender) => {
                sender.send_request(Request::get(format!("https://{HOST}{path}")).body(Empty::new())?).await
            }
        };
        whole(answer.context("waiting for the answer")?).await
    }
}

/// The status of a response whose whole body has arrived.
async fn whole(mut answer: Response<Incoming>) -> Result<u16> {
    while let Some(frame) = answer.body_mut().frame().await {
        frame.context("reading the answer")?;
    }
    Ok(answer.status().as_u16())
}

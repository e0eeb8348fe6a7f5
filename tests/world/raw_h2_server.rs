//! An HTTP/2 server that works frame by frame: it sends the same frames to every request, and logs the frames it
//! receives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::h2_frames::{HEADERS, PING, SETTINGS, frame};
use super::{ANY_PORT, listen, pause_as_slow_server};

const PREFACE: usize = 24;

/// Builds the response to a request on a stream: each piece is written at once, with a pause before the next piece.
pub type Answering = fn(u32) -> Vec<Vec<u8>>;

/// A frame that the gateway sent: kind, flags, stream, payload.
pub type Got = (u8, u8, u32, Vec<u8>);

/// The server and its log of received frames. It ends with the test's runtime.
pub struct StreamServer {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl StreamServer {
    /// Starts a server that sends this response, with this pause between two pieces.
    pub fn start(answering: Answering, pause: Duration) -> Self {
        let (listener, got) = (listen(ANY_PORT), Arc::<Mutex<Vec<Got>>>::default());
        let (address, seen) = (listener.local_addr().unwrap(), Arc::clone(&got));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, (answering, pause), Arc::clone(&seen)));
            }
        });
        Self { address, got }
    }

    /// Returns the received frames of one kind.
    pub fn got(&self, kind: u8) -> Vec<Got> {
        self.got.lock().unwrap().iter().filter(|frame| frame.0 == kind).cloned().collect()
    }

    /// Returns a plan of a city whose cameras are this server.
    pub fn in_a_city(&self) -> super::Plan {
        super::World::city().cameras_at(self.address).http2_cameras()
    }
}

async fn converse(
    stream: TcpStream,
    (answering, pause): (Answering, Duration),
    got: Arc<Mutex<Vec<Got>>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let (queue, mut queued) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(piece) = queued.recv().await {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    reader.read_exact(&mut [0; PREFACE]).await?;
    let _ = queue.send(frame(SETTINGS, 0, 0, &[]));
    loop {
        let mut head = [0; 9];
        reader.read_exact(&mut head).await?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4] & 1) {
            (SETTINGS, 0) => drop(queue.send(frame(SETTINGS, 1, 0, &[]))),
            (PING, 0) => drop(queue.send(frame(PING, 1, 0, &payload))),
            (HEADERS, _) => {
                let queue = queue.clone();
                tokio::spawn(async move {
                    for piece in answering(stream) {
                        let _ = queue.send(piece);
                        pause_as_slow_server(pause).await;
                    }
                });
            }
            _ => {}
        }
        got.lock().unwrap().push((head[3], head[4], stream, payload));
    }
}

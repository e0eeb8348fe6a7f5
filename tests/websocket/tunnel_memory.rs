//! Bounded memory of tunnels over HTTP/2: 100 tunnels on each connection, idle, or with a subsystem that sends without
//! end while the caller does not read (backpressure).

use tokio::io::AsyncWriteExt as _;

use super::extended_connect::{TALK, tunnel_city};
use super::tunnel_close::closed;
use crate::http2::http2_abuse::{CONNECTIONS, steady_memory};
use crate::world::h2_frames::{WINDOW_UPDATE, connect, frame, open_http2, say, streams, window_of};
use crate::world::{IN_FLIGHT, Seen, until};

/// The memory limit of 100 tunnels of one connection, in bytes: twice the value measured on a busy machine.
const MEMORY_MAX: u64 = 4 * 1024 * 1024;

/// Opens connections with 100 tunnels each. The subsystem sends without end while the caller does not read, or sends
/// nothing. Returns the memory per connection.
async fn memory_of_tunnels(is_loud: bool, window: u32, connection_window: u32) {
    let (world, upgrading) = tunnel_city(|_| ()).await;
    tokio::spawn(async move {
        loop {
            let (_, mut stream) = upgrading.switched().await;
            tokio::spawn(async move {
                while is_loud && stream.write_all(&[7; 16 * 1024]).await.is_ok() {}
                closed(&mut stream).await;
            });
        }
    });
    let (mut before, mut held) = (0, Vec::new());
    for n in 0..=CONNECTIONS {
        let mut stream = open_http2(&world, &window_of(window)).await;
        let mut asked = frame(WINDOW_UPDATE, 0, 0, &connection_window.to_be_bytes());
        asked.extend(streams().take(100).flat_map(|stream| connect(stream, TALK, "websocket", &[])));
        say(&mut stream, &asked).await.unwrap();
        held.push(stream);
        until("all tunnels are open", async || {
            let metrics = world.metrics().await;
            let ended: Vec<_> = metrics.commands().into_iter().filter(|(_, ended)| *ended > 0).collect();
            assert!(ended.is_empty(), "on connection {n} tunnels have ended: {ended:?}");
            let open = metrics.sum(IN_FLIGHT);
            (u64::try_from(open) == Ok(100 * (n + 1))).then_some(())
        })
        .await;
        if n == 0 {
            before = steady_memory(&world).await; // the first connection warms up the gateway
        }
    }
    let last = steady_memory(&world).await;
    let each = last.saturating_sub(before) / CONNECTIONS;
    eprintln!("tunnels, loud: {is_loud}, with a window of {window}: {} KiB a connection", each / 1024);
    assert!(each <= MEMORY_MAX, "{each} bytes a connection");
    for _ in 0..(CONNECTIONS + 1) * 100 {
        world.log.note("traffic-police", Seen::Open);
    }
    drop(held);
    world.close().await;
}

#[tokio::test]
async fn tunnels_that_read_nothing_have_bounded_memory() {
    memory_of_tunnels(true, 0, 1).await;
}

#[tokio::test]
async fn tunnels_that_read_one_window_have_bounded_memory() {
    memory_of_tunnels(true, 65_535, 1).await;
}

#[tokio::test]
async fn unread_tunnels_with_open_windows_have_bounded_memory() {
    memory_of_tunnels(true, 0x7fff_ffff, 0x7fff_0000).await;
}

#[tokio::test]
async fn idle_tunnels_have_bounded_memory() {
    memory_of_tunnels(false, 65_535, 1).await;
}

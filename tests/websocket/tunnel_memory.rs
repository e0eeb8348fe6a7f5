//! Bounded memory of tunnels over HTTP/2: 100 tunnels on each connection, idle, or with a subsystem that sends without
//! end while the caller does not read (backpressure).

use tokio::io::AsyncWriteExt as _;

use super::extended_connect::{TALK, talking_city};
use super::tunnel_close::closed;
use crate::http2::http2_abuse::{CONNECTIONS, memory_once_it_stands_still};
use crate::world::h2_frames::{WINDOW_UPDATE, connect, frame, open_http2, say, streams, window_of};
use crate::world::{Seen, until};

/// The memory limit of 100 tunnels of one connection, in bytes: twice the value measured on a busy machine.
const MEMORY_MAX: u64 = 4 * 1024 * 1024;

/// Opens connections with 100 tunnels each. The subsystem sends without end while the caller does not read, or sends
/// nothing. Returns the memory per connection.
async fn memory_of_tunnels(is_loud: bool, window: u32, connection_window: u32) {
    let (world, switching) = talking_city(|_| ()).await;
    tokio::spawn(async move {
        loop {
            let (_, mut stream) = switching.switched().await;
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
            let open = metrics.sum("tallygate_commands_in_flight");
            (u64::try_from(open) == Ok(100 * (n + 1))).then_some(())
        })
        .await;
        if n == 0 {
            before = memory_once_it_stands_still(&world).await; // the first connection warms up the gateway
        }
    }
    let last = memory_once_it_stands_still(&world).await;
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
async fn tunnels_whose_caller_takes_nothing_have_bounded_memory() {
    memory_of_tunnels(true, 0, 1).await;
}

#[tokio::test]
async fn tunnels_whose_caller_takes_a_window_have_bounded_memory() {
    memory_of_tunnels(true, 65_535, 1).await;
}

#[tokio::test]
async fn tunnels_of_a_caller_that_opens_all_windows_and_does_not_read_have_bounded_memory() {
    memory_of_tunnels(true, 0x7fff_ffff, 0x7fff_0000).await;
}

#[tokio::test]
async fn tunnels_that_rest_have_bounded_memory() {
    memory_of_tunnels(false, 65_535, 1).await;
}

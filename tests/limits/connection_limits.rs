//! Connection limits per address, department and listener, and the limit of concurrent handshakes. A connection over a
//! limit is closed and counted. A released permit can be used again.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::world::{Client, READ, World, empty, let_time_pass, request, until, within};

fn capacity(key: &str, value: u64) -> impl FnOnce(&mut Value) {
    let capacity = json!({ key: value });
    move |document| document["capacity"] = capacity
}

async fn limit_hits(world: &World, limit: &str) -> f64 {
    world.metrics().await.value("tallygate_limit_hits_total", &[("limit", limit)]).unwrap()
}

async fn is_served(client: &Client) -> bool {
    client.try_send(request("GET", READ, empty())).await.is_ok_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn address_has_at_most_its_limit_of_connections() {
    let world = World::city().edit(capacity("addressConnections", 2)).start().await;
    let kept = [world.client("traffic-police"), world.client("logistics").h2()];
    for client in &kept {
        assert!(is_served(client).await);
    }
    assert!(!is_served(&world.client("traffic-police")).await, "a third connection is closed at once");
    assert_eq!(limit_hits(&world, "address_connections").await, 1.0);
    for client in &kept {
        assert!(is_served(client).await, "open connections stay open");
    }
    drop(kept);
    until("a place is free again", async || is_served(&world.client("traffic-police")).await.then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn department_has_at_most_its_limit_of_connections_and_others_have_theirs() {
    let world = World::city().edit(capacity("departmentConnections", 1)).start().await;
    let first = world.client("traffic-police").h2();
    assert!(is_served(&first).await);
    assert!(!is_served(&world.client("traffic-police")).await);
    assert!(!is_served(&world.client("traffic-police").h2()).await);
    assert_eq!(limit_hits(&world, "department_connections").await, 2.0);
    assert!(is_served(&world.client("logistics")).await);
    assert!(is_served(&first).await);
    drop(first);
    until("the place is free again", async || is_served(&world.client("traffic-police")).await.then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn listener_has_at_most_its_limit_of_connections() {
    let world = World::city().edit(|document| document["listeners"][0]["connections"] = json!(1)).start().await;
    let first = world.client("traffic-police");
    assert!(is_served(&first).await);
    assert!(!is_served(&world.client("logistics")).await);
    assert_eq!(limit_hits(&world, "listener_connections").await, 1.0);
    assert!(is_served(&first).await);
    world.close().await;
}

#[tokio::test]
async fn silent_handshakes_are_evicted_for_active_ones() {
    let world = World::city().edit(capacity("handshakes", 4)).start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(world.gateway_address()).await.unwrap());
    }
    assert!(is_served(&world.client("traffic-police")).await);
    let hit = limit_hits(&world, "handshakes").await;
    assert!((13.0..=17.0).contains(&hit), "{hit}: for a second the limit is twice as high");
    let_time_pass(Duration::from_millis(1_100)).await;
    assert!(is_served(&world.client("logistics")).await);
    assert_eq!(limit_hits(&world, "handshakes").await, 17.0, "all but four, and one more for the active caller");
    let crowded = [("reason", "crowded_out")];
    assert_eq!(world.metrics().await.value("tallygate_tls_handshakes_failed_total", &crowded), Some(17.0));
    for stream in silent.iter_mut().take(17) {
        assert_eq!(within("the oldest handshakes are closed", stream.read(&mut [0; 8])).await.unwrap_or(0), 0);
    }
    world.close().await;
}

/// Returns the real binary with a limit of file descriptors, hard and soft.
fn limited(world: &World, descriptors: &str) -> std::process::Command {
    let binary = world.tallygate(&["serve", "--config", "gateway.yaml"]);
    let mut shell = std::process::Command::new("sh");
    let line = format!("ulimit -Sn 256 && ulimit -Hn {descriptors} && exec \"$@\"");
    shell.args(["-c", &line, "sh"]).arg(binary.get_program()).args(binary.get_args()).current_dir(world.folder());
    shell
}

#[tokio::test]
async fn connection_limit_over_the_system_limit_prevents_the_start() {
    let mut world = World::city().edit(capacity("connections", 1_793)).build();
    let ended = crate::world::run(limited(&world, "4096")).await;
    let message = crate::world::stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{message}");
    for number in ["capacity.connections", "1793", "4098", "4096", "at most 1792"] {
        assert!(message.contains(number), "{message}\nlacks {number}");
    }
    world.abandon();
}

#[tokio::test]
async fn soft_file_limit_is_raised_and_the_default_connection_limit_follows_it() {
    let mut world = World::city().build();
    let command = limited(&world, "4096");
    world.start_process_as(|_| command).await;
    let metrics = world.metrics().await;
    assert_eq!(metrics.value("process_max_fds", &[]), Some(4096.0));
    assert!(world.log_of_process().contains("1792"), "{}", world.log_of_process());
    assert!(is_served(&world.client("traffic-police")).await);
    world.close().await;
}

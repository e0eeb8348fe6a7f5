//! Retries: off by default, only for requests that may be repeated, within the retry budget. All books count one
//! command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{ANY_PORT, Plan, READ, RETRIES, World, request, whole};

/// Starts a server that reads a request, writes these bytes and closes. Returns the number of requests it read.
async fn hangs_up_after(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if stream.read(&mut [0; 16 * 1024]).await.is_ok_and(|bytes| bytes > 0) {
                counted.fetch_add(1, Ordering::AcqRel);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    (address, count)
}

/// Returns a city whose cameras have that server and their usual server, in turn (round robin).
pub fn in_turn_with(bad: SocketAddr, retries: Value) -> Plan {
    World::city().edit(|document| {
        let good = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("http://{bad}") }, good]);
        document["subsystems"][0]["balance"] = json!("roundRobin");
        document["subsystems"][0]["retries"] = retries;
    })
}

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn repeatable_command_survives_a_broken_connection_and_counts_once() {
    for (answer, retries) in
        [("", json!({ "budgetPercent": 100 })), (UNAVAILABLE, json!({ "budgetPercent": 100, "on": [503] }))]
    {
        let (bad, met) = hangs_up_after(answer).await;
        let world = in_turn_with(bad, retries).start().await;
        for client in world.clients("traffic-police") {
            for n in 0..10 {
                assert_eq!(client.get(READ).await.status, 200, "command {n} after {answer:?}");
            }
        }
        let met = met.load(Ordering::Acquire);
        assert!((1..20).contains(&met), "the failing server received {met} of 20 commands");
        assert_eq!(world.server("cameras").log.all().len(), 20);
        let metrics = world.metrics().await;
        assert_eq!(metrics.sum(RETRIES), i64::try_from(met).unwrap());
        assert_eq!(metrics.sum("tallygate_upstream_attempts_total"), i64::try_from(20 + met).unwrap());
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 20);
        assert_eq!(usage.commands().values().sum::<u64>(), 20, "twenty commands, whatever the number of attempts");
    }
}

#[tokio::test]
async fn non_repeatable_commands_are_sent_once() {
    let (bad, met) = hangs_up_after("").await;
    let world = in_turn_with(bad, json!({ "attempts": 3, "budgetPercent": 100 })).start().await;
    let client = world.client("traffic-police");
    let mut statuses = Vec::new();
    for n in 0..8 {
        let (method, path) = if n < 4 { ("POST", "/cameras/v1/snapshots") } else { ("PUT", "/cameras/do/put") };
        statuses.push(client.send(request(method, path, whole("a body"))).await.status.as_u16());
    }
    let failed = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!((failed, met.load(Ordering::Acquire)), (4, 4), "{statuses:?}");
    assert_eq!(world.metrics().await.sum(RETRIES), 0);
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "upstream_failed")), (4, 4));
}

#[tokio::test]
async fn nothing_is_retried_without_configuration_and_statuses_only_if_named() {
    for retries in [Value::Null, json!({ "budgetPercent": 100, "on": [502] })] {
        let (bad, _) = hangs_up_after(UNAVAILABLE).await;
        let plan = in_turn_with(bad, retries).edit(|document| {
            document["subsystems"][0].as_object_mut().unwrap().retain(|_, value| !value.is_null());
        });
        let mut world = plan.start().await;
        let client = world.client("traffic-police");
        for _ in 0..4 {
            client.get(READ).await;
        }
        assert_eq!(world.metrics().await.sum(RETRIES), 0);
        world.note_foreign_server();
        let usage = world.close().await;
        assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "server_error")), (2, 2));
    }
}

#[tokio::test]
async fn retry_budget_ends_retries_when_all_attempts_fail() {
    let (bad, met) = hangs_up_after("").await;
    let world = World::city().cameras_at(bad).edit(|document| {
        document["subsystems"][0]["retries"] = json!({ "attempts": 3 });
    });
    let mut world = world.start().await;
    let client = world.client("traffic-police").h2();
    for _ in 0..100 {
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("upstream_failed"));
    }
    let met = met.load(Ordering::Acquire);
    assert!(
        (100 + 10..=100 + 23).contains(&met),
        "{met}: a fifth of the commands, and the initial retry budget of a worker"
    );
    assert_eq!(world.metrics().await.sum(RETRIES), i64::try_from(met - 100).unwrap());
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "upstream_failed"), 100);
}

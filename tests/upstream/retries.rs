//! Retries: off by default, only for requests that may be repeated, within the retry budget. All books count one
//! command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{
    ANY_PORT, EJECTED, Plan, READ, RETRIES, Server, World, empty, let_time_pass, request, reserve_address, whole,
};

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

const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const PAUSE: &str =
    "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn any_listed_error_status_is_retried_but_not_for_other_methods() {
    let (bad, met) = hangs_up_after(TOO_MANY).await;
    let mut world = in_turn_with(bad, json!({ "budgetPercent": 100, "on": [404, 429] })).start().await;
    let client = world.client("traffic-police");
    for n in 0..14 {
        assert_eq!(client.get(READ).await.status, 200, "command {n}");
    }
    let met_by_get = met.load(Ordering::Acquire);
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum(RETRIES), metrics.sum(EJECTED)), (i64::try_from(met_by_get).unwrap(), 0));
    assert!(met_by_get >= 6, "a server that sends 429 is not ejected: {met_by_get} of 14");
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.send(request("POST", "/cameras/do/post", empty())).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 429, 429], "the response to a POST is forwarded unchanged");
    assert_eq!(world.metrics().await.sum(RETRIES), i64::try_from(met_by_get).unwrap());
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "client_error")), (16, 2));
}

#[tokio::test]
async fn server_that_requests_a_pause_gets_no_retry() {
    let (bad, _) = hangs_up_after(PAUSE).await;
    let mut world = with_retries(bad, json!({ "budgetPercent": 100, "on": [429] })).start().await;
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "1"));
    assert_eq!(world.metrics().await.sum(RETRIES), 0);
    world.note_foreign_server();
    assert_eq!(world.close().await.of("traffic-police", "client_error"), 1);
}

fn with_retries(address: SocketAddr, retries: Value) -> Plan {
    World::city().cameras_at(address).edit(|document| document["subsystems"][0]["retries"] = retries)
}

#[tokio::test]
async fn connection_failure_is_retried_if_listed_and_stays_unreachable() {
    for (on, retries) in [(json!([]), 0), (json!([503]), 0), (json!(["connect-failure", 503]), 2)] {
        let plan = with_retries(reserve_address(), json!({ "attempts": 2, "budgetPercent": 100, "on": on.clone() }));
        let world = plan.start().await;
        let client = world.client("traffic-police");
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("unreachable"), "{on}");
        assert_eq!(world.metrics().await.sum(RETRIES), retries, "{on}");
        let reply = client.send(request("POST", "/cameras/v1/snapshots", whole("a body"))).await;
        assert_eq!(reply.problem().as_deref(), Some("unreachable"), "{on}");
        let metrics = world.metrics().await;
        assert_eq!((metrics.sum(RETRIES), metrics.sum("tallygate_command_units_total")), (retries, 0), "{on}");
        assert_eq!(world.close().await.of("traffic-police", "unreachable"), 2, "{on}");
    }
}

#[tokio::test]
async fn backoff_gives_a_server_time_to_come_back() {
    let address = reserve_address();
    let retries = json!({ "attempts": 3, "budgetPercent": 100, "on": ["connect-failure"], "backoff": "300ms" });
    let mut world = with_retries(address, retries).start().await;
    let client = world.client("traffic-police");
    let waiting = tokio::spawn(async move { client.get(READ).await.status });
    let_time_pass(Duration::from_millis(400)).await;
    world.add_server("cameras-2", Server::start_at(address));
    assert_eq!(waiting.await.unwrap(), 200);
    assert!((1..=3).contains(&world.metrics().await.sum(RETRIES)));
    assert_eq!(world.close().await.of("traffic-police", "ok"), 1);
}

#[tokio::test]
async fn backoff_delays_each_retry_but_not_beyond_the_request_timeout() {
    for (backoff, request_timeout, sent) in [("200ms", "20s", 3), ("5s", "1s", 1)] {
        let (bad, met) = hangs_up_after("").await;
        let plan = with_retries(bad, json!({ "attempts": 2, "budgetPercent": 100, "backoff": backoff }));
        let plan = plan.edit(|document| document["subsystems"][0]["timeouts"]["request"] = json!(request_timeout));
        let mut world = plan.start().await;
        let begun = Instant::now();
        let reply = world.client("traffic-police").get(READ).await;
        assert_eq!(reply.problem().as_deref(), Some("upstream_failed"), "{backoff}");
        assert_eq!(met.load(Ordering::Acquire), sent, "{backoff}");
        let waited = if sent == 3 { Duration::from_millis(2 * 180) } else { Duration::ZERO };
        assert!((waited..waited + Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        world.note_foreign_server();
        assert_eq!(world.close().await.of("traffic-police", "upstream_failed"), 1);
    }
}

//! The request timeout of a whole command, and the attempt timeout of one attempt. A command ends once, as `timeout`,
//! wherever its time runs out. Neither timeout lets a caller get a healthy server ejected.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::world::{
    ANY_PORT, ATTEMPTS, EJECTED, Plan, READ, RETRIES, SUBMIT, World, empty, fed, let_time_pass, pause_as_slow_client,
    request, whole,
};

use super::http2_retries::never_answers;
use super::retries::in_turn_with;

/// More failures than an ejection needs (`FAILURES_MAX` in `proxy/upstream/endpoint/health`).
const TIMES: u64 = 6;

/// Adds timeouts to those of the cameras.
fn with_timeouts(plan: Plan, timeouts: Value) -> Plan {
    plan.edit(|document| {
        for (key, value) in timeouts.as_object().unwrap() {
            document["subsystems"][0]["timeouts"][key] = value.clone();
        }
    })
}

/// Starts a server that reads requests and never responds. Returns the number of requests it read.
async fn silent_server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                while stream.read(&mut [0; 16 * 1024]).await.is_ok_and(|bytes| bytes > 0) {
                    counted.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn command_without_a_response_ends_at_the_request_timeout() {
    let world = with_timeouts(World::city(), json!({ "request": "200ms" })).start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..TIMES {
            let begun = Instant::now();
            let reply = client.get("/cameras/do/never").await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")));
            assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        }
    }
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum(EJECTED), metrics.sum("tallygate_upstream_failures_total")), (0, 0));
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 2 * TIMES);
}

#[tokio::test]
async fn response_is_cut_off_when_its_command_or_its_attempt_is_over() {
    for timeout in ["request", "attempt"] {
        let world = with_timeouts(World::city(), json!({ timeout: "300ms" })).start().await;
        for client in world.clients("traffic-police") {
            let mut stream = client.open(request("GET", "/cameras/do/hold-for-ever", empty())).await.unwrap();
            assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
            assert!(stream.read_to_end().await.is_err(), "{timeout}: a response that is cut off looks incomplete");
        }
        assert_eq!(world.metrics().await.sum(EJECTED), 0);
        assert_eq!(world.close().await.of("traffic-police", "timeout"), 2, "{timeout}");
    }
}

/// The deadline holds although a frame is available at every poll.
#[tokio::test]
async fn response_that_never_pauses_is_cut_off_too() {
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 16 * 1024]).await;
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let chunk = format!("400\r\n{}\r\n", "z".repeat(0x400));
            let mut next = stream.write_all(head.as_bytes()).await;
            while next.is_ok() {
                next = stream.write_all(chunk.as_bytes()).await;
            }
        }
    });
    let mut world = with_timeouts(World::city().cameras_at(address), json!({ "request": "200ms" })).start().await;
    for client in world.clients("traffic-police") {
        let mut stream = client.open(request("GET", READ, empty())).await.unwrap();
        assert!(stream.read_to_end().await.is_err());
    }
    world.note_foreign_server();
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 2);
}

#[tokio::test]
async fn slow_upload_counts_in_the_request_timeout() {
    let world = with_timeouts(World::city(), json!({ "request": "300ms" })).start().await;
    for client in world.clients("traffic-police") {
        for _ in 0..TIMES {
            let (feed, body) = fed();
            feed.send(Ok("half".into())).unwrap();
            let reply = client.send(request("POST", SUBMIT, body)).await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")));
            drop(feed);
        }
    }
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum(EJECTED), metrics.sum("tallygate_upstream_failures_total")), (0, 0));
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 2 * TIMES);
}

/// A server is not blamed for an attempt that its caller's upload has used up.
#[tokio::test]
async fn slow_upload_that_exceeds_the_attempt_timeout_is_no_failure_of_a_server() {
    let world = with_timeouts(World::city(), json!({ "attempt": "300ms" })).start().await;
    let client = world.client("traffic-police");
    for n in 0..2 * TIMES {
        let (feed, body) = fed();
        feed.send(Ok("half".into())).unwrap();
        let answer = client.send(request("POST", SUBMIT, body));
        let rest = async {
            pause_as_slow_client(Duration::from_millis(200)).await;
            if n % 2 == 0 {
                let _ = feed.send(Ok("more".into()));
            }
        };
        let (reply, ()) = tokio::join!(answer, rest);
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")));
    }
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum(EJECTED), metrics.sum("tallygate_upstream_failures_total")), (0, 0));
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 2 * TIMES);
}

#[tokio::test]
async fn command_may_have_a_request_timeout_of_its_own_or_none() {
    let plan = with_timeouts(World::city(), json!({ "request": "200ms" }));
    let plan = plan.edit(|document| document["subsystems"][0]["commands"][2]["timeouts"] = json!({ "request": "0s" }));
    let world = plan.start().await;
    let client = world.client("traffic-police");
    let held = tokio::spawn(async move { client.get("/cameras/do/wait-held").await.status });
    let_time_pass(Duration::from_millis(500)).await;
    world.server("cameras").release("held");
    assert_eq!(held.await.unwrap(), 200);
    assert_eq!(world.close().await.of("traffic-police", "ok"), 1);

    let plan = World::city();
    let plan =
        plan.edit(|document| document["subsystems"][0]["commands"][2]["timeouts"] = json!({ "request": "200ms" }));
    let world = plan.start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/do/never").await.problem().as_deref(), Some("timeout"));
    assert_eq!(client.get(READ).await.status, 200);
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "timeout"), usage.of("traffic-police", "ok")), (1, 1));
}

/// The smaller of the caller's deadline and the request timeout ends a call, and the subsystem gets it as the deadline
/// if the caller set one.
#[tokio::test]
async fn grpc_call_exceeds_its_deadline_at_the_request_timeout() {
    let world = with_timeouts(World::city(), json!({ "request": "300ms" })).start().await;
    let client = world.client("traffic-police").h2();
    for (asked, sent) in [(None, ""), (Some("1H"), "300m"), (Some("200m"), "200m")] {
        let mut call = request("POST", "/cameras/do/never", empty());
        call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        if let Some(asked) = asked {
            call.headers_mut().insert("grpc-timeout", asked.parse().unwrap());
        }
        let reply = client.send(call).await;
        assert_eq!((reply.header("grpc-status"), reply.problem().as_deref()), ("4", Some("timeout")), "{asked:?}");
        assert_eq!(world.server("cameras").log.all().last().unwrap().header("grpc-timeout"), sent, "{asked:?}");
    }
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 3);
}

/// A server that accepts connections and never finishes a TLS handshake.
#[tokio::test]
async fn request_timeout_bounds_the_connection_to_a_server_and_is_free_of_charge() {
    let (silent, _) = silent_server().await;
    let plan = World::city().edit(|document| {
        document["subsystems"][0]["upstreams"] = json!([{ "url": format!("https://{silent}") }]);
        document["subsystems"][0]["tls"] = json!({ "authorities": ["pki/ca.pem"] });
    });
    let world = with_timeouts(plan, json!({ "connect": "30s", "request": "200ms" })).start().await;
    for client in world.clients("traffic-police") {
        assert_eq!(client.get(READ).await.problem().as_deref(), Some("timeout"));
    }
    let metrics = world.metrics().await;
    assert_eq!((metrics.sum("tallygate_command_units_total"), metrics.sum(EJECTED)), (0, 0));
    assert_eq!(world.close().await.of("traffic-police", "timeout"), 2);
}

#[tokio::test]
async fn attempt_that_exceeds_its_timeout_is_retried_elsewhere() {
    for is_http2 in [false, true] {
        let (bad, met) = if is_http2 { never_answers(|_| Vec::new()).await } else { silent_server().await };
        let plan = in_turn_with(bad, json!({ "budgetPercent": 100 }));
        let plan = if is_http2 { plan.http2_cameras() } else { plan };
        let world = with_timeouts(plan, json!({ "attempt": "300ms" })).start().await;
        let client = world.client("traffic-police");
        for n in 0..6 {
            assert_eq!(client.get(READ).await.status, 200, "command {n}, http2: {is_http2}");
        }
        let met = met.load(Ordering::Acquire);
        assert!((1..=6).contains(&met), "the silent server received {met} of 6 commands");
        let metrics = world.metrics().await;
        assert_eq!(metrics.sum(RETRIES), i64::try_from(met).unwrap());
        assert_eq!(metrics.sum(ATTEMPTS), i64::try_from(6 + met).unwrap());
        assert!(metrics.sum("tallygate_upstream_failures_total") > 0, "a silent server has failed");
        let usage = world.close().await;
        assert_eq!(usage.of("traffic-police", "ok"), 6);
        assert_eq!(usage.commands().values().sum::<u64>(), 6, "six commands, whatever the number of attempts");
    }
}

#[tokio::test]
async fn attempt_that_may_not_be_retried_is_a_timeout() {
    let (silent, met) = silent_server().await;
    for (retries, method) in [(Value::Null, "GET"), (json!({ "attempts": 3, "on": [504] }), "POST")] {
        let plan = World::city().cameras_at(silent).edit(|document| {
            if !retries.is_null() {
                document["subsystems"][0]["retries"] = retries.clone();
            }
        });
        let mut world = with_timeouts(plan, json!({ "attempt": "200ms" })).start().await;
        let client = world.client("traffic-police");
        let before = met.load(Ordering::Acquire);
        let body = if method == "POST" { whole("a body") } else { empty() };
        let path = if method == "POST" { SUBMIT } else { READ };
        let reply = client.send(request(method, path, body)).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")), "{method}");
        let metrics = world.metrics().await;
        assert_eq!((metrics.sum(ATTEMPTS), metrics.sum(RETRIES)), (1, 0), "{method}");
        assert!(met.load(Ordering::Acquire) > before);
        world.note_foreign_server();
        assert_eq!(world.close().await.of("traffic-police", "timeout"), 1);
    }
}

#[tokio::test]
async fn request_timeout_ends_all_attempts() {
    let (silent, _) = silent_server().await;
    let plan = World::city().cameras_at(silent).edit(|document| {
        document["subsystems"][0]["retries"] = json!({ "attempts": 10, "budgetPercent": 100 });
    });
    let mut world = with_timeouts(plan, json!({ "attempt": "200ms", "request": "500ms" })).start().await;
    let begun = Instant::now();
    let reply = world.client("traffic-police").get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (504, Some("timeout")));
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    let metrics = world.metrics().await;
    assert!((1..=2).contains(&metrics.sum(RETRIES)), "{} retries", metrics.sum(RETRIES));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "timeout"), usage.commands().values().sum::<u64>()), (1, 1));
}

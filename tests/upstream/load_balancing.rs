//! Load balancing: the choice of a server (sticky routing by header and by cookie, slow start), and the queue in which commands wait
//! while all servers are at their concurrency limit. A server that signals overload (429, 503) is neither ejected nor
//! asked again.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::world::{IN_FLIGHT, Plan, QUEUED, Server, World, empty, request, until};

const READ: &str = "/cameras/v1/snapshots";

/// Returns a city whose cameras accept one command at a time, with this queue.
fn one_at_a_time(queue: Value) -> Plan {
    World::city().edit(|document| {
        document["subsystems"][0]["upstreams"][0]["maxRequests"] = json!(1);
        document["subsystems"][0]["queue"] = queue;
    })
}

/// Returns a city whose cameras have two servers.
fn two_servers(change: impl FnOnce(&mut Value)) -> (Plan, Server) {
    let second = Server::start();
    let address = second.address;
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([first, { "url": format!("http://{address}") }]);
        change(&mut document["subsystems"][0]);
    });
    (plan, second)
}

/// Sends a command that waits for `release(name)`.
fn begin(world: &World, name: &str) -> tokio::task::JoinHandle<u16> {
    let client = world.client("traffic-police");
    let path = format!("/cameras/do/wait-{name}");
    tokio::spawn(async move { client.get(&path).await.status.as_u16() })
}

async fn until_received(world: &World, count: usize) {
    let what = format!("{count} commands have reached their servers");
    let servers = ["cameras", "cameras-2"];
    let received = || {
        servers.iter().filter_map(|name| world.server_if_any(name)).map(|server| server.log.all().len()).sum::<usize>()
    };
    until(&what, async || (received() == count).then_some(())).await;
}

async fn until_queued(world: &World, count: i64) {
    let what = format!("{count} commands wait for a server");
    until(&what, async || (world.metrics().await.sum(QUEUED) == count).then_some(())).await;
}

#[tokio::test]
async fn commands_wait_for_a_server_in_order_of_arrival() {
    let world = one_at_a_time(json!({ "length": 10, "timeout": "30s" })).start().await;
    let first = begin(&world, "first");
    until_received(&world, 1).await;
    let mut waiting = Vec::new();
    for n in 1..=5 {
        let client = world.client(if n % 2 == 0 { "logistics" } else { "traffic-police" });
        waiting.push(tokio::spawn(async move { client.get(&format!("{READ}/{n}")).await.status.as_u16() }));
        until_queued(&world, n).await;
    }
    assert_eq!(world.server("cameras").log.all().len(), 1, "the others are queued in the gateway");
    assert_eq!(world.metrics().await.sum(IN_FLIGHT), 6, "queued commands are admitted");
    world.server("cameras").release("first");
    assert_eq!(first.await.unwrap(), 200);
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 200);
    }
    let paths: Vec<_> = world.server("cameras").log.all().into_iter().map(|received| received.path).collect();
    let expected: Vec<_> =
        std::iter::once("/do/wait-first".to_owned()).chain((1..=5).map(|n| format!("/v1/snapshots/{n}"))).collect();
    assert_eq!(paths, expected);
    assert_eq!(world.metrics().await.sum(QUEUED), 0);
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok") + usage.of("logistics", "ok"), 6);
}

#[tokio::test]
async fn queue_timeout_is_counted_once_and_has_retry_after() {
    let world = one_at_a_time(json!({ "length": 1, "timeout": "500ms" })).start().await;
    let first = begin(&world, "first");
    until_received(&world, 1).await;
    let client = world.client("traffic-police");
    let reply = client.get(&format!("{READ}/1")).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (503, Some("unreachable")));
    assert_eq!(reply.header("retry-after"), "1");
    let failures = "tallygate_queue_failures_total";
    assert_eq!(world.metrics().await.value(failures, &[("reason", "timeout")]), Some(1.0));
    world.server("cameras").release("first");
    assert_eq!(first.await.unwrap(), 200);
    assert_eq!(client.get(&format!("{READ}/2")).await.status, 200, "the place in the queue is free again");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unreachable")), (2, 1));
}

#[tokio::test]
async fn commands_do_not_wait_without_a_queue() {
    let (plan, second) = two_servers(|cameras| {
        cameras["upstreams"][0]["maxRequests"] = json!(1);
        cameras["upstreams"][1]["maxRequests"] = json!(2);
    });
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    let begun: Vec<_> = (0..3).map(|_| begin(&world, "all")).collect();
    until_received(&world, 3).await;
    assert_eq!([world.server("cameras"), world.server("cameras-2")].map(|server| server.log.all().len()), [1, 2]);
    for client in world.clients("traffic-police") {
        let reply = client.get(&format!("{READ}/1")).await;
        assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (503, Some("unreachable")));
    }
    let full = world.metrics().await.value("tallygate_queue_failures_total", &[("reason", "full")]);
    assert_eq!(full, Some(2.0));
    world.server("cameras").release("all");
    world.server("cameras-2").release("all");
    for begun in begun {
        assert_eq!(begun.await.unwrap(), 200);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "unreachable")), (3, 2));
}

#[tokio::test]
async fn caller_that_leaves_the_queue_blocks_no_other() {
    let world = one_at_a_time(json!({ "length": 10, "timeout": "30s" })).start().await;
    let first = begin(&world, "first");
    until_received(&world, 1).await;
    let client = world.client("traffic-police").h2();
    let leaver = tokio::spawn(async move { client.send(request("GET", "/cameras/v1/snapshots/9", empty())).await });
    until_queued(&world, 1).await;
    let client = world.client("traffic-police");
    let next = tokio::spawn(async move { client.get("/cameras/v1/snapshots/2").await.status.as_u16() });
    until_queued(&world, 2).await;
    leaver.abort();
    until_queued(&world, 1).await;
    world.server("cameras").release("first");
    assert_eq!((first.await.unwrap(), next.await.unwrap()), (200, 200));
    assert_eq!(world.server("cameras").log.all().len(), 2, "the cancelled command was not sent");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "aborted")), (2, 1));
}

#[tokio::test]
async fn equal_header_values_are_sent_to_one_server() {
    let (plan, second) = two_servers(|cameras| cameras["balance"] = json!({ "hash": { "header": "X-Camera" } }));
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    let clients = [world.client("traffic-police"), world.client("logistics").h2()];
    for n in 0..60 {
        let mut request = request("GET", &format!("{READ}/1"), empty());
        request.headers_mut().insert("x-camera", format!("camera-{}", n % 20).parse().unwrap());
        assert_eq!(clients[n % 2].send(request).await.status, 200);
    }
    let mut servers: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, name) in ["cameras", "cameras-2"].into_iter().enumerate() {
        for received in world.server(name).log.all() {
            servers.entry(received.header("x-camera").to_owned()).or_default().push(index);
        }
    }
    assert!(servers.values().all(|where_to| where_to.len() == 3 && where_to.windows(2).all(|two| two[0] == two[1])));
    assert!((0..2).all(|index| servers.values().any(|where_to| where_to[0] == index)), "{servers:?}");
    world.close().await;
}

/// Sends a command in a session, or without one. Returns the cookie that the response sets, and the server's position.
async fn send_in_session(world: &World, cookie: Option<&str>) -> (Option<String>, usize) {
    let servers = ["cameras", "cameras-2"];
    let received = |name: &&str| world.server_if_any(name).map_or(0, |server| server.log.all().len());
    let before = servers.map(|name| received(&name));
    let mut request = request("GET", &format!("{READ}/1"), empty());
    if let Some(cookie) = cookie {
        request.headers_mut().insert("cookie", format!("a=1; {cookie}").parse().unwrap());
    }
    let reply = world.client("logistics").send(request).await;
    assert_eq!(reply.status, 200);
    let grown = servers.iter().zip(before).position(|(name, before)| received(name) > before).unwrap();
    (Some(reply.header("set-cookie").to_owned()).filter(|cookie| !cookie.is_empty()), grown)
}

#[tokio::test]
async fn session_of_a_cookie_stays_at_its_server_while_that_lives() {
    let cookie = json!({ "cookie": { "name": "route", "path": "/cameras", "maxAge": "1h", "sameSite": "Lax" } });
    let (plan, second) = two_servers(|cameras| cameras["balance"] = cookie);
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    let mut sessions = Vec::new();
    for _ in 0..24 {
        let (set, server) = send_in_session(&world, None).await;
        let set = set.expect("a session begins");
        let (session, attributes) = set.split_once(';').unwrap();
        let value = session.strip_prefix("route=").unwrap();
        assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
        assert_eq!(attributes, " Path=/cameras; Max-Age=3600; SameSite=Lax; HttpOnly; Secure");
        sessions.push((session.to_owned(), server));
    }
    assert!([0, 1].iter().all(|server| sessions.iter().any(|(_, at)| at == server)), "{sessions:?}");
    for (session, server) in &sessions {
        assert_eq!(send_in_session(&world, Some(session)).await, (None, *server), "{session}");
    }
    // A server is removed: its sessions go to the other one, and return with it.
    let address = world.server("cameras-2").address;
    let upstreams = |document: &mut Value, both: bool| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        let second = json!({ "url": format!("http://{address}") });
        document["subsystems"][0]["upstreams"] = if both { json!([first, second]) } else { json!([first]) };
    };
    world.reload(|document| upstreams(document, false)).await;
    for (session, _) in &sessions {
        assert_eq!(send_in_session(&world, Some(session)).await, (None, 0));
    }
    world.reload(|document| upstreams(document, true)).await;
    for (session, server) in &sessions {
        assert_eq!(send_in_session(&world, Some(session)).await, (None, *server), "{session}");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("logistics", "ok"), 4 * 24);
}

/// Writes the servers of `cameras` at these addresses.
fn write_upstreams(document: &mut Value, addresses: &[SocketAddr]) {
    let upstreams = addresses.iter().map(|address| json!({ "url": format!("http://{address}") }));
    document["subsystems"][0]["upstreams"] = upstreams.collect();
}

/// The session in a field that sets the cookie.
fn session_in(field: Option<String>) -> String {
    field.expect("the cookie is set").split_once(';').unwrap().0.to_owned()
}

#[tokio::test]
async fn persistent_session_stays_at_its_server_when_one_is_added() {
    let cookie = json!({ "cookie": { "name": "route", "mode": "persistent", "secret": "nobody guesses this" } });
    let mut world = World::city().edit(|document| document["subsystems"][0]["balance"] = cookie).start().await;
    let first = world.server("cameras").address;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let (set, server) = send_in_session(&world, None).await;
        let session = session_in(set);
        let value = session.strip_prefix("route=").unwrap();
        assert!(value.len() == 48 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
        assert_eq!(server, 0);
        sessions.push(session);
    }
    let tails: HashSet<&str> = sessions.iter().map(|session| &session[session.len() - 16..]).collect();
    assert_eq!(tails.len(), 20, "the values do not show that the server is the same");
    // A server is added: of the sessions of one server none moves. New ones go to both.
    let second = Server::start();
    let addresses = [first, second.address];
    world.add_server("cameras-2", second);
    world.reload(|document| write_upstreams(document, &addresses)).await;
    for session in &sessions {
        assert_eq!(send_in_session(&world, Some(session)).await, (None, 0), "{session}");
    }
    let mut moving = None;
    for _ in 0..20 {
        let (set, server) = send_in_session(&world, None).await;
        moving = Some(session_in(set)).filter(|_| server == 1).or(moving);
    }
    let moving = moving.expect("a new session at the added server");
    assert_eq!(send_in_session(&world, Some(&moving)).await, (None, 1));
    // Its server is removed: the session gets another one, at which it stays.
    world.reload(|document| write_upstreams(document, &addresses[..1])).await;
    let (set, server) = send_in_session(&world, Some(&moving)).await;
    let moved = session_in(set);
    assert!(server == 0 && moved != moving && moved.ends_with(moving.strip_prefix("route=").unwrap()), "{moved}");
    world.reload(|document| write_upstreams(document, &addresses)).await;
    assert_eq!(send_in_session(&world, Some(&moved)).await, (None, 0));
    // Values of other gateways with another secret, and any other values, begin a session.
    for foreign in ["route=7", "route=0123456789abcdef0123456789abcdef0123456789abcdef"] {
        assert!(send_in_session(&world, Some(foreign)).await.0.is_some(), "{foreign}");
    }
    let usage = world.close().await;
    assert_eq!(usage.of("logistics", "ok"), 20 + 20 + 20 + 1 + 1 + 1 + 2);
}

#[tokio::test]
async fn session_changes_on_failure_if_the_cookie_says_so() {
    for (keys, changes) in [
        (json!({ "name": "route" }), false),
        (json!({ "name": "route", "changeOnFailure": true }), true),
        (json!({ "name": "route", "mode": "persistent", "secret": "nobody guesses this" }), false),
        (
            json!({ "name": "route", "mode": "persistent", "secret": "nobody guesses this", "changeOnFailure": true }),
            true,
        ),
    ] {
        let cookie = json!({ "cookie": keys });
        let (plan, second) = two_servers(|cameras| cameras["balance"] = cookie.clone());
        let mut world = plan.start().await;
        let address = second.address;
        world.add_server("cameras-2", second);
        let mut sessions: [Option<String>; 2] = [None, None];
        while sessions.iter().any(Option::is_none) {
            let (set, server) = send_in_session(&world, None).await;
            sessions[server] = Some(session_in(set));
        }
        let [staying, failing] = sessions.map(Option::unwrap);
        world.note_foreign_server(); // its log ends with it
        drop(world.remove_server("cameras-2"));
        // The second server refuses connections: the command goes to the first one.
        let (set, server) = send_in_session(&world, Some(&failing)).await;
        assert_eq!((server, set.is_some()), (0, changes), "{cookie}");
        let moved = set.map_or_else(|| failing.clone(), |set| session_in(Some(set)));
        assert_eq!(moved != failing, changes, "{cookie}");
        assert_eq!(send_in_session(&world, Some(&staying)).await, (None, 0), "{cookie}");
        assert_eq!(send_in_session(&world, Some(&moved)).await, (None, 0), "{cookie}");
        // The server is back: only a session that has changed stays at the other one.
        world.add_server("cameras-2", Server::start_at(address));
        assert_eq!(send_in_session(&world, Some(&moved)).await, (None, usize::from(!changes)), "{cookie}");
        assert_eq!(send_in_session(&world, Some(&failing)).await, (None, 1), "{cookie}");
        world.close().await;
    }
}

#[tokio::test]
async fn broken_response_moves_a_session_if_the_cookie_says_so() {
    for changes in [false, true] {
        let cookie = json!({ "cookie": { "name": "route", "changeOnFailure": changes } });
        let (plan, second) = two_servers(|cameras| cameras["balance"] = cookie);
        let mut world = plan.start().await;
        world.add_server("cameras-2", second);
        let (set, first) = send_in_session(&world, None).await;
        let session = session_in(set);
        let mut cut = request("GET", "/cameras/do/cut", empty());
        cut.headers_mut().insert("cookie", session.parse().unwrap());
        let reply = world.client("traffic-police").send(cut).await;
        world.note_sent_again(1); // after the kept connection was lost
        assert_eq!(reply.status, 502);
        let set = Some(reply.header("set-cookie").to_owned()).filter(|field| !field.is_empty());
        assert_eq!(set.is_some(), changes);
        let session = set.map_or(session, |set| session_in(Some(set)));
        let expected = if changes { 1 - first } else { first };
        assert_eq!(send_in_session(&world, Some(&session)).await, (None, expected));
        let usage = world.close().await;
        assert_eq!((usage.of("logistics", "ok"), usage.of("traffic-police", "upstream_failed")), (2, 1));
    }
}

#[tokio::test]
async fn server_added_by_a_reload_starts_slowly() {
    let mut world = World::city().edit(|document| document["subsystems"][0]["slowStart"] = json!("1h")).start().await;
    let second = Server::start();
    let address = second.address;
    world.add_server("cameras-2", second);
    world
        .reload(|document| {
            let first = document["subsystems"][0]["upstreams"][0].clone();
            document["subsystems"][0]["upstreams"] = json!([first, { "url": format!("http://{address}") }]);
            document["subsystems"][0]["balance"] = json!("roundRobin");
        })
        .await;
    let client = world.client("traffic-police");
    for n in 0..200 {
        assert_eq!(client.get(&format!("{READ}/{n}")).await.status, 200);
    }
    let share = world.server("cameras-2").log.all().len();
    assert!((1..70).contains(&share), "{share} of 200 commands went to a server in slow start of an hour");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 200);
}

#[tokio::test]
async fn overloaded_subsystem_is_neither_ejected_nor_retried() {
    let (plan, second) = two_servers(|cameras| cameras["balance"] = json!("roundRobin"));
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    let client = world.client("traffic-police");
    for status in [429, 503] {
        for _ in 0..20 {
            let reply = client.get(&format!("/cameras/do/enough-{status}")).await;
            assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (status, "7"));
            assert_eq!(reply.text(), "enough", "the response is forwarded unchanged");
        }
    }
    assert_eq!(world.metrics().await.sum("tallygate_upstream_ejected"), 0);
    let received = ["cameras", "cameras-2"].map(|name| world.server(name).log.all().len());
    assert_eq!(received, [20, 20], "each command was sent once, and both servers stay healthy");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "client_error"), usage.of("traffic-police", "server_error")), (20, 20));
}

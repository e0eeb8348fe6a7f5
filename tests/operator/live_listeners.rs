//! Live listeners: a reload adds, removes, renames and changes listeners and the admin listener of a running gateway.
//! Commands on a listener that stays are not affected; those on one that goes may finish.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{ANY_PORT, Client, GATEWAY, READ, Seen, World, empty, request, reserve_address, until, within};

/// Adds a listener with the TLS settings of the first one.
fn add_listener(document: &mut Value, name: &str) {
    let mut listener = document["listeners"][0].clone();
    listener["name"] = json!(name);
    listener["address"] = json!(ANY_PORT.to_string());
    document["listeners"].as_array_mut().unwrap().push(listener);
}

fn remove_listener(document: &mut Value, name: &str) {
    document["listeners"].as_array_mut().unwrap().retain(|listener| listener["name"] != name);
}

/// Adds a listener of plain HTTP whose callers belong to the department `public`, which may read.
fn add_plain_listener(document: &mut Value) {
    let web = json!({ "name": "web", "protocol": "http", "address": ANY_PORT.to_string() });
    document["listeners"].as_array_mut().unwrap().push(web);
    let public = json!({ "id": "public", "callers": [{ "listener": "web" }] });
    document["departments"].as_array_mut().unwrap().push(public);
    let grant = json!({ "department": "public", "subsystem": "cameras", "commands": ["snapshot.read"] });
    document["grants"].as_array_mut().unwrap().push(grant);
}

fn address(world: &World, listener: &str) -> SocketAddr {
    world.running().listener(listener).unwrap_or_else(|| panic!("no listener {listener}"))
}

/// A caller of `department` at a listener.
fn client_at(world: &World, department: &str, listener: &str) -> Client {
    let credentials = world.credentials(Some(world.identity(department).clone()));
    Client::new(department, &credentials, address(world, listener), &world.log)
}

/// A caller over HTTP/1.1 and one over HTTP/2.
fn clients_at(world: &World, listener: &str) -> [Client; 2] {
    let client = || client_at(world, "traffic-police", listener);
    [client(), client().h2()]
}

async fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

/// The status of a read over plain HTTP; 0 if the connection is closed without a response.
async fn plain_status(address: SocketAddr, header: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{header}GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    let _ = within("the end of the connection", stream.read_to_string(&mut response)).await;
    response.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The inode of the listening socket at an address (`/proc/net/tcp`, proc(5)).
fn socket_inode(address: SocketAddr) -> String {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = format!(":{:04X}", address.port());
    let listening = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut listening = listening.filter(|fields| fields[1].ends_with(&port) && fields[3] == "0A");
    listening.next().unwrap_or_else(|| panic!("nothing listens on {address}"))[9].to_owned()
}

async fn shown(world: &World, part: &str) -> Value {
    let config: Value = serde_json::from_str(&world.admin("/config").await.1).expect("JSON");
    config[part].clone()
}

#[tokio::test]
async fn new_listener_serves_once_the_reload_is_live() {
    let mut world = World::city().start().await;
    let first = address(&world, "departments");
    let kept = clients_at(&world, "departments");
    for client in &kept {
        assert_eq!(client.get(READ).await.status, 200);
    }
    let mut changes = world.running().live_listeners().subscribe();
    world.reload(|document| add_listener(document, "second")).await;
    assert!(changes.has_changed().unwrap(), "the change is announced");
    let live: Vec<_> = changes.borrow_and_update().listeners.iter().map(|live| live.name.to_string()).collect();
    assert_eq!(live, ["departments", "second"]);
    for client in clients_at(&world, "second") {
        assert_eq!(client.get(READ).await.status, 200);
    }
    assert_eq!(address(&world, "departments"), first, "port 0 keeps the port that was assigned");
    let accepted = world.metrics().await.sum("tallygate_connections_accepted_total");
    for client in &kept {
        assert_eq!(client.get(READ).await.status, 200);
    }
    assert_eq!(
        world.metrics().await.sum("tallygate_connections_accepted_total"),
        accepted,
        "no connection was dropped"
    );
    let changes = shown(&world, "changes").await;
    assert_eq!(changes["listeners"], json!({ "added": { "count": 1, "names": ["second"] } }));
    assert_eq!(shown(&world, "restart_needed").await, json!([]));
    world.close().await;
}

#[tokio::test]
async fn plain_listener_comes_and_goes_with_the_department_of_its_callers() {
    let mut world = World::city().start().await;
    world.reload(add_plain_listener).await;
    let web = address(&world, "web");
    assert_eq!(plain_status(web, "").await, 200);
    world.log.note("public", Seen::Outcome("ok"));
    world
        .reload(|document| {
            remove_listener(document, "web");
            document["departments"].as_array_mut().unwrap().pop();
            document["grants"].as_array_mut().unwrap().pop();
        })
        .await;
    assert!(is_closed(web).await);
    assert!(world.running().listener("web").is_none());
    world.close().await;
}

#[tokio::test]
async fn address_that_cannot_be_bound_rejects_the_whole_reload() {
    let mut world = World::city().start().await;
    let version = world.version_on_disk();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (free, taken) = (reserve_address(), holder.local_addr().unwrap());
    world.write(|document| {
        add_listener(document, "second");
        document["listeners"][1]["address"] = json!(free.to_string());
        add_listener(document, "third");
        document["listeners"][2]["address"] = json!(taken.to_string());
        document["grants"] = json!([]);
    });
    let problems = world.running().reload().expect_err("an address is in use");
    let [problem] = problems.0.as_slice() else { panic!("{problems}") };
    assert_eq!(problem.path, "listeners[2].address");
    assert!(problem.message.starts_with(&format!("cannot listen on {taken}: ")), "{problem}");
    assert!(problem.hint.as_ref().unwrap().contains("the port is in use"), "{problem}");
    let site = problem.site.as_ref().expect("a place");
    assert!(site.file.ends_with("gateway.yaml") && site.line.is_some(), "{site:?}");
    assert!(is_closed(free).await, "the other socket is closed again");
    assert_eq!(world.running().listeners().len(), 1);
    assert_eq!(shown(&world, "live").await["version"], json!(version));
    assert_eq!(shown(&world, "rejected").await["problems"][0]["path"], "listeners[2].address");
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "the old configuration stays live");

    drop(holder);
    world.reload(|_| ()).await;
    assert_eq!((address(&world, "second"), address(&world, "third")), (free, taken));
    assert_eq!(world.client("traffic-police").get(READ).await.status, 403, "the new configuration is live");
    world.close().await;
}

#[tokio::test]
async fn address_that_overlaps_a_live_listener_is_a_problem_that_names_it() {
    let mut world = World::city().start().await;
    let port = address(&world, "departments").port();
    world.write(|document| document["listeners"][0]["address"] = json!(format!("0.0.0.0:{port}")));
    let problems = world.running().reload().expect_err("the port is in use");
    let hint = problems.0[0].hint.clone().unwrap();
    assert!(hint.starts_with("listener departments of this gateway uses the port"), "{hint}");
    world.reload(|document| document["listeners"][0]["address"] = json!(format!("127.0.0.1:{port}"))).await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn removed_listener_finishes_its_commands_and_refuses_connections() {
    let mut world = World::city().edit(|document| add_listener(document, "second")).start().await;
    let second = address(&world, "second");
    let (idle, busy, stays) = (clients_at(&world, "second"), clients_at(&world, "second"), world.client("logistics"));
    let mut streams = Vec::new();
    for (idle, busy) in idle.iter().zip(&busy) {
        assert_eq!(idle.get(READ).await.status, 200);
        let mut stream = busy.open(request("GET", "/cameras/do/hold-drain", empty())).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
        streams.push(stream);
    }
    assert_eq!(stays.get(READ).await.status, 200);
    world.reload(|document| remove_listener(document, "second")).await;
    assert!(is_closed(second).await, "the socket is closed once the reload is live");
    until("the idle connections are closed", async || {
        (world.metrics().await.sum("tallygate_connections_open") == 3).then_some(())
    })
    .await;
    for client in &idle {
        assert!(client.try_send(request("GET", READ, empty())).await.is_err(), "a new connection is refused");
    }
    let accepted = world.metrics().await.sum("tallygate_connections_accepted_total");
    assert_eq!(stays.get(READ).await.status, 200);
    assert_eq!(world.metrics().await.sum("tallygate_connections_accepted_total"), accepted, "other listeners go on");
    world.server("cameras").release("drain");
    for stream in streams {
        assert_eq!(stream.whole().await.text(), "first last");
    }
    until("the connections of the listener are closed", async || {
        (world.metrics().await.sum("tallygate_connections_open") == 1).then_some(())
    })
    .await;
    assert_eq!(shown(&world, "changes").await["listeners"]["removed"]["names"], json!(["second"]));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
}

#[tokio::test]
async fn command_of_a_removed_listener_over_the_grace_is_interrupted() {
    let short = |document: &mut Value| {
        document["shutdown"] = json!({ "delay": "1ms", "grace": "300ms" });
        add_listener(document, "second");
    };
    let mut world = World::city().edit(short).start().await;
    let mut held = Vec::new();
    for client in clients_at(&world, "second") {
        held.push(tokio::spawn(
            async move { client.try_send(request("GET", "/cameras/do/never", empty())).await.is_ok() },
        ));
    }
    let log = world.server("cameras").log.clone();
    until("the commands are in flight", async || (log.all().len() == 2).then_some(())).await;
    world.reload(|document| remove_listener(document, "second")).await;
    world.reload(|document| document["limits"] = json!({ "total": { "rate": "1000/s" } })).await;
    for held in held {
        assert!(!within("the connection is cut off", held).await.unwrap());
    }
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "the gateway goes on");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "interrupted"), usage.of("traffic-police", "ok")), (2, 1));
}

#[tokio::test]
async fn changed_name_or_protocol_keeps_the_socket_and_drains_the_connections() {
    let mut world = World::city().edit(add_plain_listener).start().await;
    let web = address(&world, "web");
    let inode = socket_inode(web);
    let mut idle = TcpStream::connect(web).await.unwrap();
    idle.write_all(format!("GET {READ} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n").as_bytes()).await.unwrap();
    assert_ne!(within("a response", idle.read(&mut [0; 12])).await.unwrap(), 0);
    world.log.note("public", Seen::Outcome("ok"));
    world
        .reload(|document| {
            document["listeners"][1]["name"] = json!("entry");
            document["listeners"][1]["address"] = json!(web.to_string());
            document["departments"][3]["callers"] = json!([{ "listener": "entry" }]);
        })
        .await;
    assert_eq!((socket_inode(web), address(&world, "entry")), (inode.clone(), web));
    let _ = within("the old connection is closed", idle.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(plain_status(web, "").await, 200);
    world.log.note("public", Seen::Outcome("ok"));
    assert_eq!(shown(&world, "changes").await["listeners"]["changed"], Value::Null);

    world
        .reload(|document| {
            document["listeners"][1]["protocol"] = json!("https");
            document["listeners"][1]["tls"] = document["listeners"][0]["tls"].clone();
            document["departments"].as_array_mut().unwrap().pop();
            document["grants"].as_array_mut().unwrap().pop();
        })
        .await;
    assert_eq!(socket_inode(web), inode);
    assert_eq!(client_at(&world, "traffic-police", "entry").get(READ).await.status, 200);
    let changes = shown(&world, "changes").await;
    assert_eq!(changes["listeners"]["changed"]["names"], json!(["entry (protocol)"]));
    world.close().await;
}

#[tokio::test]
async fn two_listeners_swap_their_addresses() {
    let mut world = World::city().edit(add_plain_listener).build();
    world.write(|document| document["listeners"][1]["address"] = json!(reserve_address().to_string()));
    world.start_here().await;
    let (secure, plain) = (address(&world, "departments"), address(&world, "web"));
    let inodes = (socket_inode(secure), socket_inode(plain));
    world
        .reload(|document| {
            document["listeners"][0]["address"] = json!(plain.to_string());
            document["listeners"][1]["address"] = json!(secure.to_string());
        })
        .await;
    assert_eq!((address(&world, "departments"), address(&world, "web")), (plain, secure));
    assert_eq!((socket_inode(secure), socket_inode(plain)), inodes, "no socket was closed");
    assert_eq!(plain_status(secure, "").await, 200);
    world.log.note("public", Seen::Outcome("ok"));
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn trusted_proxies_and_connection_limits_apply_to_new_connections() {
    let mut world = World::city().edit(add_plain_listener).start().await;
    let (web, inode) = (address(&world, "web"), socket_inode(address(&world, "web")));
    let kept = world.client("traffic-police");
    assert_eq!(kept.get(READ).await.status, 200);
    world
        .reload(|document| {
            document["listeners"][1]["proxyProtocol"] = json!(["127.0.0.1"]);
            document["listeners"][0]["connections"] = json!(1);
        })
        .await;
    assert_eq!(plain_status(web, "").await, 0, "a balancer must begin with a PROXY header");
    assert_eq!(plain_status(web, "PROXY TCP4 192.0.2.7 198.51.100.1 4660 80\r\n").await, 200);
    world.log.note("public", Seen::Outcome("ok"));
    assert_eq!(world.server("cameras").log.all()[1].header("x-forwarded-for"), "192.0.2.7");
    assert!(world.client("logistics").connect().await.is_err(), "the open connection has the only place");
    assert_eq!(kept.get(READ).await.status, 200);
    // The limit belongs to the name: another order does not move the open connection to another listener.
    world.reload(|document| document["listeners"].as_array_mut().unwrap().swap(0, 1)).await;
    let other = client_at(&world, "logistics", "departments");
    assert!(other.connect().await.is_err());
    assert_eq!(plain_status(web, "PROXY TCP4 192.0.2.8 198.51.100.1 4660 80\r\n").await, 200);
    world.log.note("public", Seen::Outcome("ok"));
    world
        .reload(|document| {
            document["listeners"].as_array_mut().unwrap().swap(0, 1);
            document["listeners"][0].as_object_mut().unwrap().remove("connections");
            document["listeners"][1]["proxyProtocol"] = json!([]);
        })
        .await;
    assert_eq!(other.get(READ).await.status, 200);
    assert_eq!(kept.get(READ).await.status, 200);
    assert_eq!(plain_status(web, "").await, 200);
    world.log.note("public", Seen::Outcome("ok"));
    assert_eq!(socket_inode(web), inode);
    world.close().await;
}

/// The status of `/config` at the admin listener for a `Host`.
async fn admin_status(address: SocketAddr, host: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /config HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = String::new();
    within("the end of the connection", stream.read_to_string(&mut response)).await.unwrap();
    response[9..12].parse().unwrap()
}

#[tokio::test]
async fn admin_listener_moves_goes_and_comes_back() {
    let mut world = World::city().start().await;
    let first = world.admin_address();
    assert_eq!(admin_status(first, "admin.city.example").await, 421);
    world.reload(|document| document["admin"]["hosts"] = json!(["admin.city.example"])).await;
    assert_eq!(world.admin_address(), first, "new hosts need no new socket");
    assert_eq!(admin_status(first, "admin.city.example").await, 200);

    let mut open = TcpStream::connect(first).await.unwrap();
    open.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_ne!(within("a response", open.read(&mut [0; 12])).await.unwrap(), 0);
    let second = reserve_address();
    world.reload(|document| document["admin"]["address"] = json!(second.to_string())).await;
    assert_eq!(world.admin_address(), second);
    assert!(is_closed(first).await);
    within("the idle connection is closed", open.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(shown(&world, "changes").await["admin"]["names"], json!(["admin.address"]));
    assert_eq!(shown(&world, "restart_needed").await, json!([]));

    let section = world.document["admin"].clone();
    world.write(|document| drop(document.as_object_mut().unwrap().remove("admin")));
    world.running().reload().unwrap();
    assert!(world.running().admin().is_none() && is_closed(second).await);
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.reload(|document| document["admin"] = section).await;
    assert_eq!(world.admin_address(), second);
    world.close().await;
}

#[tokio::test]
async fn fifty_reloads_under_load_fail_no_command_of_a_listener_that_stays() {
    let mut world = World::city().start().await;
    let is_over = AtomicBool::new(false);
    let (kept, fresh) = (clients_at(&world, "departments"), || clients_at(&world, "departments"));
    let mut new_connections = Vec::new();
    new_connections.extend((0..400).map(|_| fresh()));
    let load = async |clients: &[Client]| {
        let mut sent = 0_u64;
        for client in clients.iter().cycle() {
            if is_over.load(Ordering::Relaxed) {
                return sent;
            }
            assert_eq!(client.get(READ).await.status, 200);
            sent += 1;
        }
        sent
    };
    let flat: Vec<Client> = new_connections.into_iter().flatten().collect();
    let reloads = async {
        let mut through_second = 0;
        for round in 0..50 {
            let change = |document: &mut Value| match round % 2 {
                0 => add_listener(document, "second"),
                _ => remove_listener(document, "second"),
            };
            world.write(change);
            let reload = world.running().reload_handle();
            tokio::task::spawn_blocking(move || reload.request()).await.unwrap().expect("the reload is live");
            if round % 2 == 0 {
                for client in clients_at(&world, "second") {
                    assert_eq!(client.get(READ).await.status, 200);
                    through_second += 1;
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        through_second
    };
    let (reused, opened, through_second) = tokio::join!(load(&kept), load(&flat), reloads);
    assert!(reused > 50 && opened > 50, "{reused} and {opened} commands");
    drop((kept, flat));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), reused + opened + through_second);
    assert_eq!(usage.sum(|_| true), reused + opened + through_second, "no command failed");
}

#[tokio::test]
async fn reload_logs_its_listeners() {
    let mut world = World::city().start_process().await;
    world.write(|document| {
        add_listener(document, "second");
        document["admin"]["hosts"] = json!(["admin.city.example"]);
    });
    world.process().signal("HUP");
    let live = |world: &World, count: usize| {
        let log = world.log_of_process();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("configuration is live")).collect();
        lines.get(count - 1).map(|line| (*line).to_owned())
    };
    let line = until("the reload is in the log", async || live(&world, 1)).await;
    for part in ["changed_listeners=\"1 added: second\"", "changed_admin=\"admin.hosts\""] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(world.log_of_process().contains("listening listener=second address=127.0.0.1:"));
    world.write(|document| remove_listener(document, "second"));
    world.process().signal("HUP");
    let is_removal = |line: String| line.contains("changed_listeners=\"1 removed: second\"").then_some(());
    until("the removal is in the log", async || {
        let log = world.log_of_process();
        log.lines().rfind(|line| line.contains("changed_listeners")).map(str::to_owned).and_then(is_removal)
    })
    .await;
    assert!(world.log_of_process().contains("listener removed; its connections drain"));
    world.close().await;
}

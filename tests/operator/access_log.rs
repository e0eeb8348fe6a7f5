//! The access log: one line per command, whatever its outcome; rotation, full disks, readers that leave, reloads. The audit
//! of each test compares the lines with the ledger.

use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::disk_full::Space;
use crate::world::{
    ACCESS_LOG, Identity, Leaf, READ, SUBMIT, Usage, World, empty, fed, request, request_to, run, stderr, tool, until,
    whole,
};

const WRITTEN: &str = "tallygate_access_log_lines_written_total";
const DROPPED: &str = "tallygate_access_log_lines_dropped_total";
const LEFT_OUT: &str = "tallygate_access_log_lines_left_out_total";

/// The only line with this outcome.
fn line_of<'a>(lines: &'a [Value], outcome: &str) -> &'a Value {
    let found: Vec<_> = lines.iter().filter(|line| line["outcome"] == outcome).collect();
    assert_eq!(found.len(), 1, "lines with {outcome}: {lines:#?}");
    found[0]
}

/// Waits until this number of lines is written, and returns them.
async fn lines(world: &World, count: usize) -> Vec<Value> {
    until("the lines are written", async || Some(world.access_log()).filter(|lines| lines.len() >= count)).await
}

async fn dropped(world: &World, reason: &str) -> u64 {
    world.metrics().await.value(DROPPED, &[("reason", reason)]).expect("a sample") as u64
}

/// Returns the number of lines of the gateway's own log with this text.
fn logged(world: &World, text: &str) -> usize {
    world.log_of_process().lines().filter(|line| line.contains(text)).count()
}

const CANNOT_WRITE: &str = "the access log cannot be written";
const DROPS: &str = "lines of the access log are dropped";
const RECOVERED: &str = "the access log is written again";

#[tokio::test]
async fn line_of_a_command_has_its_facts_and_no_query() {
    let world = World::city().start().await;
    let reply = world.client("traffic-police").h2().get(&format!("{READ}?token=secret")).await;
    assert_eq!(reply.status, 200);
    let lines = lines(&world, 1).await;
    let line = &lines[0];
    for (key, value) in [
        ("request_id", json!(reply.header("x-request-id"))),
        ("outcome", json!("ok")),
        ("status", json!(200)),
        ("department", json!("traffic-police")),
        ("subsystem", json!("cameras")),
        ("command", json!("snapshot.read")),
        ("units", json!(1)),
        ("method", json!("GET")),
        ("path", json!(READ)),
        ("query", Value::Null),
        ("protocol", json!("HTTP/2")),
        ("tls", json!("TLSv1.3")),
        ("gateway", json!("tallygate")),
        ("listener", json!("departments")),
        ("client_address", json!("127.0.0.1")),
        ("peer_address", json!("127.0.0.1")),
        ("upstream", json!(world.server("cameras").address.to_string())),
        ("attempts", json!(1)),
        ("request_bytes", json!(0)),
        ("response_bytes", json!(reply.body.len())),
        ("reason", Value::Null),
        ("sample", json!(1)),
    ] {
        assert_eq!(line[key], value, "{key}: {line:#}");
    }
    assert!(!line.to_string().contains("secret"), "{line:#}");
    let time = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key}: {line:#}"));
    assert!(time("duration_us") >= time("gateway_us") + time("subsystem_us"), "{line:#}");
    assert!(time("subsystem_us") > 0 && time("duration_us") < 20_000_000, "{line:#}");
    assert!(line["caller"].as_str().unwrap().contains("traffic-police"), "{line:#}");
    world.close().await;
}

#[tokio::test]
async fn every_outcome_has_its_line_and_the_books_balance() {
    let mut world = World::city()
        .subsystem("lights")
        .grant("traffic-police", "lights", &["*"])
        .edit(|document| {
            document["subsystems"][0]["timeouts"]["response"] = json!("200ms");
            document["subsystems"][0]["commands"][0]["body"] = json!({ "max": "1KiB" });
            document["departments"][1]["limits"] = json!({ "rate": "1/h", "burst": 1 });
        })
        .start()
        .await;
    drop(world.remove_server("lights"));
    let stranger: Identity = world.pki.issue(&Leaf::department("stranger"));
    let police = world.client("traffic-police");
    for (path, status) in [
        (READ, 200),
        ("/cameras/do/status-404", 404),
        ("/cameras/do/status-500", 500),
        ("/cameras/do/never", 504),
        ("/lights/do/echo", 502),
        ("/nowhere", 404),
    ] {
        assert_eq!(police.get(path).await.status, status, "{path}");
    }
    assert_eq!(police.post("/cameras/do/cut", "a body").await.status, 502);
    assert_eq!(police.send(request_to("elsewhere.example", "GET", READ, empty())).await.status, 421);
    assert_eq!(police.post(SUBMIT, vec![0; 2000]).await.status, 413);
    assert_eq!(world.client("archive").get(READ).await.status, 403);
    assert_eq!(world.client("logistics").get(READ).await.status, 200);
    assert_eq!(world.client("logistics").get(READ).await.status, 429);
    assert_eq!(world.client_with("unknown", Some(stranger)).get(READ).await.status, 401);
    let malformed = request("GET", "/cameras/a/../b", empty());
    assert_eq!(world.client("traffic-police").send(malformed).await.status, 400);
    let (feed, body) = fed();
    let left = world.client("traffic-police").open(request("POST", "/cameras/do/echo", body)).await;
    drop(left); // before the end of its body
    let lines = lines(&world, 15).await;
    let facts = |outcome: &str| {
        let line = line_of(&lines, outcome);
        (line["status"].as_u64(), line["units"].as_u64(), line["attempts"].as_u64(), line["reason"].as_str())
    };
    assert_eq!(facts("client_error"), (Some(404), Some(3), Some(1), None));
    assert_eq!(facts("server_error"), (Some(500), Some(3), Some(1), None));
    let (status, units, attempts, reason) = facts("upstream_failed");
    assert_eq!((status, units, attempts), (Some(502), Some(3), Some(1)));
    assert!(reason.is_some(), "{lines:#?}");
    let (status, units, attempts, reason) = facts("timeout");
    assert_eq!((status, units, attempts), (Some(504), Some(3), Some(1)));
    assert!(reason.is_some(), "{lines:#?}");
    let (status, units, attempts, reason) = facts("unreachable");
    assert_eq!((status, units, attempts), (Some(502), Some(0), Some(0)));
    assert!(reason.is_some_and(|reason| reason.contains("refused")), "{reason:?}");
    assert!(line_of(&lines, "unreachable")["upstream"].as_str().is_some_and(|server| server.starts_with("127.0.0.1:")));
    assert_eq!(facts("unknown_command").0, Some(404));
    assert_eq!(line_of(&lines, "unknown_command")["path"], "/nowhere");
    assert_eq!(facts("misdirected").0, Some(421));
    assert_eq!(line_of(&lines, "misdirected")["host"], "elsewhere.example");
    assert_eq!(facts("too_large").0, Some(413));
    assert_eq!(
        facts("forbidden"),
        (
            Some(403),
            Some(0),
            None,
            Some("the department `archive` has no grant for the command `snapshot.read` of the subsystem `cameras`")
        )
    );
    assert_eq!(facts("rate_limited"), (Some(429), Some(0), None, Some("the rate limit is exceeded")));
    let limited = line_of(&lines, "rate_limited");
    assert_eq!((&limited["rate_limit"], &limited["rate_remaining"]), (&json!(1), &json!(0)), "{limited:#}");
    assert!(limited["retry_after_s"].as_u64().is_some_and(|seconds| (1..=3600).contains(&seconds)), "{limited:#}");
    assert_eq!(facts("unauthenticated").0, Some(401));
    assert_eq!(line_of(&lines, "unauthenticated")["department"], "unknown");
    assert!(line_of(&lines, "unauthenticated")["caller"].as_str().unwrap().contains("stranger"));
    assert_eq!(facts("malformed").0, Some(400));
    assert_eq!((facts("aborted").0, facts("aborted").1), (Some(200), Some(3)));
    drop(feed);
    assert_eq!(world.metrics().await.sum(WRITTEN), 15);
    world.close().await;
}

#[tokio::test]
async fn hostile_request_is_one_harmless_line() {
    let world = World::city().edit(|document| document["accessLog"]["query"] = json!(true)).start().await;
    let client = world.client("traffic-police");
    let long = format!("/cameras/v1/snapshots/{}", "x".repeat(3_000));
    let hostile = format!("{READ}%0a%22,outcome=ok");
    let _ = client.get(&format!("{hostile}?a=%0d&b=%22")).await; // refused or not, it has a line
    assert_eq!(client.get(&long).await.status, 200);
    let lines = lines(&world, 2).await;
    assert_eq!((&lines[0]["path"], &lines[0]["query"]), (&json!(hostile), &json!("a=%0d&b=%22")));
    let cut = lines[1]["path"].as_str().unwrap();
    assert_eq!(cut, format!("{}...[+{} bytes]", &long[..1024], long.len() - 1024));
    world.close().await;
}

#[tokio::test]
async fn sample_leaves_commands_out_and_the_counts_balance() {
    let mut world = World::city()
        .edit(|document| document["accessLog"]["sample"] = json!({ "ok": "1/4", "refused": "none" }))
        .start()
        .await;
    world.note_partial_access_log();
    let client = world.client("traffic-police").h2();
    let mut chosen = Vec::new();
    for _ in 0..60 {
        let id = client.get(READ).await.header("x-request-id").to_owned();
        if u64::from_str_radix(&id[16..], 16).unwrap().is_multiple_of(4) {
            chosen.push(id);
        }
    }
    assert_eq!(client.get("/cameras/do/status-500").await.status, 500);
    assert_eq!(world.client("archive").get(READ).await.status, 403);
    let lines = lines(&world, chosen.len() + 1).await;
    let ids: Vec<_> =
        lines.iter().filter(|line| line["outcome"] == "ok").map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, chosen);
    assert!(lines.iter().all(|line| line["sample"] == if line["outcome"] == "ok" { 4 } else { 1 }), "{lines:#?}");
    assert_eq!(line_of(&lines, "server_error")["status"], 500);
    until("all are counted", async || {
        let metrics = world.metrics().await;
        (metrics.sum(WRITTEN) + metrics.sum(LEFT_OUT) == 62).then_some(())
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn reload_switches_the_log_off_and_on_and_a_bad_output_keeps_the_old_one() {
    let mut world = World::city().start().await;
    world.note_partial_access_log();
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    world.write(|document| document["accessLog"] = json!({ "output": "no/access.log" }));
    let problems = world.running().reload().expect_err("the folder does not exist").to_string();
    assert!(problems.contains("accessLog.output") && problems.contains("create the folder"), "{problems}");
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(lines(&world, 2).await.len(), 2, "the old one goes on");
    world.reload(|document| drop(document.as_object_mut().unwrap().remove("accessLog"))).await;
    let status: Value = serde_json::from_str(&world.admin("/config").await.1).unwrap();
    assert_eq!(status["changes"]["access_log"]["names"], json!(["accessLog"]), "{status:#}");
    for _ in 0..5 {
        assert_eq!(client.get(READ).await.status, 200);
    }
    world.reload(|document| document["accessLog"] = json!({ "output": "second.log", "format": "logfmt" })).await;
    assert_eq!(client.get("/cameras/do/echo").await.status, 200);
    let second = world.folder().join("second.log");
    let line =
        until("the line is written", async || std::fs::read_to_string(&second).ok().filter(|text| !text.is_empty()));
    let line = line.await;
    assert!(
        line.starts_with("time=") && line.contains(" path=/cameras/do/echo ") && line.lines().count() == 1,
        "{line}"
    );
    assert_eq!(world.access_log().len(), 2, "nothing more in the first one");
    world.close().await;
}

#[tokio::test]
async fn rotation_under_traffic_loses_no_line() {
    let mut world = World::city().start_process().await;
    world.note_partial_access_log(); // compared below, over all files
    let client = world.client("traffic-police").h2();
    for round in 0..5 {
        let traffic = futures_util::future::join_all((0..40).map(|_| client.get(READ)));
        let (from, to) = (world.folder().join(ACCESS_LOG), world.folder().join(format!("access.log.{round}")));
        std::fs::rename(from, to).unwrap();
        world.process().signal("USR1");
        assert!(traffic.await.iter().all(|reply| reply.status == 200));
        until("the file is there again", async || world.folder().join(ACCESS_LOG).exists().then_some(())).await;
    }
    until("each signal is logged", async || (logged(&world, "the access log was opened again") == 5).then_some(()))
        .await;
    let text = |folder: &Path| {
        let names = (0..5).map(|round| format!("access.log.{round}")).chain([ACCESS_LOG.to_owned()]);
        names.map(|name| std::fs::read_to_string(folder.join(name)).unwrap()).collect::<String>()
    };
    let mut of_lines = Usage::default();
    let usage = world.close_into(|folder| of_lines = Usage::of_access_log(&text(folder))).await;
    assert_eq!(of_lines, usage);
    assert_eq!(usage.of("traffic-police", "ok"), 200);
}

/// Sends commands until lines are dropped for this reason. All of them are served.
async fn serve_until_dropped(world: &World, reason: &str) {
    let client = world.client("traffic-police").h2();
    until("lines are dropped and counted", async || {
        let replies = futures_util::future::join_all((0..50).map(|_| client.get(READ))).await;
        assert!(replies.iter().all(|reply| reply.status == 200), "traffic goes on");
        (dropped(world, reason).await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn full_disk_harms_no_traffic_and_the_log_has_one_line_each() {
    let mut world = World::city()
        .edit(|document| document["accessLog"] = json!({ "output": "log/access.log", "queue": { "lines": 20 } }))
        .build();
    world.note_partial_access_log();
    std::fs::create_dir(world.folder().join("log")).unwrap();
    let space = Space::mount(&world.folder().join("log")).await;
    world.start_process().await;
    space.fill();
    serve_until_dropped(&world, "disk_full").await;
    serve_until_dropped(&world, "disk_full").await;
    assert_eq!((logged(&world, CANNOT_WRITE), logged(&world, DROPS), logged(&world, RECOVERED)), (1, 1, 0));
    space.free();
    until("the log says that it has recovered", async || (logged(&world, RECOVERED) == 1).then_some(())).await;
    let client = world.client("traffic-police");
    assert_eq!(client.get("/cameras/do/echo").await.status, 200);
    let path = world.folder().join("log/access.log");
    let text = until("the line is written", async || {
        std::fs::read_to_string(&path).ok().filter(|text| text.contains("/cameras/do/echo"))
    })
    .await;
    let usage = Usage::of_access_log(&text); // whole lines only
    let metrics = world.metrics().await;
    let written = usage.sum(|_| true);
    assert_eq!(metrics.sum(WRITTEN), i64::try_from(written).unwrap());
    let (all, lost) = (metrics.commands().values().sum::<u64>(), metrics.sum(DROPPED));
    assert_eq!(i64::try_from(all - written).unwrap(), lost, "each command is a line or a count");
    world.close_into(|_| drop(space)).await;
}

/// Returns the command with its standard output redirected.
fn with_output(redirection: &str) -> impl FnOnce(Command) -> Command {
    let line = format!("exec \"$0\" \"$@\" {redirection}");
    move |command| {
        let mut bash = tool("bash");
        bash.args(["-c", &line]).arg(command.get_program()).args(command.get_args());
        bash.current_dir(command.get_current_dir().unwrap());
        bash
    }
}

fn to_stdout(document: &mut Value) {
    document["accessLog"] = json!({ "output": "stdout", "queue": { "lines": 20 } });
}

#[tokio::test]
async fn reader_of_stdout_that_leaves_harms_no_traffic() {
    let mut world = World::city().edit(to_stdout).build();
    world.note_partial_access_log();
    world.start_process_as(with_output("> >(exec head -n 3 > first-lines)")).await;
    serve_until_dropped(&world, "reader_gone").await;
    assert_eq!((logged(&world, CANNOT_WRITE), logged(&world, DROPS)), (1, 1));
    let first = std::fs::read_to_string(world.folder().join("first-lines")).unwrap();
    assert_eq!(Usage::of_access_log(&first).sum(|_| true), 3);
    world.close().await; // with exit code 0
}

#[tokio::test]
async fn stdout_has_whole_lines_and_nothing_else() {
    let mut world = World::city().edit(|document| document["accessLog"] = json!({ "output": "stdout" })).build();
    world.note_partial_access_log();
    world.start_process_as(with_output("> out 2>&1 --log-level off")).await;
    let client = world.client("traffic-police").h2();
    for _ in 0..5 {
        assert!(
            futures_util::future::join_all((0..20).map(|_| client.get(READ))).await.iter().all(|one| one.status == 200)
        );
    }
    let mut of_lines = Usage::default();
    let read = |folder: &Path| {
        let text = std::fs::read_to_string(folder.join("out")).unwrap();
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let usage = world.close_into(|folder| of_lines = Usage::of_access_log(&read(folder))).await;
    assert_eq!(of_lines, usage);
}

#[tokio::test]
async fn named_pipe_whose_reader_changes_loses_nothing_that_fits_the_queue() {
    let mut world = World::city().edit(|document| document["accessLog"] = json!({ "output": "pipe" })).build();
    world.note_partial_access_log();
    let pipe = world.folder().join("pipe");
    let mut mkfifo = tool("mkfifo");
    mkfifo.arg(&pipe);
    assert!(run(mkfifo).await.status.success());
    let open = || std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut reader = open();
    world.start_process().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    let mut first = [0; 2048];
    let length = tokio::task::spawn_blocking(move || reader.read(&mut first).map(|length| (length, first)));
    let (length, first) = length.await.unwrap().unwrap();
    for _ in 0..10 {
        assert_eq!(client.get(READ).await.status, 200);
    }
    until("the log says so", async || (logged(&world, CANNOT_WRITE) == 1).then_some(())).await;
    let mut reader = open();
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length) = reader.read(&mut piece) {
            let _ = sender.send(piece[..length].to_vec());
        }
    });
    let mut text = String::from_utf8(first[..length].to_vec()).unwrap();
    until("all lines arrive", async || {
        while let Ok(piece) = received.try_recv() {
            text += &String::from_utf8(piece).unwrap();
        }
        (text.lines().count() == 11).then_some(())
    })
    .await;
    assert_eq!(Usage::of_access_log(&text).of("traffic-police", "ok"), 11);
    until("the log says so", async || (logged(&world, RECOVERED) == 1).then_some(())).await;
    assert_eq!((world.metrics().await.sum(WRITTEN), world.metrics().await.sum(DROPPED)), (11, 0));
    world.close().await;
}

#[tokio::test]
async fn output_that_cannot_be_opened_is_a_problem_at_start() {
    let mut world = World::city().edit(|document| document["accessLog"] = json!({ "output": "no/access.log" })).build();
    let refused = run(world.tallygate(&["serve", "--config", "gateway.yaml"])).await;
    let text = stderr(&refused);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    let path = world.folder().join("no/access.log").canonicalize();
    assert!(path.is_err(), "no file was made");
    for part in
        ["gateway.yaml", "accessLog.output", "no/access.log for the access log: No such file", "create the folder"]
    {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    world.abandon();
}

#[tokio::test]
async fn commands_that_a_stop_interrupts_have_lines() {
    let mut world = World::city().edit(|document| document["shutdown"]["grace"] = json!("100ms")).start().await;
    let client = world.client("traffic-police");
    let held = tokio::spawn(async move { client.try_send(request("POST", "/cameras/do/never", whole("body"))).await });
    until("the command is in flight", async || (world.metrics().await.sum(crate::world::IN_FLIGHT) == 1).then_some(()))
        .await;
    world.stop().await;
    assert!(held.await.unwrap().is_err());
    let lines = world.access_log();
    let line = line_of(&lines, "interrupted");
    assert_eq!((&line["status"], &line["request_bytes"]), (&Value::Null, &json!(4)), "{line:#}");
    assert!(line["duration_us"].as_u64().is_some_and(|time| time >= Duration::from_millis(100).as_micros() as u64));
    world.close().await;
}

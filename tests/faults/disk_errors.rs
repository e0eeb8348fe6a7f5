//! The real binary on disks that fail: strace makes chosen system calls fail (EIO, ENOSPC), and a small file system
//! runs full. Needs root for the mount, and strace from Debian.
//!
//! With `strace -D` the gateway stays a child of the test. strace counts the calls of each thread separately, so call n
//! is the n-th call of the thread that starts the gateway, or of the keeper. Every test ends with a start on a disk
//! that works and with balanced books.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{Client, Process, READ, Reply, World, empty, request, tool, until};

/// The number of additional commands. With their names they need more slots than a worker's first segment has.
const MANY: usize = 1100;

/// Returns the same command below strace, which writes its trace to `strace.log` in the world's folder.
fn traced(command: &Command, folder: &Path, arguments: &[&str]) -> Command {
    let mut strace = tool("strace");
    strace.args(["-D", "-f", "-y", "-o"]).arg(folder.join("strace.log")).args(arguments);
    strace.arg(command.get_program()).args(command.get_args()).current_dir(folder);
    strace
}

/// Returns the strace arguments that make one system call fail on one file of the ledger.
fn fault(world: &World, call: &str, (file, how): (&str, &str)) -> Vec<String> {
    let by_handle = world.book().with_file_name(file).display().to_string();
    let by_name = format!("data/{file}"); // the path as configured
    ["-P", &by_handle, "-P", &by_name, "-e", &format!("inject={call}:{how}")].map(ToOwned::to_owned).to_vec()
}

/// Starts the real binary with a fault that occurs after the start.
async fn start_with(world: &mut World, call: &str, fault_of: (&str, &str)) {
    let (arguments, folder) = (fault(world, call, fault_of), world.folder().to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    world.start_process_as(|command| traced(&command, &folder, &arguments)).await;
}

fn trace(world: &World) -> String {
    std::fs::read_to_string(world.folder().join("strace.log")).unwrap()
}

fn many_commands(document: &mut Value) {
    // All requests at once, each on a connection of its own: more connections than the default limits permit.
    document["capacity"] = json!({ "addressConnections": 2000, "departmentConnections": 2000, "handshakes": 2000 });
    let commands = document["subsystems"][0]["commands"].as_array_mut().unwrap();
    commands.extend(
        (0..MANY)
            .map(|n| json!({ "id": format!("many-{n}"), "match": { "method": "GET", "path": format!("/many/{n}") } })),
    );
}

/// Calls each of the additional commands once.
async fn call_many(world: &World, numbers: std::ops::Range<usize>) -> Vec<Reply> {
    let clients: Vec<Client> = (0..8).map(|_| world.client("traffic-police").h2()).collect();
    let callers = clients.iter().enumerate().map(|(lane, client)| {
        let mine = numbers.clone().skip(lane).step_by(8);
        futures_util::future::join_all(mine.map(|n| async move { client.get(&format!("/cameras/many/{n}")).await }))
    });
    // Sequential streams would also do; concurrent requests are closer to real traffic.
    futures_util::future::join_all(callers).await.into_iter().flatten().collect()
}

/// Sends commands one after the other until the gateway has ended. Returns the number of responses.
async fn call_until_it_ends(world: &World) -> usize {
    let client = world.client("traffic-police");
    for answered in 0.. {
        if client.try_send(request("GET", READ, empty())).await.is_err() {
            return answered;
        }
    }
    unreachable!("the gateway ends before the numbers do")
}

/// Requires that the gateway ended by itself because of a disk failure.
async fn ended_by_its_disk(world: &mut World, file: &str) {
    let status = world.take_process().ended().await;
    let words = world.log_of_process();
    assert_eq!(status.code(), Some(74), "{words}");
    assert!(words.contains(file) && words.contains("Check the disk"), "the error and its remedy are reported: {words}");
}

#[tokio::test]
async fn failed_sync_ends_the_gateway_and_is_not_retried() {
    for (nth, durability) in [(3, "machine"), (4, "machine"), (30, "machine"), (3, "process"), (9, "process")] {
        let edit = |document: &mut Value| document["ledger"]["durability"] = json!(durability);
        let mut world = World::city().edit(edit).build();
        start_with(&mut world, "fdatasync", ("ledger.tally", &format!("error=EIO:when={nth}"))).await;
        let answered = call_until_it_ends(&world).await;
        ended_by_its_disk(&mut world, "ledger.tally").await;
        assert!(world.log_of_process().contains("Input/output error"), "{}", world.log_of_process());

        let trace = trace(&world);
        let failed = trace.find("(INJECTED)").unwrap_or_else(|| panic!("sync {nth} did not fail: {trace}"));
        assert!(!trace[failed + 10..].contains("fdatasync("), "the file was synced again after it had failed: {trace}");
        if durability == "machine" {
            let synced = trace[..failed].matches("= 0").count();
            assert!(answered <= synced, "{answered} commands, one after the other, were answered after {synced} syncs");
        }
        world.start_process().await;
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
        world.close().await;
    }
}

#[tokio::test]
async fn book_that_cannot_be_synced_ends_the_gateway_without_loss() {
    let mut world = World::city().build();
    start_with(&mut world, "fsync", ("ledger.db-wal", "error=EIO:when=4")).await; // a start has three fsyncs
    let answered = call_until_it_ends(&world).await;
    ended_by_its_disk(&mut world, "ledger.db").await;
    assert!(world.usage().of("traffic-police", "ok") >= answered as u64);
    world.start_process().await;
    world.close().await;
}

#[tokio::test]
async fn start_on_a_failing_disk_reports_the_error_and_damages_nothing() {
    let mut world = World::city().start_process().await;
    for _ in 0..20 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    }
    world.kill().await; // so that each start has an epoch to recover
    let before = world.usage();
    for (call, file, how) in [
        ("ftruncate", "ledger.lock", "error=ENOSPC:when=1"),
        ("write", "ledger.lock", "error=ENOSPC:when=1"),
        ("openat", "ledger.tally", "error=EIO:when=1"),
        ("pwrite64", "ledger.db-wal", "error=ENOSPC:when=1"),
        ("pwrite64", "ledger.db-wal", "error=EIO:when=2"),
        ("fsync", "ledger.db-wal", "error=EIO:when=1"),
        ("pwrite64", "ledger.tally-new", "error=ENOSPC:when=1"),
        ("pwrite64", "ledger.tally-new", "error=ENOSPC:when=9"),
        ("fdatasync", "ledger.tally-new", "error=EIO:when=1"),
        ("fdatasync", "ledger.tally-new", "error=EIO:when=2"),
        ("rename", "ledger.tally-new", "error=EIO:when=1"),
    ] {
        let arguments = fault(&world, call, (file, how));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let command = world.tallygate(&["serve", "--config", "gateway.yaml"]);
        let log = std::fs::File::create(world.folder().join("start.log")).unwrap();
        let mut start = Process::spawn(traced(&command, world.folder(), &arguments).stderr(log));
        let status = until(&format!("{call} on {file} ends the start"), async || start.0.try_wait().unwrap()).await;
        let words = std::fs::read_to_string(world.folder().join("start.log")).unwrap();
        assert!(trace(&world).contains("(INJECTED)"), "{call} on {file} was never called: {}", trace(&world));
        assert_eq!(status.code(), Some(74), "{call} on {file}: {words}");
        assert!(words.contains(&format!("data/{}", file.trim_end_matches("-wal").trim_end_matches("-new"))), "{words}");
        assert_eq!(world.usage(), before, "{call} on {file} changed the books");
    }
    world.start_process().await;
    assert_eq!(world.usage(), before);
    world.close().await;
}

#[tokio::test]
async fn tally_that_cannot_grow_refuses_commands_without_a_slot_and_recovers() {
    // Each attempt to grow fails at its first or its ninth block of 64 KiB.
    for how in ["error=ENOSPC:when=1..4", "error=EDQUOT:when=9..12"] {
        let mut world = World::city().edit(many_commands).build();
        start_with(&mut world, "pwrite64", ("ledger.tally", how)).await;
        let client = world.client("traffic-police");
        assert_eq!(client.get(READ).await.status, 200);
        let replies = call_many(&world, 0..MANY - 1).await;
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
        assert!(!refused.is_empty(), "{how}: more commands than slots");
        for reply in &refused {
            assert_eq!(reply.status, 503);
            assert_eq!(reply.problem().as_deref(), Some("ledger_unavailable"));
            assert!(!reply.header("retry-after").is_empty());
        }
        assert_eq!(client.get(READ).await.status, 200, "commands with a slot continue");
        let new = format!("/cameras/many/{}", MANY - 1);
        until("the tally has grown", async || (client.get(&new).await.status == 200).then_some(())).await;
        assert!(trace(&world).contains("(INJECTED)"));
        let replies = call_many(&world, 0..MANY).await;
        assert!(replies.iter().all(|reply| reply.status == 200), "recovered without a restart");
        let usage = world.close().await;
        assert!(usage.sum(|key| key.outcome == "ledger_unavailable") >= refused.len() as u64);
    }
}

#[tokio::test]
async fn short_write_is_completed() {
    let mut world = World::city().edit(many_commands).build();
    start_with(&mut world, "pwrite64", ("ledger.tally", "retval=512:when=3")).await;
    call_many(&world, 0..600).await;
    let trace = until("the tally has grown", async || {
        Some(trace(&world)).filter(|trace| trace.matches("= 65536").count() + trace.matches("= 65024").count() >= 16)
    })
    .await;
    let lines: Vec<_> = trace.lines().filter(|line| line.contains("pwrite64(")).collect();
    let short = lines.iter().position(|line| line.contains("= 512 (INJECTED)")).expect("a short write");
    let place = |line: &str| {
        let call = line.split(") = ").next().unwrap().trim_end();
        let mut numbers = call.rsplit(", ").map(|number| number.parse::<u64>().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let ((at, bytes), next) = (place(lines[short]), place(lines[short + 1]));
    assert_eq!(next, (at + 512, bytes - 512), "the rest of the block follows");
    world.close().await;
}

#[tokio::test]
async fn book_without_space_catches_up_once_there_is_space() {
    let mut world = World::city().build();
    // The starting thread writes fewer than seventy frames. The keeper's next writes fail, one fold after the other.
    start_with(&mut world, "pwrite64", ("ledger.db-wal", "error=ENOSPC:when=70..73")).await;
    let client = world.client("traffic-police");
    let log_line = until("the book has had no space", async || {
        assert_eq!(client.get(READ).await.status, 200, "commands with a slot continue");
        Some(world.log_of_process()).filter(|log| log.contains("will retry"))
    })
    .await;
    assert!(log_line.contains("nothing is lost meanwhile") && log_line.contains("ledger.db"), "{log_line}");
    let sent = world.log.all().len() as u64;
    until("the book has caught up", async || {
        (crate::world::Usage::of_view(&world.book()).of("traffic-police", "ok") >= sent).then_some(())
    })
    .await;
    world.close().await;
}

//! Logging under failure: a log that cannot be written never ends a thread and never blocks traffic. Signals that other
//! programs send by habit (such as SIGUSR1 or SIGPIPE) do no harm.

use std::io::Read as _;
use std::process::Command;

use crate::world::{World, request, run, tool, until};

const READ: &str = "/cameras/v1/snapshots/1";

/// Returns the command with its standard error redirected, and more arguments.
fn with_log(redirection: &str, more: &str) -> impl FnOnce(Command) -> Command {
    let line = format!("exec \"$0\" \"$@\" {more} {redirection}");
    move |command| {
        let mut bash = tool("bash");
        bash.args(["-c", &line]).arg(command.get_program()).args(command.get_args());
        bash.current_dir(command.get_current_dir().unwrap());
        bash
    }
}

async fn lines_dropped(world: &World) -> i64 {
    world.metrics().await.sum("tallygate_log_lines_dropped_total")
}

/// Sends requests until the log is full: h2 logs many lines.
async fn fill_the_log(world: &World) {
    let client = world.client("traffic-police").h2();
    until("the log is full", async || {
        for _ in 0..20 {
            assert_eq!(client.get(READ).await.status, 200);
        }
        (lines_dropped(world).await > 0).then_some(())
    })
    .await;
}

/// Changes the configuration, waits until it is live, and sends a command.
async fn is_served_and_reloads(world: &mut World, name: &str) {
    world.write(|document| document["departments"][0]["name"] = name.into());
    let version = world.version_on_disk();
    until("the new configuration is live", async || world.admin("/config").await.1.contains(&version).then_some(()))
        .await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
}

#[tokio::test]
async fn the_reader_of_the_log_may_go() {
    let mut world = World::city().build();
    world.start_process_as(with_log("2> >(exec head -n 1 > first-lines)", "")).await;
    is_served_and_reloads(&mut world, "One").await;
    is_served_and_reloads(&mut world, "Two").await;
    until("lines are dropped and counted", async || (lines_dropped(&world).await > 0).then_some(())).await;
    world.close().await; // with exit code 0
}

#[tokio::test]
async fn a_gateway_starts_and_works_though_its_log_is_full() {
    let mut world = World::city().build();
    world.start_process_as(with_log("2>/dev/full", "")).await;
    is_served_and_reloads(&mut world, "One").await;
    until("lines are dropped and counted", async || (lines_dropped(&world).await > 0).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn a_reader_that_stalls_holds_nobody_up_and_is_told_what_it_missed() {
    let mut world = World::city().build();
    let pipe = world.folder().join("log");
    let made = run({
        let mut mkfifo = tool("mkfifo");
        mkfifo.arg(&pipe);
        mkfifo
    });
    assert!(made.await.status.success());
    let mut reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    world.start_process_as(with_log("2> log", "--log-level trace")).await;
    fill_the_log(&world).await;
    // On a separate thread: the end of the log is not announced.
    let (told, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut piece) = (Vec::new(), [0; 65536]);
        while let Ok(length) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
            if String::from_utf8_lossy(&text).contains("lines were dropped") {
                let _ = told.send(()); // the test may have failed already
                return reader;
            }
        }
        reader
    });
    until("the log says what it misses", async || heard.try_recv().ok()).await;
    world.close().await;
}

#[tokio::test]
async fn a_reader_that_stalls_does_not_hold_the_end_up() {
    let mut world = World::city().build();
    let pipe = world.folder().join("log");
    let mut mkfifo = tool("mkfifo");
    mkfifo.arg(&pipe);
    assert!(run(mkfifo).await.status.success());
    let _reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    world.start_process_as(with_log("2> log", "--log-level trace")).await;
    fill_the_log(&world).await;
    world.close().await;
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_end() {
    let world = World::city().start().await;
    let mut second = world.document.clone();
    second["ledger"]["path"] = "data/second.db".into();
    crate::world::replace(&world.folder().join("second.yaml"), &second.to_string());
    for (format, end) in [("text", "ss -ltnp"), ("json", "ss -ltnp")] {
        let refused = run(world.tallygate(&["serve", "--config", "second.yaml", "--log-format", format])).await;
        let words = crate::world::stderr(&refused);
        assert!(refused.status.code() == Some(70) && words.contains(end), "{format}: {words}");
    }
    world.close().await;
}

#[tokio::test]
async fn usr1_changes_nothing_and_quit_drains() {
    let mut world = World::city().start_process().await;
    world.process().signal("USR1");
    world.process().signal("PIPE");
    until("it is told", async || world.log_of_process().contains("SIGUSR1").then_some(())).await;
    let client = world.client("traffic-police");
    let held =
        tokio::spawn(async move { client.send(request("GET", "/cameras/do/wait-a", crate::world::empty())).await });
    until("the command is in flight", async || {
        (world.metrics().await.sum("tallygate_commands_in_flight") == 1).then_some(())
    })
    .await;
    world.process().signal("QUIT");
    until("it is told", async || world.log_of_process().contains("shutting down").then_some(())).await;
    world.server("cameras").release("a");
    assert_eq!(held.await.unwrap().status, 200);
    let status = world.take_process().ended().await;
    assert!(status.success(), "{status}");
    world.close().await;
}

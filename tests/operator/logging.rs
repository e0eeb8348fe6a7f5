//! Logging under failure: a log that cannot be written never ends a thread and never blocks traffic. Signals that other
//! programs send by habit (such as SIGUSR1 or SIGPIPE) do no harm.

use std::io::Read as _;
use std::process::Command;

use crate::world::{IN_FLIGHT, READ, World, request, run, tool, until};

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
async fn closed_log_pipe_is_tolerated() {
    let mut world = World::city().build();
    world.start_process_as(with_log("2> >(exec head -n 1 > first-lines)", "")).await;
    is_served_and_reloads(&mut world, "One").await;
    is_served_and_reloads(&mut world, "Two").await;
    until("lines are dropped and counted", async || (lines_dropped(&world).await > 0).then_some(())).await;
    world.close().await; // with exit code 0
}

#[tokio::test]
async fn gateway_starts_and_works_with_a_full_log_pipe() {
    let mut world = World::city().build();
    world.start_process_as(with_log("2>/dev/full", "")).await;
    is_served_and_reloads(&mut world, "One").await;
    until("lines are dropped and counted", async || (lines_dropped(&world).await > 0).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn stalled_log_reader_blocks_nothing_and_gets_the_number_of_dropped_lines() {
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
    let (line_read, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut text, mut piece) = (Vec::new(), [0; 65536]);
        while let Ok(length) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..length]);
            if String::from_utf8_lossy(&text).contains("lines were dropped") {
                let _ = line_read.send(()); // the test may have failed already
                return reader;
            }
        }
        reader
    });
    until("the log has the number of dropped lines", async || received.try_recv().ok()).await;
    world.close().await;
}

#[tokio::test]
async fn stalled_log_reader_does_not_delay_the_exit() {
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
async fn last_lines_are_written_before_the_exit() {
    let mut world = World::city().build();
    world.start_here().await;
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
async fn sigusr1_without_a_file_is_logged_and_ignored_and_sigquit_drains() {
    let without_access_log =
        |document: &mut serde_json::Value| drop(document.as_object_mut().unwrap().remove("accessLog"));
    let mut world = World::city().edit(without_access_log).start_process().await;
    world.process().signal("USR1");
    world.process().signal("PIPE");
    until("the signal is logged", async || world.log_of_process().contains("SIGUSR1 ignored").then_some(())).await;
    let client = world.client("traffic-police");
    let held =
        tokio::spawn(async move { client.send(request("GET", "/cameras/do/wait-a", crate::world::empty())).await });
    until("the command is in flight", async || (world.metrics().await.sum(IN_FLIGHT) == 1).then_some(())).await;
    world.process().signal("QUIT");
    until("the signal is logged", async || world.log_of_process().contains("shutting down").then_some(())).await;
    world.server("cameras").release("a");
    assert_eq!(held.await.unwrap().status, 200);
    let status = world.take_process().ended().await;
    assert!(status.success(), "{status}");
    world.close().await;
}

//! A real file system that runs full: 8 MiB of memory, mounted for the test and unmounted after it. Needs root.

use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::world::{READ, Reply, Usage, World, run, stderr, tool, until};

/// The number of new commands in each life of the gateway. With their names they need more slots than a worker's first
/// segment has.
const MANY: usize = 1100;

/// A small file system. Dropping it unmounts the file system, also if the test fails.
pub(crate) struct Space(PathBuf);

impl Space {
    pub(crate) async fn mount(folder: &Path) -> Self {
        let mut mount = tool("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(folder);
        let ended = run(mount).await;
        assert!(ended.status.success(), "mount needs root: {}", stderr(&ended));
        Self(folder.to_owned())
    }

    /// Fills the file system.
    pub(crate) fn fill(&self) {
        use std::io::Write as _;
        let mut filler = std::fs::File::options().create(true).append(true).open(self.filler()).unwrap();
        for piece in [64 * 1024, 4096, 1] {
            while filler.write(&vec![0; piece]).is_ok_and(|written| written > 0) {}
        }
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status(); // with files open
    }
}

fn many_commands(document: &mut Value) {
    let commands = document["subsystems"][0]["commands"].as_array_mut().unwrap();
    commands.extend(
        (0..MANY)
            .map(|n| json!({ "id": format!("many-{n}"), "match": { "method": "GET", "path": format!("/many/{n}") } })),
    );
}

/// Calls many commands over a few connections at once. Returns the responses.
async fn call_many(world: &World, numbers: std::ops::Range<usize>) -> Vec<Reply> {
    let clients: Vec<_> = (0..4).map(|_| world.client("traffic-police").h2()).collect();
    let lanes = clients.iter().enumerate().map(|(lane, client)| {
        let mine = numbers.clone().skip(lane).step_by(4);
        let calls = mine.map(move |n| async move { client.get(&format!("/cameras/many/{n}")).await });
        futures_util::stream::iter(calls).buffered(32).collect::<Vec<_>>()
    });
    futures_util::future::join_all(lanes).await.into_iter().flatten().collect()
}

/// The disk is full when new commands arrive: a command that has a slot is served. A command without a slot is refused
/// until the disk has space again.
async fn full_for_new_commands(world: &World, space: &Space) {
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    space.fill();
    let replies = call_many(world, 0..MANY - 1).await;
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(!refused.is_empty(), "more new commands than free slots");
    assert!(refused.iter().all(|reply| reply.problem().as_deref() == Some("ledger_unavailable")), "{refused:?}");
    for _ in 0..20 {
        assert_eq!(client.get(READ).await.status, 200, "commands with a slot continue");
    }
    let readiness = until("the gateway reports not ready", async || {
        Some(world.admin("/readyz").await).filter(|ready| ready.0 == 503)
    })
    .await;
    assert!(readiness.1.contains("ledger"), "{readiness:?}");
    space.free();
    let new = format!("/cameras/many/{}", MANY - 1);
    until("the gateway has recovered", async || (client.get(&new).await.status == 200).then_some(())).await;
    let replies = call_many(world, 0..MANY).await;
    let refused = replies.iter().find(|reply| reply.status != 200);
    assert!(refused.is_none(), "recovered without a restart: {refused:?} {}", world.log_of_process());
    until("the gateway is ready again", async || (world.admin("/readyz").await.0 == 200).then_some(())).await;
}

/// The disk is full while known commands go on: the book falls behind, and catches up later.
async fn full_for_the_book(world: &World, space: &Space) {
    space.fill();
    assert!(call_many(world, 0..MANY).await.iter().all(|reply| reply.status == 200), "commands with a slot continue");
    space.free();
    until("the book has caught up", async || (Usage::of_view(&world.book()) == world.usage()).then_some(())).await;
}

#[tokio::test]
async fn disk_filled_and_freed_twenty_times_loses_nothing() {
    let mut world = World::city().edit(many_commands).build();
    let space = Space::mount(&world.folder().join("data")).await;
    for _ in 0..10 {
        world.start_process().await; // with a new tally, which has the slots of one segment
        full_for_new_commands(&world, &space).await;
        full_for_the_book(&world, &space).await;
        world.stop().await;
    }
    let log = world.log_of_process();
    assert!(log.contains("could not grow") && log.contains("nothing is lost meanwhile"), "{log}");
    world.close_into(|_| drop(space)).await;
}

#[tokio::test]
async fn gateway_killed_on_a_full_disk_recovers_once_there_is_space() {
    let mut world = World::city().build();
    let space = Space::mount(&world.folder().join("data")).await;
    world.start_process().await;
    for _ in 0..50 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    }
    space.fill();
    for _ in 0..50 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    }
    world.kill().await;
    assert_eq!(world.usage().of("traffic-police", "ok"), 100, "read from the remaining files");
    let refused = run(world.tallygate(&["serve", "--config", "gateway.yaml"])).await;
    assert_eq!(refused.status.code(), Some(74), "{}", stderr(&refused));
    space.free();
    world.start_process().await;
    assert_eq!(world.usage().of("traffic-police", "ok"), 100);
    world.close_into(|_| drop(space)).await;
}

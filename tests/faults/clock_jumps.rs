//! The real binary on clocks that jump. Debian's faketime moves the wall clock while the binary runs. The monotonic
//! clock is unchanged, as when an administrator sets the time.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{READ, World, run, stderr, stdout, until};

/// The wall clock of one gateway, in UTC. It stands still except when the test sets it.
struct Wall(PathBuf);

impl Wall {
    fn new(folder: &Path, time: &str) -> Self {
        let wall = Self(folder.join("wall-clock"));
        wall.set(time);
        wall
    }

    /// Sets the time, for example `2026-10-31 15:59:50`.
    fn set(&self, time: &str) {
        crate::world::replace(&self.0, &format!("{time}\n"));
    }
}

/// Returns the path of the faketime library. Debian keeps it in a folder named after the machine's architecture.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|file| file.exists());
    found.expect("faketime is not installed; `make test` installs it (apt-get install faketime)")
}

async fn start(world: &mut World, time: &str) -> Wall {
    let wall = Wall::new(world.folder(), time);
    let file = wall.0.clone();
    world
        .start_process_as(|mut command| {
            command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", file).env("TZ", "UTC");
            command.env("FAKETIME_NO_CACHE", "1").env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_RESET", "1");
            command
        })
        .await;
    wall
}

async fn call(world: &World, times: u64) {
    let client = world.client("traffic-police");
    for _ in 0..times {
        assert_eq!(client.get(READ).await.status, 200);
    }
}

/// Returns the number of commands in a range of days, by the command that finance uses.
async fn report(world: &World, from: &str, to: &str) -> u64 {
    let book = world.book().display().to_string();
    let arguments = ["report", "usage", "--ledger", &book, "--from", from, "--to", to, "--format", "json"];
    let ended = run(world.tallygate(&arguments)).await;
    assert!(ended.status.success(), "{}", stderr(&ended));
    let report: Value = serde_json::from_str(&stdout(&ended)).unwrap();
    report["total"]["commands"].as_u64().unwrap()
}

/// Returns the sealed hours, in the order of their seals.
fn sealed(world: &World) -> Vec<String> {
    let book = rusqlite::Connection::open(world.book()).unwrap();
    let mut query = book
        .prepare("SELECT strftime('%Y-%m-%dT%H', \"window\" * 3600, 'unixepoch') FROM seal WHERE kind = 'hour' ORDER BY number")
        .unwrap();
    query.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

async fn until_sealed(world: &World, hours: &[&str]) {
    until("the hours before are sealed", async || (sealed(world) == hours).then_some(())).await;
}

#[tokio::test]
async fn month_ends_at_midnight_of_the_configured_calendar() {
    let mut world = World::city().build();
    let wall = start(&mut world, "2026-10-31 15:59:50").await;
    call(&world, 3).await;
    wall.set("2026-10-31 16:00:00"); // midnight at +08:00
    call(&world, 2).await;
    assert_eq!(report(&world, "2026-10-01", "2026-11-01").await, 3);
    assert_eq!(report(&world, "2026-10-31", "2026-11-01").await, 3);
    assert_eq!(report(&world, "2026-11-01", "2026-12-01").await, 2);
    wall.set("2026-10-31 16:01:00");
    until_sealed(&world, &["2026-10-31T15"]).await;
    assert_eq!(report(&world, "2026-10-31", "2026-11-02").await, 5);
    world.close().await;
}

#[tokio::test]
async fn clock_set_back_an_hour_continues_counting_and_breaks_no_seal() {
    let mut world = World::city().build();
    let wall = start(&mut world, "2026-10-31 15:30:00").await;
    call(&world, 3).await;
    wall.set("2026-10-31 16:30:00");
    call(&world, 2).await;
    until_sealed(&world, &["2026-10-31T15"]).await;
    wall.set("2026-10-31 15:30:00");
    call(&world, 4).await; // the hour is sealed: these commands stay in the later hour
    assert_eq!(report(&world, "2026-10-01", "2026-11-01").await, 3);
    assert_eq!(report(&world, "2026-11-01", "2026-12-01").await, 6);
    world.kill().await;
    // The next start begins while the clock is still an hour back. It counts into the clock's hour, in a new epoch.
    let wall = start(&mut world, "2026-10-31 15:40:00").await;
    call(&world, 1).await;
    wall.set("2026-10-31 16:40:00");
    until_sealed(&world, &["2026-10-31T15", "2026-10-31T15"]).await;
    assert_eq!(report(&world, "2026-10-01", "2026-11-01").await, 4);
    assert_eq!(report(&world, "2026-10-01", "2026-12-01").await, 10);
    world.close().await;
}

#[tokio::test]
async fn clock_set_forward_a_day_leaves_the_day_between_empty() {
    let mut world = World::city().build();
    let wall = start(&mut world, "2026-10-30 12:00:00").await;
    call(&world, 3).await;
    wall.set("2026-10-31 12:00:00");
    call(&world, 2).await;
    until_sealed(&world, &["2026-10-30T12"]).await;
    assert_eq!(report(&world, "2026-10-30", "2026-10-31").await, 3);
    assert_eq!(report(&world, "2026-10-31", "2026-11-01").await, 2);
    wall.set("2026-10-30 12:00:00"); // the clock is correct again
    call(&world, 1).await;
    assert_eq!(report(&world, "2026-10-31", "2026-11-01").await, 3, "the hours of a worker never decrease");
    world.stop().await;
    let _wall = start(&mut world, "2026-10-30 12:01:00").await;
    call(&world, 1).await;
    assert_eq!(report(&world, "2026-10-30", "2026-10-31").await, 4);
    world.close().await;
}

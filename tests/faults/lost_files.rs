//! The real binary when its ledger's files are removed or replaced, and copies of a ledger that are restored.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::world::{Process, READ, World, run, stderr, stdout, until};

/// The interval of the keeper's check (a second), and a margin for a busy machine.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);

async fn busy() -> World {
    let world = World::city().start_process().await;
    for _ in 0..20 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    }
    world
}

fn data(world: &World, name: &str) -> PathBuf {
    world.folder().join("data").join(name)
}

fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap_or_else(|error| panic!("{} to {}: {error}", from.display(), to.display()));
}

/// Requires that the gateway ends by itself, and that its message names the file and the remedy.
async fn assert_noticed(world: &mut World, file: &str, how: &str) {
    let begun = Instant::now();
    let status = world.take_process().ended().await;
    let words = world.log_of_process();
    assert_eq!(status.code(), Some(74), "{words}");
    assert!(begun.elapsed() < NOTICED_WITHIN, "{:?}", begun.elapsed());
    assert!(words.contains(&format!("{file} was {how} while the gateway was using it")), "{words}");
    assert!(words.contains("Put the ledger's files back"), "{words}");
}

/// Runs `tallygate ledger ...` or another command. Returns exit code, standard output and standard error.
async fn tallygate(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let ended = run(world.tallygate(arguments)).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

async fn assert_sound(world: &World, book: &str) -> String {
    let (code, out, err) = tallygate(world, &["ledger", "verify", "--ledger", book]).await;
    assert!(code == 0 && out.starts_with("sound: "), "{book}: {out}{err}");
    out + &err
}

#[tokio::test]
async fn removed_ledger_folder_ends_the_gateway() {
    let mut world = busy().await;
    std::fs::remove_dir_all(world.folder().join("data")).unwrap();
    assert_noticed(&mut world, "ledger.db", "removed").await;
    world.abandon(); // the books no longer exist
}

#[tokio::test]
async fn moved_ledger_folder_ends_the_gateway_without_loss() {
    for new_in_its_place in [false, true] {
        let mut world = busy().await;
        let (folder, away) = (world.folder().join("data"), world.folder().join("away"));
        rename(&folder, &away);
        if new_in_its_place {
            std::fs::create_dir(&folder).unwrap();
            std::fs::copy(away.join("ledger.db"), folder.join("ledger.db")).unwrap();
        }
        let how = if new_in_its_place { "replaced" } else { "removed" };
        assert_noticed(&mut world, "ledger.db", how).await;
        let _ = std::fs::remove_dir_all(&folder);
        rename(&away, &folder);
        world.start_process().await;
        world.close().await;
    }
}

#[tokio::test]
async fn displaced_file_ends_the_gateway_without_loss() {
    for file in ["ledger.tally", "ledger.lock", "ledger.db-wal", "ledger.db-shm"] {
        let mut world = busy().await;
        std::fs::remove_file(data(&world, file)).unwrap();
        assert_noticed(&mut world, file, "removed").await;
        assert_sound(&world, "data/ledger.db").await;
        world.start_process().await;
        world.close().await;
    }
}

#[tokio::test]
async fn book_replaced_under_a_running_gateway_is_complete_where_it_was_moved() {
    let mut world = busy().await;
    let backup = ["ledger", "backup", "--ledger", "data/ledger.db", "--out", "backup.db"];
    assert_eq!(tallygate(&world, &backup).await.0, 0);
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    rename(&data(&world, "ledger.db"), &world.folder().join("moved.db"));
    std::fs::copy(world.folder().join("backup.db"), data(&world, "ledger.db")).unwrap();
    assert_noticed(&mut world, "ledger.db", "replaced").await;
    rename(&world.folder().join("moved.db"), &data(&world, "ledger.db"));
    world.start_process().await;
    world.close().await;
}

#[tokio::test]
async fn second_gateway_by_another_name_is_refused() {
    let mut world = busy().await;
    std::os::unix::fs::symlink("ledger.db", data(&world, "other.db")).unwrap();
    let text = std::fs::read_to_string(world.config_file()).unwrap().replace("ledger.db", "other.db");
    let (here, there) = (world.gateway_address().to_string(), crate::world::reserve_address().to_string());
    let (admin, its_admin) = (world.admin_address().to_string(), crate::world::reserve_address().to_string());
    std::fs::write(world.folder().join("second.yaml"), text.replace(&here, &there).replace(&admin, &its_admin))
        .unwrap();
    let holder = format!("process {}", world.process_id());
    let mut second = Process::spawn(
        world
            .tallygate(&["serve", "--config", "second.yaml"])
            .stderr(std::fs::File::create(world.folder().join("second.log")).unwrap()),
    );
    let status = until("the second gateway exits", async || second.0.try_wait().unwrap()).await;
    let words = std::fs::read_to_string(world.folder().join("second.log")).unwrap();
    assert!(status.code() == Some(74) && words.contains(&holder), "{words}");
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "the first gateway continues");
    world.stop().await;
    world.close().await;
}

#[tokio::test]
async fn live_backup_verifies_and_is_restored_by_the_documented_steps() {
    let mut world = busy().await;
    std::fs::create_dir(world.folder().join("backups")).unwrap();
    let backup = ["ledger", "backup", "--ledger", "data/ledger.db", "--out", "backups", "--format", "json"];
    let (code, out, err) = tallygate(&world, &backup).await;
    assert_eq!(code, 0, "{err}");
    let made: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&made["is_kept"], &made["tally"]), (&true.into(), &serde_json::Value::Null), "{made}");
    assert!(made["head"]["number"].is_number() && made["bytes"].as_u64() > Some(0), "{made}");
    assert_eq!(crate::world::Usage::of_files(&world.folder().join("backups/ledger.db")), world.usage());
    assert_sound(&world, "backups/ledger.db").await;
    let (code, _, err) = tallygate(&world, &backup).await;
    assert!(code == 2 && err.contains("already exists"), "{code} {err}");

    // The steps of docs/ledger.md, "Restoring a copy": stop, move the present files aside, put the copy in place,
    // verify, start.
    world.stop().await;
    rename(&world.folder().join("data"), &world.folder().join("aside"));
    std::fs::create_dir(world.folder().join("data")).unwrap();
    std::fs::copy(world.folder().join("backups/ledger.db"), world.book()).unwrap();
    assert_sound(&world, "data/ledger.db").await;
    world.start_process().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.stop().await;
    assert_sound(&world, "data/ledger.db").await;
    let (_, out, _) = tallygate(&world, &["ledger", "info", "--ledger", "data/ledger.db"]).await;
    assert!(out.contains("its tally was missing; counts after"), "{out}");
    world.close().await;
}

/// Copies made without `tallygate`: by SQLite's own tool, and by a copy of the folder.
#[tokio::test]
async fn copies_by_other_tools_verify_as_sound() {
    let world = busy().await;
    let mut sqlite = crate::world::tool("sqlite3");
    sqlite.arg("data/ledger.db").arg(".backup copy.db").current_dir(world.folder());
    let ended = run(sqlite).await;
    assert!(ended.status.success(), "{}", stderr(&ended));
    let output = assert_sound(&world, "copy.db").await;
    assert!(output.contains("not proven"), "{output}");
    let mut copy = crate::world::tool("cp");
    copy.args(["-r", "data", "folder"]).current_dir(world.folder());
    assert!(run(copy).await.status.success());
    assert_sound(&world, "folder/ledger.db").await;
    assert_eq!(crate::world::Usage::of_files(&world.folder().join("folder/ledger.db")), world.usage());
    world.close().await;
}

//! The ledger under audit: by the gateway's own program, and by a stranger's.

use crate::world::{World, run, stderr, stdout, tool, until};

const READ: &str = "/cameras/v1/snapshots/1";

/// `tallygate ledger ...`: exit code, standard output and standard error.
async fn ledger(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let mut all = vec!["ledger"];
    all.extend(arguments);
    let ended = run(world.tallygate(&all)).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

/// The program of `docs/` that anybody may read, on an export.
async fn stranger(world: &World, export: &str) -> (bool, String, String) {
    let mut python = tool("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check_ledger.py")).arg(world.folder().join(export));
    let ended = run(python).await;
    (ended.status.success(), stdout(&ended), stderr(&ended))
}

#[tokio::test]
async fn a_ledger_is_sound_live_killed_copied_and_closed() {
    let mut world = World::city().start_process().await;
    for client in [world.client("traffic-police"), world.client("logistics").h2()] {
        for _ in 0..20 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    }
    let sound = async |world: &World, what: &str| {
        let (code, out, err) = ledger(world, &["verify", "--ledger", "data/ledger.db"]).await;
        assert_eq!((code, out.starts_with("sound: ")), (0, true), "{what}: {out}{err}");
    };
    sound(&world, "live").await;
    let (code, out, _) = ledger(&world, &["info", "--ledger", "data/ledger.db"]).await;
    assert!(code == 0 && out.contains("running, process") && out.contains("40 received"), "{out}");
    world.kill().await;
    sound(&world, "killed").await;
    std::fs::create_dir(world.folder().join("copy")).unwrap();
    for file in ["ledger.db", "ledger.db-wal", "ledger.tally"] {
        std::fs::copy(world.folder().join("data").join(file), world.folder().join("copy").join(file)).unwrap();
    }
    let (code, out, err) = ledger(&world, &["verify", "--ledger", "copy/ledger.db", "--format", "json"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let verdict: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(verdict["ok"], true);
    world.start_process().await;
    sound(&world, "recovered").await;
    let (code, out, err) = ledger(&world, &["info", "--ledger", "data/ledger.db"]).await;
    assert!(code == 0 && out.contains("the process died; counts exact"), "{out}{err}");
    world.stop().await;
    sound(&world, "closed").await;
    world.close().await;
}

#[tokio::test]
async fn a_strangers_program_computes_the_ledger_again() {
    let clock = tallygate::clock::Clock::manual("2026-10-31T12:10:00Z".parse().unwrap());
    let mut world = World::city().clock(clock.clone()).start().await;
    let client = world.client("traffic-police");
    for hour in 0..3 {
        for _ in 0..7 {
            assert_eq!(client.get(READ).await.status, 200);
        }
        assert_eq!(client.get("/cameras/none").await.status, 404);
        clock.advance(std::time::Duration::from_secs(3600));
        until("the hour is sealed", async || {
            let (_, out, _) = ledger(&world, &["info", "--ledger", "data/ledger.db", "--format", "json"]).await;
            let info: serde_json::Value = serde_json::from_str(&out).ok()?;
            (info["windows"]["sealed"] == hour + 1).then_some(())
        })
        .await;
    }
    let adjust = ["adjust", "--ledger", "data/ledger.db", "--department", "traffic-police", "--period", "2026-10"];
    let why = ["--units=-3", "--reason", "a test of the cameras", "--who", "finance"];
    let (code, _, err) = ledger(&world, &[&adjust[..], &why[..]].concat()).await;
    assert_eq!(code, 0, "{err}");
    world.stop().await;
    let (code, _, err) = ledger(&world, &["export", "--ledger", "data/ledger.db", "--output", "export.txt"]).await;
    assert_eq!(code, 0, "{err}");
    let (sound, sums, err) = stranger(&world, "export.txt").await;
    assert!(sound && err.starts_with("4 seals"), "{sums}{err}");
    assert!(
        sums.contains("traffic-police\tok\t21\n") && sums.contains("traffic-police\tunknown_command\t3\n"),
        "{sums}"
    );
    let text = std::fs::read_to_string(world.folder().join("export.txt")).unwrap();
    for (what, from, to) in [
        ("a count", "\tok\t0\t7\t", "\tok\t0\t8\t"),
        ("a correction", "\t-3\ta test", "\t-4\ta test"),
        ("a seal", "\nseal\t2\t", "\nseal\t9\t"),
        ("the end", "\nend\t4\t0\n", "\n"),
    ] {
        assert!(text.contains(from), "{from:?} is in the export: {text}");
        std::fs::write(world.folder().join("edited.txt"), text.replacen(from, to, 1)).unwrap();
        let (sound, _, err) = stranger(&world, "edited.txt").await;
        assert!(!sound, "{what} was edited: {err}");
    }
    world.close().await;
}

#[tokio::test]
async fn an_edited_ledger_is_found_out_and_wrong_questions_are_told() {
    let mut world = World::city().start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.stop().await;
    let noted = format!("1:{}", "0".repeat(64));
    let (code, out, _) = ledger(&world, &["verify", "--ledger", "data/ledger.db", "--head", &noted]).await;
    assert!(code == 1 && out.contains("head: seal 1:"), "{out}");
    for (arguments, says) in [
        (vec!["verify", "--ledger", "data/none.db"], "there is no ledger at"),
        (vec!["info", "--ledger", "data"], "is a folder"),
        (vec!["verify", "--ledger", "data/ledger.db", "--head", "7"], "not a head"),
        (vec!["export", "--ledger", "data/ledger.db", "--output", "data"], "--output"),
    ] {
        let (code, _, err) = ledger(&world, &arguments).await;
        assert!(code == 2 && err.contains(says), "{arguments:?}: {code} {err}");
    }
    let adjust =
        ["adjust", "--ledger", "data/ledger.db", "--period", "2026-10", "--units", "5", "--reason", "r", "--who", "w"];
    let (code, _, err) = ledger(&world, &[&adjust[..], &["--department", "nobody"][..]].concat()).await;
    assert!(code == 2 && err.contains("never seen nobody"), "{code} {err}");
    world
        .close_into(|folder| {
            let book = rusqlite::Connection::open(folder.join("data/ledger.db")).unwrap();
            book.execute("UPDATE usage SET commands = commands + 1", []).unwrap();
            let edited = std::process::Command::new(env!("CARGO_BIN_EXE_tallygate"))
                .args(["ledger", "verify", "--ledger", "data/ledger.db"])
                .current_dir(folder)
                .output()
                .unwrap();
            let out = String::from_utf8_lossy(&edited.stdout).into_owned();
            assert!(edited.status.code() == Some(1) && out.contains("balance: epoch 1, hour "), "{out}");
        })
        .await;
}

//! The audit of a ledger: by the gateway's own program, and by the independent program of `docs/`.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{READ, World, empty, request, run, stderr, stdout, tool, until};

/// Runs `tallygate ledger ...`. Returns exit code, standard output and standard error.
async fn ledger(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let mut all = vec!["ledger"];
    all.extend(arguments);
    let ended = run(world.tallygate(&all)).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

/// Runs the independent program of `docs/` on an export.
async fn independent_audit(export: &Path) -> (bool, String, String) {
    let mut python = tool("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/check_ledger.py")).arg(export);
    let ended = run(python).await;
    (ended.status.success(), stdout(&ended), stderr(&ended))
}

/// Verifies and exports the book, and requires the independent program to agree. Returns the output of the independent
/// program.
async fn assert_sound(book: &Path, what: &str) -> String {
    let tallygate = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
        command.args(["ledger", arguments[0], "--ledger"]).arg(book).args(&arguments[1..]).stdin(Stdio::null());
        command
    };
    let verified = run(tallygate(&["verify"])).await;
    let (out, err) = (stdout(&verified), stderr(&verified));
    assert!(verified.status.success() && out.starts_with("sound: "), "{what}: {out}{err}");
    let file = book.with_extension("export");
    let _ = std::fs::remove_file(&file); // a file of an earlier export
    let exported = run(tallygate(&["export", "--output", file.to_str().unwrap()])).await;
    assert!(exported.status.success(), "{what}: {}", stderr(&exported));
    let (agrees, sums, err) = independent_audit(&file).await;
    assert!(agrees, "{what}: {sums}{err}");
    sums + &err
}

#[tokio::test]
async fn ledger_is_sound_live_killed_copied_and_closed() {
    let mut world = World::city().start_process().await;
    for client in [world.client("traffic-police"), world.client("logistics").h2()] {
        for _ in 0..20 {
            assert_eq!(client.get(READ).await.status, 200);
        }
    }
    let client = world.client("traffic-police");
    let held =
        tokio::spawn(async move { client.try_send(request("GET", "/cameras/do/never", empty())).await.is_err() });
    until("the command is in flight", async || (world.server("cameras").log.all().len() == 41).then_some(())).await;
    let (book, copy) = (world.book(), world.folder().join("copy/ledger.db"));
    let sums = assert_sound(&book, "live").await;
    assert!(sums.contains("traffic-police\tin_flight\t1\t"), "{sums}");
    let (code, out, _) = ledger(&world, &["info", "--ledger", "data/ledger.db"]).await;
    assert!(code == 0 && out.contains("running, process") && out.contains("41 received"), "{out}");
    world.kill().await;
    assert!(held.await.unwrap());
    let sums = assert_sound(&book, "killed").await;
    assert!(
        sums.contains("traffic-police\tinterrupted\t1\t") && !sums.contains("in_flight"),
        "equal to the reports: {sums}"
    );
    std::fs::create_dir(world.folder().join("copy")).unwrap();
    for file in ["ledger.db", "ledger.db-wal", "ledger.tally"] {
        std::fs::copy(world.folder().join("data").join(file), world.folder().join("copy").join(file)).unwrap();
    }
    assert_sound(&copy, "a copy").await;
    let (code, out, err) = ledger(&world, &["verify", "--ledger", "copy/ledger.db", "--format", "json"]).await;
    assert_eq!(code, 0, "{out}{err}");
    let verdict: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(verdict["ok"], true);
    world.start_process().await;
    assert_sound(&book, "recovered").await;
    let (code, out, err) = ledger(&world, &["info", "--ledger", "data/ledger.db"]).await;
    assert!(code == 0 && out.contains("the process died; counts exact"), "{out}{err}");
    world.stop().await;
    let sums = assert_sound(&book, "closed").await;
    assert!(sums.contains("\n2 seals, head 2:"), "the ends of two epochs: {sums}");
    world.close().await;
}

#[tokio::test]
async fn independent_audit_script_confirms_the_ledger() {
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
    let (assert_sound, sums, err) = independent_audit(&world.folder().join("export.txt")).await;
    assert!(assert_sound && err.starts_with("5 seals"), "{sums}{err}");
    let police = "traffic-police\tadjustment\t1\t-3\ntraffic-police\tadmitted\t21\t21\ntraffic-police\tok\t21\t21\n";
    assert!(sums.contains(police) && sums.contains("traffic-police\tunknown_command\t3\t0\n"), "{sums}");
    let text = std::fs::read_to_string(world.folder().join("export.txt")).unwrap();
    for (what, from, to, says) in [
        ("a count", "\tok\t0\t7\t", "\tok\t0\t8\t", "seal 1 (hour 2026-10-31T12:00:00Z): its rows"),
        ("a correction", "\t-3\ta test", "\t-4\ta test", "seal 4 (adjustment -): its rows"),
        ("a seal", "\nseal\t2\t", "\nseal\t9\t", "seal 9 does not follow seal 1"),
        ("an ending", "\tclean\nseal\t1", "\tprocess died\nseal\t1", "seal 5: epoch 1 did not end as the book says"),
        ("an ending everywhere", "\tclean\n", "\tprocess died\n", "seal 5 (epoch -): its rows"),
        (
            "hours that days stand for",
            "\t1970-01-01T00:00:00Z\t0\n",
            "\t2026-10-31T13:00:00Z\t0\n",
            "no day covers the seals 1,",
        ),
        ("the end", "\nend\t5\t0\n", "\n", "does not end with"),
        ("another form", "tallygate export 1\t", "tallygate export 9\t", "not an export of a form known here"),
    ] {
        assert!(text.contains(from), "{from:?} is in the export: {text}");
        let times = if what.ends_with("everywhere") { 9 } else { 1 };
        std::fs::write(world.folder().join("edited.txt"), text.replacen(from, to, times)).unwrap();
        let (assert_sound, _, err) = independent_audit(&world.folder().join("edited.txt")).await;
        assert!(!assert_sound && err.contains(says), "{what} was edited: {err}");
    }
    world.close().await;
}

#[tokio::test]
async fn edited_ledger_is_detected_and_invalid_arguments_are_reported() {
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
    assert!(code == 2 && err.contains("no record of nobody"), "{code} {err}");
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
            assert!(
                edited.status.code() == Some(1)
                    && out.contains("balance: epoch 1, hour ")
                    && out.contains(", traffic-police/cameras/snapshot.read: 1 commands"),
                "{out}"
            );
        })
        .await;
}

#[tokio::test]
async fn adjustment_is_in_every_report_format_and_separate_from_usage() {
    let clock = tallygate::clock::Clock::manual("2026-10-20T00:00:00Z".parse().unwrap());
    let world = World::city().clock(clock).start().await;
    for _ in 0..5 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    }
    let known = "SELECT count(*) FROM series WHERE department = 'traffic-police'";
    let book = rusqlite::Connection::open(world.book()).unwrap();
    let is_known = || book.query_row(known, [], |row| row.get::<_, i64>(0)).unwrap() > 0;
    until("the book knows the department", async || is_known().then_some(())).await;
    for (period, units) in [("2026-10", "--units=-5"), ("2026-10-20", "--units=2"), ("2026-11-02", "--units=7")] {
        let whom = ["adjust", "--ledger", "data/ledger.db", "--department", "traffic-police", "--period", period];
        let why = [units, "--reason", "a test", "--who", "finance"];
        let (code, _, err) = ledger(&world, &[&whom[..], &why].concat()).await;
        if period == "2026-11-02" {
            assert_eq!(code, 2, "more than the usage of the period, without a confirmation: {err}");
            assert!(err.contains("+7 units exceed the 0 units") && err.contains("--yes"), "{err}");
            let (code, _, err) = ledger(&world, &[&whom[..], &why, &["--yes"]].concat()).await;
            assert_eq!(code, 0, "{err}");
        } else {
            assert_eq!(code, 0, "{err}");
        }
    }
    let ahead = ["adjust", "--ledger", "data/ledger.db", "--department", "traffic-police", "--period", "2999-01"];
    let (code, _, err) =
        ledger(&world, &[&ahead[..], &["--units=-1", "--reason", "a test", "--who", "finance"]].concat()).await;
    assert!(code == 2 && err.contains("the period 2999-01 has not begun"), "{code} {err}");
    let report = async |to: &str, format: &str| {
        let of = ["report", "usage", "--ledger", "data/ledger.db", "--by", "department,day", "--from", "2026-10-20"];
        let ended = run(world.tallygate(&[&of[..], &["--to", to, "--format", format]].concat())).await;
        assert!(ended.status.success(), "{}", stderr(&ended));
        (stdout(&ended), stderr(&ended))
    };
    let (text, err) = report("2026-10-21", "json").await;
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    let units: Vec<_> = shown["adjustments"].as_array().unwrap().iter().map(|one| one["units"].as_i64()).collect();
    assert_eq!((units, &shown["total"]["units"]), (vec![Some(2)], &5.into()), "{shown}");
    assert!(err.contains("1 correction of a period that is only partly in this range"), "{err}");
    let (text, _) = report("2026-10-21", "csv").await;
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("traffic-police,2026-10-20,0,0,0,0,0,2,2,2,2026-10-20,a test,finance,"), "{text}");
    assert!(last.contains(",2026-10-19T16:00:00Z,2026-10-20T16:00:00Z,UTC+08:00,"), "{text}");
    let (text, _) = report("2026-10-21", "table").await;
    assert!(text.contains("Corrections, not included in the lines above") && text.contains(" +2 "), "{text}");
    assert!(text.contains("net units") && text.lines().last().unwrap().ends_with(" 7"), "5 + 2: {text}");
    let (_, page) = world.admin("/api/v1/usage?from=2026-10-20&to=2026-10-21&by=department,day").await;
    let page: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!(page["adjustments"], shown["adjustments"]);
    assert_eq!(page["completeness"]["gateway"], shown["completeness"]["gateway"]);
    assert_eq!((&page["net_units"], &shown["net_units"]), (&7.into(), &7.into()));
    drop(book);
    world.close().await;
}

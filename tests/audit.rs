//! The ledger's own commands on the real binary: live, after a kill, on a copy; and a stranger's program beside them.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tallygate::clock::Clock;

use crate::world::{World, empty, request, run, stderr, stdout, tool, until};

const READ: &str = "/cameras/v1/snapshots/1";

async fn ledger(world: &World, arguments: &[&str]) -> Output {
    let (book, mut all) = (world.book(), vec!["ledger", arguments[0], "--ledger"]);
    all.push(book.to_str().unwrap());
    all.extend(&arguments[1..]);
    run(world.tallygate(&all)).await
}

fn words(output: &Output) -> String {
    format!("{}{}", stdout(output), stderr(output))
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|error| panic!("{error}: {}", words(output)))
}

/// The verdict must be `sound`; returns the head for `--head`.
async fn assert_sound(world: &World) -> String {
    let verified = ledger(world, &["verify", "--format", "json"]).await;
    assert_eq!(verified.status.code(), Some(0), "{}", words(&verified));
    let verdict = json(&verified);
    assert_eq!(verdict["ok"], true, "{verdict}");
    format!("{}:{}", verdict["head"]["number"], verdict["head"]["hash"].as_str().unwrap())
}

/// `docs/check_ledger.py` on an export: its exit code, and the sums of each department by column.
async fn checked(export: &Path) -> (Option<i32>, String, Vec<Vec<String>>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/check_ledger.py");
    let mut python = tool("python3");
    python.arg(script).arg(export);
    let ended = run(python).await;
    let table = stdout(&ended).lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    (ended.status.code(), words(&ended), table)
}

async fn exported(world: &World, name: &str) -> PathBuf {
    let file = world.folder().join(name);
    let ended = ledger(world, &["export", "--output", file.to_str().unwrap()]).await;
    assert_eq!(ended.status.code(), Some(0), "{}", words(&ended));
    file
}

/// What the check says of a column of a department.
fn sum(table: &[Vec<String>], department: &str, column: &str) -> u64 {
    let at = table[0].iter().position(|name| name == column).unwrap();
    table.iter().find(|row| row[0] == department).unwrap()[at].parse().unwrap()
}

/// Sends some commands that are answered and some that are refused.
async fn some(world: &World) {
    for _ in 0..5 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
        assert_eq!(world.client("archive").get(READ).await.status, 403);
    }
}

#[tokio::test]
async fn a_ledger_is_looked_into_live_killed_and_as_a_copy() {
    let mut world = World::city().start_process().await;
    some(&world).await;
    let client = world.client("traffic-police");
    let held =
        tokio::spawn(async move { client.try_send(request("GET", "/cameras/do/never", empty())).await.is_err() });
    until("the command is in flight", async || (world.server("cameras").log.all().len() == 6).then_some(())).await;

    let pid = world.process_id();
    let info = json(&ledger(&world, &["info", "--format", "json"]).await);
    assert_eq!((&info["kept_by"], &info["in_flight"]["commands"]), (&pid.into(), &1.into()), "{info}");
    assert_eq!((&info["live"]["received"], &info["live"]["refused"]), (&11.into(), &5.into()), "{info}");
    let shown = ledger(&world, &["info"]).await;
    assert!(stdout(&shown).contains(&format!("running, process {pid}")), "{}", words(&shown));
    assert_sound(&world).await;
    let (code, said, table) = checked(&exported(&world, "live.txt").await).await;
    assert_eq!((code, sum(&table, "traffic-police", "in_flight")), (Some(0), 1), "{said}");

    let copy = world.folder().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in ["ledger.db", "ledger.db-wal", "ledger.tally"] {
        std::fs::copy(world.folder().join("data").join(file), copy.join(file)).unwrap();
    }
    let book = copy.join("ledger.db");
    let verified = run(world.tallygate(&["ledger", "verify", "--ledger", book.to_str().unwrap()])).await;
    assert_eq!(verified.status.code(), Some(0), "{}", words(&verified));
    assert!(stdout(&verified).ends_with("verdict      sound\n"), "{}", words(&verified));

    world.kill().await;
    assert!(held.await.unwrap());
    assert_sound(&world).await;
    let info = json(&ledger(&world, &["info", "--format", "json"]).await);
    assert_eq!((&info["kept_by"], &info["live"]["in_flight"]), (&Value::Null, &1.into()), "{info}");
    let (code, said, table) = checked(&exported(&world, "dead.txt").await).await;
    assert_eq!((code, sum(&table, "traffic-police", "finished")), (Some(0), 6), "{said}");

    world.start_process().await;
    assert_sound(&world).await;
    let info = stdout(&ledger(&world, &["info"]).await);
    assert!(info.contains("process died (counts exact)"), "{info}");
    world.close().await;
}

#[tokio::test]
async fn a_strangers_program_recomputes_every_sum_and_hash() {
    let clock = Clock::manual("2026-10-31T14:10:00Z".parse().unwrap());
    let mut world = World::city().clock(clock).start().await;
    for _ in 0..3 {
        some(&world).await;
        world.clock.advance(std::time::Duration::from_secs(3600 + 120));
        let hours = "SELECT count(*) FROM unsealed WHERE \"window\" < (SELECT max(\"window\") FROM unsealed)";
        world.stop().await; // a start seals what the life before has left
        world.start_here().await;
        until("the hour is sealed", async || (number(&world.book(), hours) == 0).then_some(())).await;
    }
    let adjusted = ["adjust", "--department", "traffic-police", "--period", "2026-10", "--units=-5"];
    let why = ["--reason", "a test of the new cameras", "--who", "finance"];
    let ended = ledger(&world, &[&adjusted[..], &why[..]].concat()).await;
    assert_eq!((ended.status.code(), stdout(&ended).as_str()), (Some(0), "1\n"), "{}", words(&ended));
    let export = exported(&world, "export.txt").await;
    let (code, said, table) = checked(&export).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((sum(&table, "traffic-police", "finished"), sum(&table, "archive", "refused")), (15, 15), "{said}");
    assert!(said.contains("\t-5\n") && said.contains(&assert_sound(&world).await), "{said}");
    tampered(&export).await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 15);
}

fn number(book: &Path, query: &str) -> i64 {
    rusqlite::Connection::open(book).unwrap().query_row(query, [], |row| row.get(0)).unwrap()
}

/// Whatever is changed in an export, the check finds it.
async fn tampered(export: &Path) {
    let text = std::fs::read_to_string(export).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let of = |word: &str| lines.iter().position(|line| line.starts_with(word)).unwrap();
    let without = |at: usize| [&lines[..at], &lines[at + 1..]].concat().join("\n") + "\n";
    let usage = lines[of("usage\ttraffic-police")];
    for (what, changed, says) in [
        ("an edited sum", text.replacen(usage, &usage.replace("\tok\t0\t5\t", "\tok\t0\t4\t"), 1), "not the rows"),
        ("a missing row", without(of("usage\t")), "not the rows"),
        ("a missing seal", without(of("seal\t2\t")), "it should be number 2"),
        ("another moment", text.replacen("Z\nadmission", "1Z\nadmission", 1), "its hash is"),
        ("an edited correction", text.replacen("\t-5\t", "\t-50\t", 1), "not the rows"),
        ("a cut end", text[..text.rfind("end\t").unwrap()].to_owned(), "not whole"),
        ("an earlier end", text.replacen(lines[of("end\t")], "end\t1\t1", 1), "not whole"),
        ("something else", "hello\n".to_owned(), "not an export"),
    ] {
        assert_ne!(changed, text, "{what}");
        let file = export.with_extension("changed");
        std::fs::write(&file, &changed).unwrap();
        let (code, said, _) = checked(&file).await;
        assert!(code == Some(1) && said.contains(says), "{what}: {code:?} {said}");
    }
}

#[tokio::test]
async fn a_tampered_ledger_is_told_with_its_place_and_exit_code_1() {
    let mut world = World::city().start_process().await;
    some(&world).await;
    world.stop().await;
    assert_sound(&world).await;
    let book = rusqlite::Connection::open(world.book()).unwrap();
    let change = |by: &str| book.execute(&format!("UPDATE usage SET commands = commands {by} WHERE outcome = 1"), []);
    assert_eq!(change("- 1").unwrap(), 1);
    let verified = ledger(&world, &["verify"]).await;
    assert_eq!(verified.status.code(), Some(1), "{}", words(&verified));
    assert!(stdout(&verified).contains("balance: epoch 1, hour "), "{}", words(&verified));
    assert!(stdout(&verified).contains("traffic-police/cameras/snapshot.read"), "{}", words(&verified));
    change("+ 1").unwrap();
    assert_sound(&world).await;
    let other = format!("7:{}", "0".repeat(64));
    for (noted, code) in [(other.as_str(), 1), ("7", 2)] {
        let verified = ledger(&world, &["verify", "--head", noted]).await;
        assert_eq!(verified.status.code(), Some(code), "{noted}: {}", words(&verified));
    }
    drop(book);
    world.close().await;
}

#[tokio::test]
async fn a_correction_is_in_the_reports_and_a_wrong_one_is_refused() {
    let world = World::city().clock(Clock::manual("2026-10-20T00:00:00Z".parse().unwrap())).start().await;
    some(&world).await;
    until("the book knows them", async || (number(&world.book(), "SELECT count(*) FROM series") > 1).then_some(()))
        .await;
    let adjust = async |department: &str, period: &str, units: &str| {
        let units = format!("--units={units}");
        let whom = ["adjust", "--department", department, "--period", period, &units];
        ledger(&world, &[&whom[..], &["--reason", "a test", "--who", "finance"]].concat()).await
    };
    for (department, period, units, code) in [
        ("traffic-police", "2026-10", "-5", 0),
        ("traffic-police", "2026-11-02", "7", 0),
        ("nobody", "2026-10", "-5", 1),
        ("traffic-police", "October", "-5", 2),
        ("traffic-police", "2026-10", "0", 2),
        ("Traffic Police", "2026-10", "-5", 2),
    ] {
        let ended = adjust(department, period, units).await;
        assert_eq!(ended.status.code(), Some(code), "{department} {period} {units}: {}", words(&ended));
    }
    let report = async |format: &str| {
        let book = world.book();
        let book = book.to_str().unwrap();
        let of = ["report", "usage", "--ledger", book, "--from", "2026-10-01", "--to", "2026-11-01"];
        run(world.tallygate(&[&of[..], &["--format", format]].concat())).await
    };
    let shown = json(&report("json").await);
    assert_eq!(shown["adjustments"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!((&shown["adjustments"][0]["units"], &shown["total"]["units"]), (&(-5).into(), &5.into()), "{shown}");
    assert!(stdout(&report("table").await).contains("correction of"));
    let csv = report("csv").await;
    assert!(!stdout(&csv).contains("a test") && stderr(&csv).contains("1 correction of this range"), "{}", words(&csv));
    let (_, page) = world.admin("/api/v1/usage?from=2026-10-01&to=2026-11-01").await;
    assert_eq!(serde_json::from_str::<Value>(&page).unwrap()["adjustments"], shown["adjustments"]);
    world.close().await;
}

#[tokio::test]
async fn exit_codes_of_the_ledgers_commands_are_those_of_the_contract() {
    let mut world = World::city().start_process().await;
    world.stop().await;
    std::fs::write(world.folder().join("none.db"), "not a book at all, but long enough to be looked at").unwrap();
    let book = world.book();
    let book = book.to_str().unwrap();
    for (arguments, code) in [
        (&["ledger"][..], 2),
        (&["ledger", "info"], 2),
        (&["ledger", "info", "--ledger", "missing.db"], 2),
        (&["ledger", "verify", "--ledger", "data"], 2),
        (&["ledger", "verify", "--ledger", "none.db"], 74),
        (&["ledger", "export", "--ledger", "none.db"], 74),
        (&["ledger", "export", "--ledger", book, "--output", book], 2),
        (&["ledger", "export", "--ledger", book, "--output", "no/such/folder.txt"], 74),
        (&["ledger", "adjust", "--ledger", book], 2),
        (&["ledger", "info", "--ledger", book], 0),
        (&["ledger", "verify", "--ledger", book], 0),
        (&["ledger", "export", "--ledger", book, "--format", "json"], 0),
    ] {
        let ended = run(world.tallygate(arguments)).await;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {}", words(&ended));
    }
    world.close().await;
}

//! Reports over several ledgers: gateways that each keep their own.

use std::path::Path;

use serde_json::Value;

use crate::world::{READ, SUBMIT, Usage, World, empty, request, run, stderr, stdout};

/// Runs `tallygate report usage` over ledgers. Returns exit code, standard output and standard error.
async fn report(world: &World, ledgers: &[&str], more: &[&str]) -> (i32, String, String) {
    let mut all = vec!["report", "usage"];
    all.extend(ledgers.iter().flat_map(|ledger| ["--ledger", ledger]));
    if !more.contains(&"--period") {
        all.extend(["--from", "2026-01-01", "--to", "2100-01-01"]); // also at the end of a month
    }
    all.extend(more);
    let ended = run(world.tallygate(&all)).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

async fn json_report(world: &World, ledgers: &[&str], more: &[&str]) -> Value {
    let (code, out, err) = report(world, ledgers, &[more, &["--format", "json"]].concat()).await;
    assert_eq!(code, 0, "{out}{err}");
    serde_json::from_str(&out).unwrap()
}

/// Returns the commands of each department and outcome that the callers of the worlds saw.
fn seen_by_callers(worlds: &[&World]) -> Vec<(String, String, u64)> {
    let mut seen = std::collections::BTreeMap::new();
    for sent in worlds.iter().flat_map(|world| world.log.all()) {
        let crate::world::Seen::Outcome(outcome) = sent.seen else { panic!("a whole answer: {sent:?}") };
        *seen.entry((sent.department, outcome.to_owned())).or_default() += 1;
    }
    seen.into_iter().map(|((department, outcome), commands)| (department, outcome, commands)).collect()
}

fn rows_of(document: &Value) -> Vec<(String, String, u64)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let row = |row: &Value| (text(row, "department"), text(row, "outcome"), row["commands"].as_u64().unwrap());
    document["rows"].as_array().unwrap().iter().map(row).collect()
}

fn path(book: &Path) -> String {
    book.display().to_string()
}

#[tokio::test]
async fn report_over_two_gateways_equals_the_sum_of_what_their_callers_saw() {
    let (mut live, mut closed) = (World::city().start().await, World::city().start().await);
    for (world, times) in [(&live, 7), (&closed, 5)] {
        for _ in 0..times {
            assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
            assert_eq!(world.client("archive").h2().get(READ).await.status, 403);
        }
    }
    let submitted = closed.client("traffic-police").send(request("POST", SUBMIT, empty())).await;
    assert_eq!(submitted.status, 200);
    assert_eq!(closed.client("logistics").get(READ).await.status, 200);
    closed.stop().await;

    let (one, other) = (path(&live.book()), path(&closed.book()));
    let by = ["--by", "department,outcome"];
    let both = json_report(&live, &[&one, &other], &by).await;
    assert_eq!(rows_of(&both), seen_by_callers(&[&live, &closed]), "{both}");
    assert_eq!(rows_of(&json_report(&live, &["data/ledger.db"], &by).await), seen_by_callers(&[&live]));
    let units = |document: &Value| document["total"]["units"].as_u64().unwrap();
    let [first, second] =
        [json_report(&live, &[&one], &by).await, json_report(&live, &[&other], &by).await].map(|one| units(&one));
    assert_eq!(units(&both), first + second);

    let ledgers = both["ledgers"].as_array().unwrap();
    assert_eq!(ledgers.iter().map(|ledger| &ledger["path"]).collect::<Vec<_>>(), [&one, &other], "{both}");
    assert!(ledgers[0]["ended_at"].is_null() && ledgers[1]["ended_at"].is_string(), "live and closed: {both}");
    assert!(ledgers.iter().all(|ledger| ledger["begins"].is_string()), "{both}");
    assert_ne!(ledgers[0]["id"], ledgers[1]["id"]);

    let together = ["report", "usage", "--ledger", &one, &other, "--by", "department"];
    let table = run(live.tallygate(&together)).await;
    assert!(stdout(&table).contains("ledgers   2\n"), "both paths after one --ledger, as a shell expands them");
    let (_, csv, _) = report(&live, &[&one, &other], &["--by", "department", "--format", "csv"]).await;
    assert!(csv.lines().filter(|line| line.starts_with(",0,0,0,0,0,0,0,")).count() == 2, "a line for each: {csv}");
    live.stop().await;
    let sum = [live.close().await, closed.close().await].iter().map(|usage| usage.sum(|_| true)).sum::<u64>();
    assert_eq!(both["total"]["commands"], sum);
}

#[tokio::test]
async fn pattern_matches_the_books_of_all_gateways_and_a_copy_is_refused() {
    let mut world = World::city().start().await;
    for _ in 0..3 {
        assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    }
    std::fs::write(world.folder().join("data/notes.txt"), "not a ledger").unwrap();
    let whole = json_report(&world, &["data/*"], &[]).await;
    assert_eq!((&whole["total"]["commands"], whole["ledgers"].as_array().unwrap().len()), (&3.into(), 1), "{whole}");
    let (_, _, err) = report(&world, &["data/*"], &[]).await;
    assert!(err.contains("note: data/notes.txt is not a ledger: left out"), "{err}");

    let copied =
        run(world.tallygate(&["ledger", "backup", "--ledger", "data/ledger.db", "--out", "data/copy.db"])).await;
    assert!(copied.status.success(), "{}", stderr(&copied));
    std::os::unix::fs::symlink("ledger.db", world.folder().join("data/link.db")).unwrap();
    for (ledgers, problem) in [
        (&["data/ledger.db", "data/copy.db"][..], "data/ledger.db and data/copy.db are copies of one ledger"),
        (&["data/c*.db", "data/l*r.db"], "data/copy.db and data/ledger.db are copies of one ledger"),
        (&["data/ledger.db", "data/link.db"], "data/ledger.db and data/link.db are the same file"),
        (&["data/ledger.db", "data/ledger.db"], "data/ledger.db is named twice"),
        (&["elsewhere/*.db"], "--ledger \"elsewhere/*.db\": no ledger matches this pattern"),
    ] {
        let (code, out, err) = report(&world, ledgers, &[]).await;
        assert_eq!((code, out.as_str()), (2, ""), "{ledgers:?}: {err}");
        assert!(err.contains(problem), "{ledgers:?}: {err}");
    }
    world.stop().await;
    world.close().await;
}

#[tokio::test]
async fn ledger_that_cannot_be_read_or_has_another_calendar_prevents_the_whole_report() {
    let mut east = World::city().start().await;
    let mut utc = World::city().build();
    utc.write(|document| document["calendar"]["offset"] = "+00:00".into());
    utc.start_here().await;
    for world in [&east, &utc] {
        assert_eq!(world.client("logistics").get(READ).await.status, 200);
    }
    let (one, other) = (path(&east.book()), path(&utc.book()));
    let (code, out, err) = report(&east, &[&one, &other], &[]).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("UTC+08:00") && err.contains("UTC+00:00") && err.contains("calendar.offset"), "{err}");

    std::fs::write(east.folder().join("data/damaged.db"), "SQLite format 3\0, but no more").unwrap();
    let (code, out, err) = report(&east, &["data/*"], &[]).await;
    assert_eq!((code, out.as_str()), (74, ""), "{err}");
    assert!(err.contains("no sum of 2 ledgers, because data/damaged.db cannot be read"), "{err}");
    for world in [&mut east, &mut utc] {
        world.stop().await;
    }
    for (world, commands) in [(east, 1), (utc, 1)] {
        assert_eq!(Usage::sum(&world.close().await, |_| true), commands);
    }
}

#[tokio::test]
async fn report_names_the_ledger_that_does_not_cover_its_range() {
    let clock = || tallygate::clock::Clock::manual("2026-10-15T03:00:00Z".parse().unwrap());
    let mut early = World::city().clock(clock()).start().await;
    assert_eq!(early.client("traffic-police").get(READ).await.status, 200);
    early.stop().await;
    let later = tallygate::clock::Clock::manual("2026-10-20T03:00:00Z".parse().unwrap());
    let mut late = World::city().clock(later).start().await;
    assert_eq!(late.client("traffic-police").get(READ).await.status, 200);
    late.stop().await;
    let (one, other) = (path(&early.book()), path(&late.book()));
    let (code, out, err) = report(&early, &[&one, &other], &["--period", "2026-10-15"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("note: counted only a part of the range, 2 of 2 ledgers:"), "{err}");
    for line in [
        format!("no counts {one}: 2026-10-14T16:00:00Z to 2026-10-15T03:00:00Z: before its first start\n"),
        format!("no counts {one}: 2026-10-15T03:00:00Z to 2026-10-15T16:00:00Z: closed\n"),
        format!("no counts {other}: 2026-10-14T16:00:00Z to 2026-10-15T16:00:00Z: before its first start\n"),
    ] {
        assert!(out.contains(&line), "{line}{out}");
    }
    for world in [early, late] {
        assert_eq!(Usage::sum(&world.close().await, |_| true), 1);
    }
}

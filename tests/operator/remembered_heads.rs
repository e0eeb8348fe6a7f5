//! `ledger verify --prometheus`: somebody else's Prometheus as a witness of the hash chain.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::reconciliation::load;
use super::sealed_hours::{History, prometheus_on, seconds};
use super::third_party_tools::query_at;
use crate::world::{Process, reserve_address, run, stderr, stdout, until};

const START: &str = "2026-10-01T00:10:00Z";

/// A ledger of six hours, with `commands` in the third one.
async fn ledger(commands: u32) -> History {
    let history = History::open(START, None).await;
    for hour in 0..6 {
        history.count(1, 1, if hour == 2 { commands } else { 3 });
        history.pass_to(seconds(START) + (hour + 1) * 3600).await;
    }
    history.pass_to(seconds(START) + 10 * 3600).await;
    history
}

/// A Prometheus that remembers the hours of a ledger.
async fn witness(history: &History, range: &[&str]) -> (Process, String) {
    let (file, blocks) = (history.folder.path().join("hours.om"), history.folder.path().join("blocks"));
    let options = ["--format", "openmetrics", "--label", "job=tallygate-hours", "--output", file.to_str().unwrap()];
    let (code, _, err) = history.export(&[&options[..], range].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    load(&file, &blocks).await;
    let address = reserve_address();
    let process = prometheus_on(&blocks, address);
    until("Prometheus answers", async || query_at(address, "vector(1)", None).await).await;
    (process, format!("http://{address}"))
}

async fn verify(book: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
    command.args(["ledger", "verify", "--ledger"]).arg(book).args(arguments);
    let ended = run(command).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

#[tokio::test]
async fn chain_is_held_against_the_heads_that_a_prometheus_remembers() {
    let history = ledger(5).await;
    let range = ["--from", "2026-10-01T00:00:00Z", "--to", "2026-10-01T06:00:00Z"];
    let (mut process, url) = witness(&history, &range).await;
    let (code, out, err) = verify(&history.book(), &["--prometheus", &url]).await;
    assert_eq!(code, 0, "{out}{err}");
    let remembered = "the Prometheus remembers the heads of 6 hours, and not of 4 hours: \
                      2026-10-01T06:00:00Z to 2026-10-01T10:00:00Z\n";
    assert!(out.starts_with("sound: ") && out.ends_with(remembered), "{out}");
    assert!(out.contains("after the noted head: "), "the newest head counts as one that was noted: {out}");
    let (code, json, _) = verify(&history.book(), &["--prometheus", &url, "--format", "json"]).await;
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &found["ok"], &found["prometheus"]["compared"]), (0, &true.into(), &6.into()), "{json}");

    // A book that was written anew with another number in the third hour is sound by itself.
    let rewritten = ledger(4).await;
    assert_eq!(verify(&rewritten.book(), &[]).await.0, 0);
    let (code, out, _) = verify(&rewritten.book(), &["--prometheus", &url]).await;
    assert!(code == 1 && out.contains("NOT sound"), "{out}");
    let finding = out.lines().find(|line| line.starts_with("witness: ")).unwrap();
    assert!(finding.contains(": the Prometheus remembers the head "), "{finding}");
    assert!(finding.contains("one of the two was rewritten"), "{finding}");

    // Nothing is remembered of this ledger.
    let none = ["--prometheus", url.as_str(), "--matcher", "job=\"other\""];
    let (code, out, _) = verify(&history.book(), &none).await;
    assert!(code == 1 && out.contains("witness: the Prometheus: it has no head of an hour of this ledger"), "{out}");
    process.signal("TERM");
    process.ended().await;
}

#[tokio::test]
async fn older_copy_of_a_book_is_found_by_the_hours_that_a_prometheus_remembers() {
    let history = History::open(START, None).await;
    history.count(1, 1, 5);
    history.pass_to(seconds(START) + 3600).await;
    let copy = history.folder.path().join("copy.db");
    let mut backup = Command::new(env!("CARGO_BIN_EXE_tallygate"));
    backup.args(["ledger", "backup", "--ledger"]).arg(history.book()).arg("--out").arg(&copy);
    assert!(run(backup).await.status.success());
    history.count(1, 1, 7);
    history.pass_to(seconds(START) + 10 * 3600).await;
    let (mut process, url) = witness(&history, &[]).await;
    assert_eq!(verify(&history.book(), &["--prometheus", &url]).await.0, 0);
    let (code, out, _) = verify(&copy, &["--prometheus", &url]).await;
    let place = "witness: hour 2026-10-01T01:00:00Z, and ";
    assert!(code == 1 && out.lines().any(|line| line.starts_with(place)), "{out}");
    assert!(out.contains("the book has not sealed this hour: it is an older copy"), "{out}");
    process.signal("TERM");
    process.ended().await;
}

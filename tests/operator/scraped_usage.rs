//! `report usage --prometheus`: the report of a real Prometheus is that of the ledger, byte for byte; a Prometheus that
//! gives no usable answer fails the report with a sentence.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use super::sealed_hours::{History, prometheus_on, seconds};
use super::third_party_tools::query_at;
use crate::world::{reserve_address, run, stderr, stdout, tool, until};

/// Runs `report usage`. Returns exit code, stdout and stderr.
pub(super) async fn report(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallygate"));
    command.args(["report", "usage"]).args(arguments);
    let ended: Output = run(command).await;
    (ended.status.code().unwrap(), stdout(&ended), stderr(&ended))
}

/// Writes hours of the ledger into blocks for a Prometheus.
pub(super) async fn load(history: &History, arguments: &[&str]) {
    let folder = history.folder.path();
    let file = folder.join("hours.om");
    let _ = std::fs::remove_file(&file); // of the load before
    let output = ["--format", "openmetrics", "--output", file.to_str().unwrap()];
    let (code, _, err) = history.export(&[&output[..], arguments].concat()).await;
    assert_eq!((code, err.as_str()), (0, ""));
    let mut promtool = tool("promtool");
    promtool.args(["tsdb", "create-blocks-from", "--max-block-duration=768h", "openmetrics", "-q"]);
    promtool.arg(&file).arg(folder.join("blocks"));
    let ended = run(promtool).await;
    assert!(ended.status.success(), "{}{}", stdout(&ended), stderr(&ended));
}

/// Four days in +08:00 with usage of three departments and two subsystems.
async fn four_days() -> History {
    let history = History::open("2026-09-30T16:10:00Z", None).await;
    let start = seconds("2026-09-30T16:10:00Z");
    for hour in 0..97_u32 {
        if hour % 5 == 0 {
            history.count(hour % 3, hour % 2, hour % 7 + 1);
        }
        history.pass_to(start + i64::from(hour + 1) * 3600).await;
    }
    history
}

#[tokio::test]
async fn report_of_a_real_prometheus_is_that_of_the_ledger() {
    let history = four_days().await;
    // Two servers have the same samples. The third day is in neither.
    for instance in ["instance=a", "instance=b"] {
        load(&history, &["--from", "2026-10-01", "--to", "2026-10-03", "--label", instance]).await;
        load(&history, &["--from", "2026-10-04", "--to", "2026-10-05", "--label", instance]).await;
    }
    let address = reserve_address();
    let mut prometheus = prometheus_on(&history.folder.path().join("blocks"), address);
    until("Prometheus answers", async || query_at(address, "vector(1)", None).await).await;
    let (url, book) = (format!("http://{address}/"), history.book());
    let book = book.to_str().unwrap();
    for by in ["department,subsystem", "department", "subsystem,day", "month", "hour,department", "namespace"] {
        for format in ["table", "csv", "json"] {
            let days = ["--from", "2026-10-01", "--to", "2026-10-03"];
            let same = [&days[..], &["--by", by, "--format", format, "--measures", "commands,units"]].concat();
            let ledger = report(&[&["--ledger", book][..], &same[..]].concat()).await;
            let scraped = report(&[&["--prometheus", url.as_str()][..], &same[..]].concat()).await;
            assert_eq!(scraped, ledger, "{by} {format}");
            assert!(ledger.0 == 0 && ledger.1.contains("complete") && ledger.2.is_empty(), "{ledger:?}");
        }
    }
    // Hours 0, 5, .. 45 of the first two days: finished commands, and one refused command for each hour with usage.
    let days = ["--from", "2026-10-01", "--to", "2026-10-03"];
    let (_, csv, _) =
        report(&[&["--prometheus", url.as_str(), "--format", "csv", "--by", "department"][..], &days[..]].concat())
            .await;
    let period = "2026-09-30T16:00:00Z,2026-10-02T16:00:00Z,UTC+08:00,complete";
    let rows = ["department-0,14,0", "department-1,18,15", "department-2,17,28"];
    let rows = rows.map(|row| format!("{row},{period}\n")).concat();
    assert_eq!(csv, format!("department,commands,units,from,to,calendar,state\n{rows}"));
    let (code, table, err) = report(&["--prometheus", url.as_str(), "--period", "2026-10-03"]).await;
    assert!(code == 0 && table.contains("state     open\n"), "{table}");
    assert_eq!(
        err,
        "note: open: the Prometheus does not have all samples of 24 hours, and only whole hours are added: \
         2026-10-02T16:00:00Z to 2026-10-03T16:00:00Z; ledger export --format openmetrics has them\n"
    );
    // Days of another calendar.
    let utc = ["--calendar", "+00:00", "--from", "2026-10-01", "--to", "2026-10-02", "--by", "day"];
    let (code, table, err) = report(&[&["--prometheus", url.as_str()][..], &utc[..]].concat()).await;
    assert!(code == 0 && table.contains("2026-10-01 to 2026-10-02, exclusive (calendar +00:00)"), "{table}{err}");
    prometheus.signal("TERM");
    prometheus.ended().await;
}

/// A server that gives every client this answer.
pub(super) fn fake_prometheus(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut part) = (String::new(), [0; 4096]);
            while !request.contains("time=") {
                let read = stream.read(&mut part).unwrap();
                request += &String::from_utf8_lossy(&part[..read]);
            }
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            let _ = stream.write_all(format!("{head}{answer}").as_bytes());
        }
    });
    address
}

#[tokio::test]
async fn prometheus_without_a_usable_answer_fails_the_report() {
    let lie = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":
        {"__name__":"tallygate_usage_hour_commands","department":"parking"},"values":[[1791129540,"1.5"]]}]}}"#;
    for (answer, code, expected) in [
        ("<html>login</html>", 74, "the answer is not that of the query API (<html>login</html>)"),
        (r#"{"status":"error","error":"query timed out"}"#, 74, "it refused the query"),
        (lie, 74, "the Prometheus has the value \"1.5\" in tallygate_usage_hour_commands{department=\"parking\"}"),
    ] {
        let url = format!("http://me:secret@{}", fake_prometheus(answer));
        let day = ["--from", "2026-10-04T15:00:00Z", "--to", "2026-10-04T16:00:00Z"];
        let (ended, out, err) = report(&[&["--prometheus", url.as_str()][..], &day[..]].concat()).await;
        assert!(
            ended == code && out.is_empty() && err.contains(expected) && !err.contains("secret"),
            "{ended} {out}{err}"
        );
    }
    let away = format!("http://{}", reserve_address());
    for (arguments, code, expected) in [
        (&["--prometheus", away.as_str(), "--period", "2026-10"][..], 74, "failed: no connection"),
        (&["--prometheus", "localhost:9090"], 2, "--prometheus is not the URL of a Prometheus"),
        (&["--prometheus", away.as_str(), "--ledger", "x.db"], 2, "cannot be used with"),
        (&["--prometheus", away.as_str(), "--matcher", "job=a"], 2, "--matcher: \"job=a\" is not a label matcher"),
        (&["--prometheus", away.as_str(), "--by", "outcome"], 2, "samples of hours have no outcome"),
        (
            &["--prometheus", away.as_str(), "--measures", "duration_ns"],
            2,
            "samples of hours have commands and units only",
        ),
        (&["--prometheus", away.as_str(), "--calendar", "+05:30"], 2, "--calendar: \"+05:30\" is not an offset"),
        (&["--ledger", "x.db", "--matcher", "a=\"b\""], 2, "cannot be used with"),
        (&[], 2, "--ledger"),
    ] {
        let (ended, out, err) = report(arguments).await;
        assert!(ended == code && out.is_empty() && err.contains(expected), "{arguments:?}: {ended} {out}{err}");
    }
}

//! The usage page of known rows: sums, texts, escaping, and the style sheet that its policy admits.

use std::num::NonZeroU64;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::ledger::Measures;
use crate::model::{CalendarOffset, Finished, QuotaMeasure, RateLimit};

/// 2026-11-20T04:30:00Z, half past noon in +08:00.
fn facts(rows: Vec<UsageRow>) -> OwnUsageFacts {
    let moment = ForecastMoment { now: time("2026-11-20T04:30:00Z"), calendar: CalendarOffset::default() };
    let mut coverage = crate::report::usage_report::tests::ledger("a", "tallygate").coverage;
    coverage.begins = Some("2026-11-19T22:00:00Z".to_owned());
    coverage.complete_to = Some("2026-11-20T04:00:00Z".to_owned());
    coverage.gaps.clear();
    coverage.completeness.lost_counts.clear();
    let kind = QuotaKind { per: PeriodLength::Day, measure: QuotaMeasure::Commands };
    let amount = NonZeroU64::new(20).expect("not zero");
    let quotas = vec![Quota { kind, amount, warn: vec![80], exceeded: QuotaAction::Refuse }];
    let one = |number| std::num::NonZeroU32::new(number).expect("not zero");
    let rate = RateLimit { count: one(5), unit: RateUnit::Second, burst: one(9) };
    let limits = TrafficLimits { rate: Some(rate), concurrent: None };
    let of_command = OwnLimitScope::Command(name("cameras"), name("read"));
    OwnUsageFacts {
        department: Department {
            number: 1,
            id: name("police"),
            name: "Police <script>alert(1)</script> & Co".to_owned(),
        },
        moment,
        valid_for: Duration::from_secs(60),
        coverage,
        compacted_before: Window(0),
        rows,
        limits: vec![
            OwnLimit { scope: OwnLimitScope::Department, limits },
            OwnLimit { scope: of_command, limits: TrafficLimits { rate: None, concurrent: Some(one(3)) } },
        ],
        quotas,
        quotas_used: vec![QuotaUsed { kind, used: 13 }],
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn row(hour: &str, (command, outcome): (&str, Outcome), commands: u64) -> UsageRow {
    UsageRow {
        window: Window::of_unix_seconds(time(hour).as_second()),
        department: name("police"),
        subsystem: name(if command == "usage.read" { Name::GATEWAY } else { "cameras" }),
        command: name(command),
        outcome,
        totals: Measures { commands, units: if command == "read" { 2 * commands } else { 0 }, ..Measures::default() },
    }
}

fn rows() -> Vec<UsageRow> {
    let ok = Outcome::Finished(Finished::Ok);
    let limited = Outcome::Refused(Refused::RateLimited);
    let mut rows: Vec<_> = (0..6).map(|hour| row(&format!("2026-11-{}Z", HOURS[hour]), ("read", ok), 2)).collect();
    rows.push(row("2026-11-20T04:00:00Z", ("read", ok), 1));
    rows.push(row("2026-11-19T15:00:00Z", ("write", limited), 7)); // yesterday in +08:00
    rows.push(row("2026-11-20T01:00:00Z", ("write", limited), 3));
    rows.push(row("2026-11-20T01:00:00Z", ("usage.read", ok), 4));
    rows.push(row("2026-10-31T15:00:00Z", ("read", ok), 1000)); // last month
    rows
}

const HOURS: [&str; 6] = ["19T22:00:00", "19T23:00:00", "20T00:00:00", "20T01:00:00", "20T02:00:00", "20T03:00:00"];

fn json() -> serde_json::Value {
    let text = OwnUsage::new(facts(rows())).to_json(Some(time("2026-12-01T00:00:00Z")));
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn periods_have_the_numbers_of_the_ledger() {
    let page = json();
    assert_eq!(
        (&page["today"]["commands"], &page["today"]["refused"], &page["today"]["units"]),
        (&20.into(), &3.into(), &26.into())
    );
    assert_eq!(
        (&page["month"]["commands"], &page["month"]["refused"], &page["month"]["units"]),
        (&27.into(), &10.into(), &26.into())
    );
    assert_eq!(page["today"]["from"], "2026-11-19T16:00:00Z");
    let days = page["days"].as_array().expect("days");
    assert_eq!((days.len(), &days[19]["day"], &days[18]["refused"]), (20, &"2026-11-20".into(), &7.into()));
    let sum = |key: &str| days.iter().map(|day| day[key].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("commands"), sum("units")), (27, 26), "the days add up to the month");
    let by_row =
        page["month"]["rows"].as_array().expect("rows").iter().map(|row| row["commands"].as_u64().expect("a number"));
    assert_eq!(by_row.sum::<u64>(), 27);
}

#[test]
fn refusals_limits_and_quotas_are_shown_with_their_reasons() {
    let page = json();
    assert_eq!(page["refused"][0]["outcome"], "rate_limited");
    assert_eq!((&page["refused"][0]["today"], &page["refused"][0]["month"]), (&3.into(), &10.into()));
    assert_eq!(
        (&page["limits"][0]["value"], &page["limits"][0]["refused_month"]),
        (&"5/s, burst 9".into(), &10.into())
    );
    assert_eq!((&page["limits"][1]["scope"], &page["limits"][1]["refused_month"]), (&"cameras/read".into(), &0.into()));
    let quota = &page["quotas"][0];
    assert_eq!(
        (&quota["used"], &quota["used_percent"], &quota["elapsed_percent"]),
        (&13.into(), &65.into(), &52.into())
    );
    assert_eq!(
        (&quota["is_ahead"], &quota["met_at"]),
        (&true.into(), &"2026-11-20T07:00:00Z".into()),
        "2 an hour: 14, 16, 18, 20"
    );
    assert_eq!((&page["forecast"]["basis_hours"], &page["forecast"]["commands"]["used"]), (&6.into(), &13.into()));
    assert_eq!(
        (&page["certificate"]["ends_at"], &page["certificate"]["days_left"]),
        (&"2026-12-01T00:00:00Z".into(), &10.into())
    );
}

#[test]
fn gaps_are_those_of_the_month_after_the_first_start() {
    let gap = |from: &str, to: &str| CoverageGap { from: from.to_owned(), to: to.to_owned(), why: "closed".to_owned() };
    let mut facts = facts(Vec::new());
    facts.coverage.begins = Some("2026-10-25T00:00:00Z".to_owned());
    let shown = gap("2026-11-02T00:00:00Z", "2026-11-02T05:00:00Z");
    let before = gap("2026-10-23T00:00:00Z", "2026-10-25T00:00:00Z");
    facts.coverage.gaps = vec![before, gap("2026-10-28T00:00:00Z", "2026-10-30T00:00:00Z"), shown.clone()];
    assert_eq!(OwnUsage::new(facts).data.gaps, [shown]);
}

#[test]
fn page_escapes_names_and_has_no_script() {
    let html = OwnUsage::new(facts(rows())).to_html(Some(time("2026-12-01T00:00:00Z")));
    assert!(html.contains("Police &lt;script&gt;alert(1)&lt;/script&gt; &amp; Co"), "{html}");
    assert!(
        !html.contains("<script") && !html.contains("http:") && !html.contains("https:") && !html.contains("style=")
    );
    for text in [
        "Your certificate ends on 2026-12-01 08:00 (UTC+08:00), in 10 days.",
        "rate_limited",
        "5/s, burst 9",
        "2026-11-19",
    ] {
        assert!(html.contains(text), "{text} is not in {html}");
    }
}

#[test]
fn page_without_any_usage_is_whole() {
    let empty = OwnUsageFacts { limits: Vec::new(), quotas: Vec::new(), ..facts(Vec::new()) };
    let usage = OwnUsage::new(empty);
    let html = usage.to_html(None);
    for text in ["No command was refused this month.", "This department has no quota.", "No command yet."] {
        assert!(html.contains(text), "{text} is not in {html}");
    }
    let page: serde_json::Value = serde_json::from_str(&usage.to_json(None)).expect("JSON");
    assert_eq!((&page["month"]["commands"], &page["certificate"]), (&0.into(), &serde_json::Value::Null));
}

#[test]
fn policy_admits_the_style_sheet_of_the_page() {
    let html = OwnUsage::new(facts(Vec::new())).to_html(None);
    let style = html.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).expect("a style sheet").0;
    let hash = format!("'sha256-{}'", base64(&Sha256::digest(style)));
    assert!(USAGE_PAGE_POLICY.contains(&hash), "the style sheet has changed: write {hash} into USAGE_PAGE_POLICY");
}

/// Base64 of bytes whose number is one less than a multiple of three, as that of a SHA-256 is.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let number =
            part.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)) << (8 * (3 - part.len()));
        (0..=part.len()).for_each(|digit| text.push(char::from(DIGITS[number >> (18 - 6 * digit) & 63])));
    }
    text + &"=".repeat(2 - (bytes.len() + 2) % 3)
}

//! Tests of adjustments (corrections of units).

use super::*;

fn correction() -> Adjustment {
    Adjustment {
        department: Name::parse("department-1").expect("a name"),
        subsystem: None,
        command: None,
        period: "2026-11".to_owned(),
        units: -5,
        reason: "a test of the new cameras".to_owned(),
        who: "finance office".to_owned(),
    }
}

#[test]
fn adjustment_is_added_and_sealed_while_the_gateway_runs() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    wait(ledger.reader().fold_now()).expect("a fold");
    assert_eq!(add_adjustment(&bench.path(), &correction(), &bench.clock).expect("a correction"), 1);
    bench.pass(Duration::from_secs(7200), &ledger, &meter);
    let day = Adjustment { period: "2026-11-24".to_owned(), units: 7, ..correction() };
    assert_eq!(add_adjustment(&bench.path(), &day, &bench.clock).expect("a correction"), 2);
    assert_eq!(bench.number("SELECT count(*) FROM seal WHERE kind = 'adjustment'"), 2);
    assert_eq!(
        bench.number("SELECT count(*) FROM seal JOIN seal next ON next.previous = seal.hash"),
        2,
        "one chain of three"
    );
    assert_eq!(bench.number("SELECT head_number FROM meta"), 3);
    assert_eq!(brief(&bench.files()), [("ok", 1, 3)], "usage rows are unchanged");
}

#[test]
fn a_stored_correction_is_one_object_in_json_with_its_fields_in_their_order() {
    let adjustment = Adjustment {
        department: "department-1".to_owned(),
        subsystem: Some("cameras".to_owned()),
        command: None,
        period: "2026-11".to_owned(),
        units: -5,
        reason: "a test".to_owned(),
        who: "finance office".to_owned(),
    };
    let row = AdjustmentRow { number: 1, adjustment, made_at: START.to_owned() };
    assert_eq!(
        serde_json::to_string(&row).expect("JSON"),
        r#"{"number":1,"department":"department-1","subsystem":"cameras","command":null,"period":"2026-11","units":-5,"reason":"a test","who":"finance office","made_at":"2026-11-24T03:10:00Z"}"#
    );
}

#[test]
fn invalid_adjustment_is_refused_and_nothing_is_written() {
    let bench = LedgerBench::new();
    let (ledger, meter) = bench.open_one();
    admit(&meter, &bench.clock).settle(Finished::Ok);
    wait(ledger.reader().fold_now()).expect("a fold");
    let name = |text| Some(Name::parse(text).expect("a name"));
    for (wrong, says) in [
        (Adjustment { units: 0, ..correction() }, "0 units"),
        (Adjustment { period: "October".to_owned(), ..correction() }, "not a period"),
        (Adjustment { period: "2026-11-31".to_owned(), ..correction() }, "not a period"),
        (Adjustment { reason: " ".to_owned(), ..correction() }, "the reason"),
        (Adjustment { reason: "two\nlines".to_owned(), ..correction() }, "the reason"),
        (Adjustment { who: "a\ttab".to_owned(), ..correction() }, "the author"),
        (Adjustment { command: name("command-1"), ..correction() }, "its subsystem"),
        (Adjustment { subsystem: name("parking"), ..correction() }, "department-1 / parking"),
        (Adjustment { department: name("nobody").expect("a name"), ..correction() }, "no record of nobody"),
    ] {
        let error = add_adjustment(&bench.path(), &wrong, &bench.clock).expect_err(says);
        assert!(error.to_string().contains(says), "{error} lacks {says}");
    }
    assert_eq!(bench.number("SELECT count(*) FROM adjustment"), 0);
    assert_eq!(bench.number("SELECT count(*) FROM seal"), 0);
}

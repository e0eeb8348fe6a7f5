//! Migration of books of older formats, as their versions wrote them.

use super::*;

fn old_book(bench: &LedgerBench) {
    audit::old_book(bench, audit::BOOK_1);
}

fn texts(bench: &LedgerBench, query: &str) -> Vec<String> {
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    let mut query = book.prepare(query).expect("a query");
    let rows = query.query_map([], |row| row.get(0)).expect("rows");
    rows.map(|row| row.expect("a text")).collect()
}

#[test]
fn format_1_book_is_migrated_with_equal_content() {
    let bench = LedgerBench::new();
    old_book(&bench);
    let view = "SELECT concat_ws('|', window_start, department, command, outcome, commands, units, request_bytes,
                                 response_bytes, duration_ns) FROM usage_hourly ORDER BY 1";
    let (before, seals) = (texts(&bench, view), texts(&bench, "SELECT hash FROM seal ORDER BY number"));
    let refused = LedgerFiles::open(&bench.path()).expect_err("a reader does not migrate the book");
    assert!(matches!(refused, LedgerError::OlderFormat { found: 1, .. }), "{refused}");
    let (ledger, _) = bench.open_one();
    assert_eq!(texts(&bench, view), before);
    assert_eq!(bench.number("PRAGMA user_version"), i64::from(crate::ledger::book::schema::BOOK_FORMAT));
    let kept = texts(&bench, "SELECT hash FROM seal WHERE format = 1 ORDER BY number");
    assert_eq!(kept, seals, "old seals are unchanged");
    let totals = wait(ledger.reader().totals()).expect("totals");
    let read = totals.series.iter().find(|one| one.command.as_str() == "read").expect("the series");
    assert_eq!((read.admitted, read.units, read.finished[0]), (10, 30, 9));
    assert_eq!(bench.number("SELECT sum(commands) FROM day_sum WHERE outcome = 1"), 8, "what is sealed");
}

/// Computed by the rule of `docs/ledger.md`, from only the text of the old book.
#[test]
fn seals_of_format_1_are_covered_by_a_new_one() {
    let bench = LedgerBench::new();
    old_book(&bench);
    drop(bench.open_one());
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    let seal = |query: &str| -> (i64, String, String, String) {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        book.query_row(query, [], row).expect("a seal")
    };
    let (lines, content, previous, _) =
        seal("SELECT lines, content, previous, hash FROM seal WHERE kind = 'migration' AND format = 2");
    let contents = texts(&bench, "SELECT 'seal' || char(9) || number || char(9) || content FROM seal WHERE format = 1");
    assert_eq!((lines, content), (2, crate::ledger::hash_chain::canonical::content_hash(&contents)));
    assert_eq!(previous, texts(&bench, "SELECT hash FROM seal WHERE number = 2")[0]);
    assert!(contents.iter().all(|line| line.len() > 64), "{contents:?}");
}

/// Format 2 differs only in its seals: they had no space for ends of epochs.
#[test]
fn format_2_book_keeps_its_chain_and_continues_with_epoch_ends() {
    let bench = LedgerBench::new();
    audit::old_book(&bench, audit::BOOK_2);
    let chain =
        "SELECT concat_ws('|', number, format, kind, epoch, \"window\", lines, content, previous, hash, sealed_at)
                 FROM seal WHERE kind <> 'epoch' ORDER BY number";
    let rows =
        "SELECT concat_ws('|', \"window\", series, outcome, epoch, late, commands, units, duration_ns) FROM usage
                UNION ALL SELECT concat_ws('|', day, series, outcome, commands, units, duration_ns) FROM day_sum";
    let before = [texts(&bench, chain), texts(&bench, rows)];
    drop(bench.open_one());
    assert_eq!([texts(&bench, chain), texts(&bench, rows)], before);
    assert_eq!(bench.number("PRAGMA user_version"), i64::from(crate::ledger::book::schema::BOOK_FORMAT));
    let ends = "SELECT concat_ws('|', number, epoch, sealed_at = ended_at, lines) FROM seal JOIN epoch USING (epoch)
                WHERE kind = 'epoch' ORDER BY number";
    assert_eq!(texts(&bench, ends), ["10|1|1|1", "11|2|1|1"]);
}

#[test]
fn interrupted_migration_is_rolled_back() {
    let bench = LedgerBench::new();
    old_book(&bench);
    let book = rusqlite::Connection::open(bench.path()).expect("a book");
    book.execute_batch("CREATE TABLE day_sum (in_the_way INTEGER)").expect("a table");
    let opened = Ledger::open(bench.settings(1), bench.clock.clone(), Box::new(|error| panic!("{error}")));
    let error = opened.expect_err("a table blocks the migration");
    assert!(error.to_string().contains("migrate to the new format"), "{error}");
    assert_eq!(bench.number("PRAGMA user_version"), 1);
    assert_eq!(bench.number("SELECT sum(commands) FROM usage_hourly"), 10);
    book.execute_batch("DROP TABLE day_sum").expect("the blocking table is dropped");
    drop(bench.open_one());
    assert_eq!(bench.number("SELECT sum(commands) FROM usage_hourly"), 10);
}

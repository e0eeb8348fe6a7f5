//! Compares the results of readers with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use crate::ledger::hash_chain::canonical_rows;
use crate::ledger::tests::ALWAYS;
use crate::ledger::{LedgerFiles, LedgerTotals, Measures, UsageRow};
use crate::model::{Finished, Name, Outcome, Refused, Window};

use super::model::{LedgerModel, ModelKey, ModelSeries};

type BookRows = BTreeMap<(Window, ModelSeries, Outcome), Measures>;

pub(crate) fn key(row: &UsageRow) -> (Window, ModelSeries, Outcome) {
    (row.window, series(&row.department, &row.command), row.outcome)
}

fn series(department: &Name, command: &Name) -> ModelSeries {
    (number(department.as_str()), number(command.as_str()))
}

fn number(name: &str) -> u32 {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The expected rows of readers. The book is queried once for all readers.
pub(crate) struct BookReadings {
    hours: BookRows,
    days: BookDays,
}

impl BookReadings {
    pub(crate) fn expected(book: &Connection, model: &LedgerModel) -> Self {
        let (hours, days) = (BookDays::of(book, horizon(book)), BookDays::of(book, Window(u32::MAX)));
        Self { hours: hours.of_model(model), days }
    }

    pub(crate) fn check(&self, rows: &[UsageRow]) {
        let seen: BookRows = rows.iter().map(|row| (key(row), row.totals)).collect();
        assert_eq!(seen.len(), rows.len(), "a duplicate row");
        assert_eq!(seen, self.hours, "rows of a reader, and of the model");
    }

    /// Checks the files as another process reads them: by hours or by days.
    pub(crate) fn check_files(&self, path: &Path, model: &LedgerModel, by_day: bool) {
        let files = LedgerFiles::open(path).expect("files");
        if !by_day {
            return self.check(&files.usage_by_hour(ALWAYS).expect("rows"));
        }
        let by_day = files.usage_by_day(ALWAYS).expect("rows by day");
        let seen = self.days.sums(by_day.iter().map(|row| (key(row), row.totals)));
        assert_eq!(seen, self.days.of_model(model), "files by day");
    }
}

pub(crate) fn check_totals(totals: &LedgerTotals, model: &LedgerModel) {
    assert_eq!(totals.imbalance, 0, "imbalance");
    let known: BTreeSet<ModelSeries> = totals.series.iter().map(|one| series(&one.department, &one.command)).collect();
    let of_model = model.rows.keys().map(|key| key.2).chain(model.admitted.keys().map(|key| key.1));
    assert!(of_model.into_iter().all(|series| known.contains(&series)), "a series is missing");
    for one in &totals.series {
        let series = series(&one.department, &one.command);
        let (admitted, units, ended) = model.sums(series);
        assert_eq!(
            (one.admitted, one.units, one.in_flight()),
            (admitted, units, admitted.saturating_sub(ended)),
            "{series:?}"
        );
        let finished = Finished::ALL.map(|finished| model.finished(series, finished).commands);
        assert_eq!(one.finished, finished, "{series:?}");
        assert_eq!(one.refused, Refused::ALL.map(|refused| model.refused(series, refused)), "{series:?}");
        assert_eq!((one.request_bytes, one.response_bytes), model.bytes(series), "{series:?}");
    }
}

/// Checks the tables after a fold: admissions, ends and their lateness, commands in flight, the view, the hash chain.
pub(crate) fn check_book(book: &Connection, model: &LedgerModel, now_ns: u64) {
    let horizon = horizon(book);
    let kept = model.rows.iter().filter(|(key, _)| key.0 >= horizon);
    assert_eq!(usage(book, horizon), kept.map(|(key, totals)| (*key, *totals)).collect(), "table usage");
    let kept = model.admitted.iter().filter(|(key, _)| key.0 >= horizon);
    assert_eq!(admissions(book, horizon), kept.map(|(key, sums)| (*key, *sums)).collect(), "table admission");
    let kept = model.waived.iter().filter(|(key, _)| key.0 >= horizon);
    assert_eq!(waived(book, horizon), kept.map(|(key, sums)| (*key, *sums)).collect(), "table waived");
    check_in_flight(&in_flight(book), &model.in_flight(now_ns));
    let days = BookDays::of(book, horizon);
    assert_eq!(view(book), days.of_model(model), "view usage_hourly");
    check_chain(book, horizon);
}

/// Commands in flight, by window and series.
type BookInFlight = BTreeMap<(Window, ModelSeries), Measures>;

/// Requires exact values, except for the duration: it may lag by less than ten seconds a command while no other value
/// changes.
fn check_in_flight(found: &BookInFlight, expected: &BookInFlight) {
    const LAG_NS: u64 = 10_000_000_000;
    let timeless = |rows: &BookInFlight| -> BookInFlight {
        rows.iter().map(|(place, row)| (*place, Measures { duration_ns: 0, ..*row })).collect()
    };
    assert_eq!(timeless(found), timeless(expected), "table in_flight");
    for (place, row) in expected {
        let lag = found[place].duration_ns.abs_diff(row.duration_ns);
        assert!(lag < LAG_NS * row.commands, "{place:?}: {:?} lags behind {row:?}", found[place]);
    }
}

pub(crate) fn check_all_sealed(book: &Connection, before: Window) {
    let query = "SELECT count(*) FROM unsealed WHERE \"window\" < ?";
    let open: i64 = one(book, query, [before.0]);
    assert_eq!(open, 0, "hours before {before} are over and not sealed");
}

/// Returns the first window of an epoch that is not sealed, and not in a closed day.
pub(crate) fn floor(book: &Connection, epoch: u32) -> Window {
    let query = "SELECT max(\"window\") + 1 FROM seal WHERE epoch = ? AND kind = 'hour'";
    let sealed: Option<u32> = one(book, query, [epoch]);
    Window(sealed.unwrap_or(0)).max(horizon(book))
}

/// Checks the book after a power loss: at least the synced counts, at most the counted ones, and every admitted command
/// has ended.
pub(crate) fn recovered_between(book: &Connection, least: &LedgerModel, most: &LedgerModel) -> LedgerModel {
    let (rows, admitted) = (usage(book, Window(0)), admissions(book, Window(0)));
    let mut found = LedgerModel { rows, admitted, waived: waived(book, Window(0)), ..LedgerModel::default() };
    // Days whose hours were removed were settled long before.
    let horizon = horizon(book);
    found.rows.extend(most.rows.iter().filter(|(key, _)| key.0 < horizon).map(|(key, totals)| (*key, *totals)));
    found.admitted.extend(most.admitted.iter().filter(|(key, _)| key.0 < horizon).map(|(key, sums)| (*key, *sums)));
    found.waived.extend(most.waived.iter().filter(|(key, _)| key.0 < horizon).map(|(key, sums)| (*key, *sums)));
    for (key, sum) in &most.admitted {
        let (low, now) = (least.admitted.get(key).copied(), found.admitted.get(key).copied().unwrap_or_default());
        assert!(low.unwrap_or_default().0 <= now.0 && now.0 <= sum.0, "{key:?}: {low:?} <= {now:?} <= {sum:?}");
    }
    for one in most.admitted.keys().map(|key| key.1).collect::<BTreeSet<_>>() {
        let (admitted, _, ended) = found.sums(one);
        assert_eq!(admitted, ended, "{one:?}: admitted, and ended, {found:?}");
    }
    found
}

/// Requires that every seal follows the seal before it, and covers the present rows.
fn check_chain(book: &Connection, horizon: Window) {
    let query = "SELECT number, kind, epoch, \"window\", content, previous, hash, format FROM seal ORDER BY number";
    let mut query = book.prepare_cached(query).expect("seals");
    let mut rows = query.query([]).expect("seals");
    let (mut expected, mut head) = (1, "0".repeat(64));
    while let Some(row) = rows.next().expect("a seal") {
        let text = |column| row.get::<_, String>(column).expect("a text");
        let window = Window(row.get::<_, Option<u32>>(3).expect("a window").unwrap_or(0));
        assert_eq!((row.get::<_, i64>(0).expect("a number"), text(5)), (expected, head), "the chain");
        let lines = match text(1).as_str() {
            "hour" if window >= horizon => {
                let epoch = row.get(2).expect("an epoch");
                Some(canonical_rows::hour_lines(book, (epoch, window), 2).expect("lines"))
            }
            "day" => Some(canonical_rows::day_lines(book, &(window..day_after(book, window))).expect("lines")),
            _ => None,
        };
        if let Some(lines) = lines {
            assert_eq!(
                crate::ledger::hash_chain::canonical::content_hash(&lines),
                text(4),
                "seal {expected} of {window}"
            );
        }
        (expected, head) = (expected + 1, text(6));
    }
    let query = "SELECT head_number, head_hash FROM meta";
    let mut query = book.prepare_cached(query).expect("the head");
    let noted = query.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))).expect("the head");
    assert!(expected == 1 || noted == (expected - 1, head), "the head of the chain");
}

/// Returns the end of a compacted day: the begin of the next day or of the remaining hours, or 24 hours later.
fn day_after(book: &Connection, day: Window) -> Window {
    let query = "SELECT coalesce(min(\"window\"), (SELECT rolled_before FROM meta)) FROM seal
                 WHERE kind = 'day' AND \"window\" > ?";
    let next: u32 = one(book, query, [day.0]);
    Window(next.min(day.0 + 24))
}

/// The windows that are shown under the first window of their day.
struct BookDays {
    begin: BTreeSet<Window>,
    /// Hours from this window on are shown as hours.
    hours_from: Window,
}

impl BookDays {
    fn of(book: &Connection, hours_from: Window) -> Self {
        let mut query = book.prepare_cached("SELECT DISTINCT day FROM day_sum").expect("days");
        let days = query.query_map([], |row| row.get(0).map(Window)).expect("days");
        Self { begin: days.map(|day| day.expect("a day")).collect(), hours_from }
    }

    fn shown(&self, window: Window) -> Window {
        let day = self.begin.range(..=window).next_back().copied();
        day.filter(|_| window < self.hours_from).unwrap_or(window)
    }

    fn sums(&self, rows: impl Iterator<Item = ((Window, ModelSeries, Outcome), Measures)>) -> BookRows {
        let mut sums = BookRows::new();
        for ((window, series, outcome), totals) in rows {
            sums.entry((self.shown(window), series, outcome)).or_default().add(&totals);
        }
        sums
    }

    fn of_model(&self, model: &LedgerModel) -> BookRows {
        self.sums(
            model.rows.iter().map(|((window, _, series, outcome), totals)| ((*window, *series, *outcome), *totals)),
        )
    }
}

fn horizon(book: &Connection) -> Window {
    Window(one(book, "SELECT rolled_before FROM meta", []))
}

/// Returns the only value of a query.
fn one<T: rusqlite::types::FromSql>(book: &Connection, query: &str, values: impl rusqlite::Params) -> T {
    book.prepare_cached(query).and_then(|mut asked| asked.query_row(values, |row| row.get(0))).expect(query)
}

fn series_at(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<ModelSeries> {
    Ok((number(row.get_ref(at)?.as_str()?), number(row.get_ref(at + 1)?.as_str()?)))
}

fn totals_at(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Measures> {
    let value = |column| row.get::<_, i64>(at + column).map(|value| value.cast_unsigned());
    Ok(Measures::from([value(0)?, value(1)?, value(2)?, value(3)?, value(4)?]))
}

fn collect<K: Ord, V>(
    book: &Connection,
    (query, values): (&str, &[&dyn rusqlite::ToSql]),
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<(K, V)>,
) -> BTreeMap<K, V> {
    let mut query = book.prepare_cached(query).expect(query);
    let rows = query.query_map(values, read).expect("rows");
    rows.map(|row| row.expect("a row")).collect()
}

fn usage(book: &Connection, from: Window) -> BTreeMap<ModelKey, Measures> {
    let query = "SELECT \"window\", late, department, command, outcome, sum(commands), sum(units), sum(request_bytes),
                        sum(response_bytes), sum(duration_ns)
                 FROM usage JOIN series USING (series) WHERE \"window\" >= ?1 GROUP BY \"window\", late, series, outcome";
    collect(book, (query, &[&from.0]), |row| {
        let outcome = Outcome::from_code(row.get(4)?).expect("an outcome");
        Ok(((Window(row.get(0)?), row.get(1)?, series_at(row, 2)?, outcome), totals_at(row, 5)?))
    })
}

fn admissions(book: &Connection, from: Window) -> BTreeMap<(Window, ModelSeries), (u64, u64)> {
    let query = "SELECT \"window\", department, command, sum(admitted), sum(units)
                 FROM admission JOIN series USING (series) WHERE \"window\" >= ?1 GROUP BY \"window\", series";
    collect(book, (query, &[&from.0]), |row| {
        let value = |column| row.get::<_, i64>(column).map(|value| value.cast_unsigned());
        Ok(((Window(row.get(0)?), series_at(row, 1)?), (value(3)?, value(4)?)))
    })
}

fn in_flight(book: &Connection) -> BTreeMap<(Window, ModelSeries), Measures> {
    let query = "SELECT \"window\", department, command, commands, units, request_bytes, response_bytes, duration_ns
                 FROM in_flight JOIN series USING (series)";
    collect(book, (query, &[]), |row| Ok(((Window(row.get(0)?), series_at(row, 1)?), totals_at(row, 3)?)))
}

fn waived(book: &Connection, from: Window) -> BTreeMap<(Window, u32, ModelSeries), (u64, u64)> {
    let query = "SELECT \"window\", late, department, command, sum(commands), sum(units)
                 FROM waived JOIN series USING (series) WHERE \"window\" >= ?1 GROUP BY 1, 2, series";
    collect(book, (query, &[&from.0]), |row| {
        let number = |column| row.get::<_, i64>(column).map(|value| value.cast_unsigned());
        Ok(((Window(row.get(0)?), row.get(1)?, series_at(row, 2)?), (number(4)?, number(5)?)))
    })
}

fn view(book: &Connection) -> BookRows {
    let query = "SELECT unixepoch(window_start) / 3600, department, command, outcome, commands, units, request_bytes,
                        response_bytes, duration_ns FROM usage_hourly";
    collect(book, (query, &[]), |row| {
        let name: String = row.get(3)?;
        let outcome = Outcome::all().find(|outcome| outcome.name() == name).expect("an outcome");
        Ok(((Window(row.get(0)?), series_at(row, 1)?, outcome), totals_at(row, 4)?))
    })
}

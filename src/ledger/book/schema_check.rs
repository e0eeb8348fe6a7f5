//! Checks that a book's schema is exactly the schema of its format.
//!
//! An altered view, or a trigger that changes written values, makes a book return wrong numbers while every seal is
//! valid. Such a change is made once and stays in effect. So the check runs at every start, before every report and in
//! every audit.
//!
//! Guarantees:
//! - Every table, index, view and trigger is compared by its text.
//! - The table `outcome`, which no seal covers, is compared row by row.
//! - Blanks and the double quotes of names are ignored, because SQLite rewrites them when a table is renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use crate::ledger::values::error::LedgerError;
use crate::model::Outcome;

use super::schema::all_statements;

/// The most differences that an error lists.
const DIFFERENCES_NAMED_MAX: usize = 5;

/// A difference from the schema of the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaDifference {
    /// For example `view usage_hourly`, or `outcome 4`.
    pub(crate) place: String,
    /// The text found, and the text expected.
    pub(crate) what: String,
}

/// Refuses a book with any difference.
pub(crate) fn check_schema(book: &Connection, path: &Path) -> Result<(), LedgerError> {
    let found = schema_differences(book).map_err(|error| LedgerError::book("read the schema of", path, error))?;
    if found.is_empty() {
        return Ok(());
    }
    let named: Vec<_> =
        found.iter().take(DIFFERENCES_NAMED_MAX).map(|one| format!("{}: {}", one.place, one.what)).collect();
    let more = match found.len().saturating_sub(DIFFERENCES_NAMED_MAX) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(LedgerError::Altered { path: path.to_owned(), differences: format!("{}{more}", named.join("; ")) })
}

/// Returns all differences from the schema of the format.
pub(crate) fn schema_differences(book: &Connection) -> rusqlite::Result<Vec<SchemaDifference>> {
    let (found, expected) = (book_objects(book)?, expected_objects());
    let mut differences: Vec<_> = compare_objects(&found, &expected, ("it is not of this format", "it is missing"));
    let (found, expected) = (book_outcomes(book)?, expected_outcomes());
    differences.extend(compare_objects(&found, &expected, ("there is no such outcome", "its row is missing")));
    Ok(differences)
}

type SchemaObjects = BTreeMap<String, String>;

fn compare_objects(
    found: &SchemaObjects,
    expected: &SchemaObjects,
    (strange, missing): (&'static str, &'static str),
) -> Vec<SchemaDifference> {
    let places: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
    let differs = |place: &String| {
        let what = match (found.get(place), expected.get(place)) {
            // Most texts are equal, and every opening of a book runs this check. So blanks are normalized only if the
            // texts differ.
            (Some(found), Some(expected)) if found == expected || normalized(found) == normalized(expected) => {
                return None;
            }
            (Some(found), Some(expected)) => difference_excerpt(&normalized(found), &normalized(expected)),
            (Some(found), None) => format!("{strange}: `{}`", excerpt(&normalized(found), 0)),
            _ => missing.to_owned(),
        };
        Some(SchemaDifference { place: place.clone(), what })
    };
    places.into_iter().filter_map(differs).collect()
}

/// The longest excerpt of a text, in characters.
const EXCERPT_CHARACTERS: usize = 60;

/// Returns excerpts of two texts from their first difference on.
fn difference_excerpt(found: &str, expected: &str) -> String {
    let same = found.chars().zip(expected.chars()).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(EXCERPT_CHARACTERS / 2);
    format!("it is `{}`, not `{}`", excerpt(found, from), excerpt(expected, from))
}

/// Returns an excerpt of a text.
fn excerpt(text: &str, from: usize) -> String {
    let (before, after) = (from > 0, text.chars().count() > from + EXCERPT_CHARACTERS);
    let part: String = text.chars().skip(from).take(EXCERPT_CHARACTERS).collect();
    format!("{}{part}{}", if before { "..." } else { "" }, if after { "..." } else { "" })
}

/// Internal objects of SQLite: statistics of its planner, and the indexes of primary and unique keys, which have no
/// text.
const SQLITE_OBJECTS: &str = "(type = 'table' AND name IN ('sqlite_stat1', 'sqlite_stat4'))
    OR (type = 'index' AND sql IS NULL AND name LIKE 'sqlite_autoindex_%')";

fn book_objects(book: &Connection) -> rusqlite::Result<SchemaObjects> {
    let query =
        format!("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_schema WHERE NOT ({SQLITE_OBJECTS})");
    let mut query = book.prepare(&query)?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn expected_objects() -> SchemaObjects {
    all_statements().map(|sql| (name_of(sql), sql.to_owned())).collect()
}

/// Returns `table meta` for `CREATE TABLE meta (...`.
fn name_of(sql: &str) -> String {
    let mut words = sql.split_whitespace().skip(1).filter(|word| *word != "UNIQUE");
    let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    format!("{} {name}", kind.to_ascii_lowercase())
}

fn normalized(sql: &str) -> String {
    sql.replace('"', "").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn book_outcomes(book: &Connection) -> rusqlite::Result<SchemaObjects> {
    let mut query = book.prepare("SELECT 'outcome ' || code, concat_ws(' ', name, refused, blame) FROM outcome")?;
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn expected_outcomes() -> SchemaObjects {
    let row = |outcome: Outcome| {
        let refused = u8::from(matches!(outcome, Outcome::Refused(_)));
        (format!("outcome {}", outcome.code()), format!("{} {refused} {}", outcome.name(), outcome.blame().name()))
    };
    Outcome::all().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Connection {
        let book = Connection::open_in_memory().expect("a book");
        all_statements().for_each(|sql| book.execute_batch(sql).expect(sql));
        for (place, row) in expected_outcomes() {
            let (code, row) = (place.replace("outcome ", ""), row.replace(' ', "','"));
            book.execute_batch(&format!("INSERT INTO outcome VALUES ({code}, '{row}')")).expect("a row");
        }
        book
    }

    fn places(book: &Connection) -> Vec<String> {
        schema_differences(book).expect("a schema").into_iter().map(|one| one.place).collect()
    }

    #[test]
    fn unaltered_book_has_no_schema_differences() {
        assert_eq!(schema_differences(&book()).expect("a schema"), []);
        let analysed = book();
        analysed.execute_batch("INSERT INTO series VALUES (1, 'a', 'b', 'c'); ANALYZE").expect("statistics");
        analysed.execute_batch("ALTER TABLE waived RENAME TO a; ALTER TABLE a RENAME TO waived").expect("renamed");
        assert_eq!(schema_differences(&analysed).expect("a schema"), [], "tables of SQLite, and quotes");
    }

    #[test]
    fn schema_difference_is_shown_at_its_position() {
        let (one, other) = (format!("{}half", "a".repeat(100)), format!("{}whole", "a".repeat(100)));
        let expected = format!("it is `...{a}half`, not `...{a}whole`", a = "a".repeat(30));
        assert_eq!(difference_excerpt(&one, &other), expected);
        assert_eq!(difference_excerpt("ok 0 none", "ok 0 us"), "it is `ok 0 none`, not `ok 0 us`");
        assert_eq!(excerpt(&"é".repeat(61), 0), format!("{}...", "é".repeat(60)));
    }

    #[test]
    fn altered_missing_and_added_schema_items_are_named() {
        for (edit, expected) in [
            ("DROP VIEW usage_hourly; CREATE VIEW usage_hourly AS SELECT 1", vec!["view usage_hourly"]),
            ("DROP VIEW usage_hourly; CREATE TABLE usage_hourly (a)", vec!["table usage_hourly", "view usage_hourly"]),
            ("CREATE TRIGGER t AFTER INSERT ON usage BEGIN DELETE FROM usage; END", vec!["trigger t"]),
            ("CREATE VIEW mine AS SELECT 1", vec!["view mine"]),
            ("CREATE UNIQUE INDEX mine ON usage (units)", vec!["index mine"]),
            ("DROP INDEX seal_of_hour", vec!["index seal_of_hour"]),
            ("ALTER TABLE waived ADD COLUMN more INTEGER", vec!["table waived"]),
            ("UPDATE outcome SET blame = 'none' WHERE code = 4", vec!["outcome 4"]),
            ("UPDATE outcome SET refused = 1 WHERE code = 1", vec!["outcome 1"]),
            ("UPDATE outcome SET name = 'fine' WHERE code = 111", vec!["outcome 111"]),
            ("DELETE FROM outcome WHERE code = 101", vec!["outcome 101"]),
            ("INSERT INTO outcome VALUES (9, 'free', 0, 'none')", vec!["outcome 9"]),
        ] {
            let book = book();
            book.execute_batch(edit).expect(edit);
            assert_eq!(places(&book), expected, "{edit}");
        }
    }
}

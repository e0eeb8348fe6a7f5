//! Refuses ledgers that must not be added up: the same ledger twice, and ledgers of different calendars.
//!
//! Guarantees:
//! - A ledger is known by its identity, so a copy and a backup are refused beside their original, whatever their paths.
//! - The checks are made before any usage is read.
//!
//! Leaves to `report`: the sum.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::ledger::{LedgerError, LedgerFiles};
use crate::model::CalendarOffset;

use super::BadUsage;

/// Checks that the ledgers may be added up, and returns their calendar.
pub(crate) fn check(books: &[PathBuf]) -> anyhow::Result<CalendarOffset> {
    let mut seen = SeenLedgers::default();
    for book in books {
        let identity = read_identity(book).map_err(|error| in_sum(error, book, books))?;
        seen.add(book, identity)?;
    }
    let (_, calendar) = seen.first.ok_or_else(|| BadUsage("--ledger: no ledger is named".to_owned()))?;
    Ok(calendar)
}

/// The error of one ledger, which prevents the sum of several.
pub(crate) fn in_sum(error: LedgerError, book: &Path, books: &[PathBuf]) -> anyhow::Error {
    match books.len() {
        1 => error.into(),
        all => anyhow::Error::from(error)
            .context(format!("no sum of {all} ledgers, because {} cannot be read", book.display())),
    }
}

/// What distinguishes a ledger from others.
#[derive(Clone, Debug)]
struct LedgerIdentity {
    /// The canonical path.
    file: PathBuf,
    /// The identity; `None` before the first epoch.
    id: Option<String>,
    calendar: CalendarOffset,
}

fn read_identity(book: &Path) -> Result<LedgerIdentity, LedgerError> {
    let files = LedgerFiles::open(book)?;
    Ok(LedgerIdentity { file: files.path().to_owned(), id: files.identity()?, calendar: files.calendar() })
}

/// The ledgers that were checked so far, by the paths of the command line.
#[derive(Debug, Default)]
struct SeenLedgers {
    files: HashMap<PathBuf, PathBuf>,
    ids: HashMap<String, PathBuf>,
    first: Option<(PathBuf, CalendarOffset)>,
}

impl SeenLedgers {
    fn add(&mut self, book: &Path, LedgerIdentity { file, id, calendar }: LedgerIdentity) -> Result<(), BadUsage> {
        if let Some(other) = self.files.insert(file, book.to_owned()) {
            return Err(same_file(&other, book));
        }
        if let Some((id, other)) =
            id.and_then(|id| self.ids.insert(id.clone(), book.to_owned()).map(|other| (id, other)))
        {
            return Err(same_ledger(&id, &other, book));
        }
        let (first, wanted) = self.first.get_or_insert_with(|| (book.to_owned(), calendar));
        if *wanted != calendar {
            return Err(BadUsage(format!(
                "--ledger: the days of {} are those of UTC{wanted}, the days of {} those of UTC{calendar}, so they do \
                 not add up. Report them apart; or set `calendar.offset` of all gateways to one value and start them \
                 again, which computes their days anew",
                first.display(),
                book.display()
            )));
        }
        Ok(())
    }
}

fn same_file(one: &Path, other: &Path) -> BadUsage {
    let what = match one == other {
        true => format!("{} is named twice", one.display()),
        false => format!("{} and {} are the same file", one.display(), other.display()),
    };
    BadUsage(format!("--ledger: {what}, and its usage would be counted twice; name it once"))
}

fn same_ledger(id: &str, one: &Path, other: &Path) -> BadUsage {
    BadUsage(format!(
        "--ledger: {} and {} are copies of one ledger ({id}): a copy of one gateway's ledger would be counted twice. Name \
         the one that reaches further (`tallygate ledger info` shows how far each does)",
        one.display(),
        other.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(file: &str, id: Option<&str>, calendar: &str) -> LedgerIdentity {
        LedgerIdentity {
            file: file.into(),
            id: id.map(str::to_owned),
            calendar: CalendarOffset::parse(calendar).expect("an offset"),
        }
    }

    #[test]
    fn ledgers_are_distinguished_by_identity_and_calendar() {
        for (second, problem) in [
            (identity("/data/b.db", Some("2"), "+08:00"), None),
            (identity("/data/b.db", None, "+08:00"), None),
            (identity("/data/b.db", Some("1"), "+08:00"), Some("a.db and b.db are copies of one ledger (1)")),
            (identity("/data/a.db", Some("1"), "+08:00"), Some("a.db and b.db are the same file")),
            (
                identity("/data/b.db", Some("2"), "+00:00"),
                Some("those of UTC+08:00, the days of b.db those of UTC+00:00"),
            ),
        ] {
            let mut seen = SeenLedgers::default();
            seen.add(Path::new("a.db"), identity("/data/a.db", Some("1"), "+08:00")).expect("the first one");
            let added = seen.add(Path::new("b.db"), second.clone()).map_err(|error| error.to_string());
            match problem {
                None => assert_eq!(added, Ok(()), "{second:?}"),
                Some(problem) => assert!(added.expect_err(problem).contains(problem), "{second:?}"),
            }
        }
    }

    #[test]
    fn ledgers_without_an_epoch_are_distinguished_by_their_files() {
        let mut seen = SeenLedgers::default();
        for file in ["/data/a.db", "/data/b.db"] {
            seen.add(Path::new(file), identity(file, None, "+08:00")).expect(file);
        }
        seen.add(Path::new("link.db"), identity("/data/a.db", None, "+08:00")).expect_err("the same file");
    }
}

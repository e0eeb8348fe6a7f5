//! The chain: numbers, links, hashes, and the rows behind each seal.

use rusqlite::{Connection, OptionalExtension, params};

use super::Progress;
use super::days::Days;
use super::epochs::Epochs;
use super::finding::{AfterHead, ChainHead, Check, Report};
use super::order::HourOrder;
use super::seals::{Place, lines_of, place_of, walk};
use crate::ledger::canon::{self, BEGINNING, SealKind, SealRow};

/// The end of the chain as it was noted elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedHead {
    /// The seal's number.
    pub number: i64,
    /// Its hash, 64 hexadecimal digits in lower case.
    pub hash: String,
}

/// Why a text is not a [`NotedHead`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a head; write a seal's number, a colon and its 64 hexadecimal digits, as `ledger info` prints it"
)]
pub struct BadHead(String);

impl NotedHead {
    /// Reads `NUMBER:HASH`.
    pub fn parse(text: &str) -> Result<Self, BadHead> {
        let bad = || BadHead(text.to_owned());
        let (number, hash) = text.split_once(':').ok_or_else(bad)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(bad)?;
        let hash = hash.to_ascii_lowercase();
        let fits = hash.len() == BEGINNING.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if fits { Ok(Self { number, hash }) } else { Err(bad()) }
    }
}

/// Follows the chain from its first seal to its last, and compares its end with the book's note of it.
pub(super) fn check(
    book: &Connection,
    (days, epochs): (&Days, &Epochs),
    noted: Option<&NotedHead>,
    (report, progress): (&mut Report, &mut Progress<'_>),
) -> rusqlite::Result<ChainHead> {
    let count: i64 = book.query_row("SELECT count(*) FROM seal", [], |row| row.get(0))?;
    let order = HourOrder::new(epochs);
    let mut walker = Walker { book, days, report, last: beginning(), order, after: None };
    walk(book, |seal, place| -> rusqlite::Result<()> {
        progress("seals", walker.report.checked.seals, count.unsigned_abs());
        walker.step(seal, place)?;
        if noted.is_some_and(|noted| noted.number == seal.number) {
            walker.order.note(seal.number);
            walker.after = Some(AfterHead::default());
        }
        Ok(())
    })?;
    let Walker { last, order, after, report, .. } = walker;
    order.finish(report);
    report.after = after;
    end(book, &last, report)?;
    Ok(last)
}

pub(super) fn beginning() -> ChainHead {
    ChainHead { number: 0, hash: BEGINNING.to_owned(), sealed_at: None }
}

struct Walker<'a> {
    book: &'a Connection,
    days: &'a Days,
    report: &'a mut Report,
    last: ChainHead,
    order: HourOrder<'a>,
    /// What came after the head that was noted.
    after: Option<AfterHead>,
}

impl Walker<'_> {
    fn step(&mut self, seal: &SealRow, place: &Place) -> rusqlite::Result<()> {
        self.report.checked.seals += 1;
        self.link(seal);
        self.order.add(seal, &place_of(seal, self.days), self.report);
        if let Some(after) = &mut self.after {
            after.add(seal.kind);
        }
        let lines = lines_of(self.book, self.days, (seal, place))?;
        self.content(seal, lines.as_deref())?;
        self.hash(seal, lines.as_deref());
        self.last = ChainHead { number: seal.number, hash: seal.hash.clone(), sealed_at: Some(seal.sealed_at.clone()) };
        Ok(())
    }

    fn link(&mut self, seal: &SealRow) {
        let place = place_of(seal, self.days);
        let expected = self.last.number + 1;
        if seal.number != expected {
            let missing = if seal.number == expected + 1 {
                format!("seal {expected} is missing before it")
            } else {
                format!("seals {expected} to {} are missing before it", seal.number - 1)
            };
            self.report.find(Check::Link, &place, missing);
        }
        if seal.previous != self.last.hash {
            let what = format!(
                "it follows {}, but the hash of the seal before it (seal {}) is {}",
                seal.previous, self.last.number, self.last.hash
            );
            self.report.find(Check::Link, &place, what);
        }
    }

    fn content(&mut self, seal: &SealRow, lines: Option<&[String]>) -> rusqlite::Result<()> {
        let Some(lines) = lines else {
            self.report.checked.rolled += 1;
            return Ok(());
        };
        self.report.checked.lines += lines.len() as u64;
        let content = canon::content(lines);
        if content == seal.content {
            if lines.len() as u64 != seal.lines {
                let what = format!("it says that it covers {} lines; its content has {}", seal.lines, lines.len());
                self.report.find(Check::Content, place_of(seal, self.days), what);
            }
            return Ok(());
        }
        let what = self.difference(seal, lines, &content)?;
        let check = match seal.kind {
            SealKind::Adjustment => Check::Adjustments,
            SealKind::Epoch => Check::Epochs,
            SealKind::Hour | SealKind::Day | SealKind::Migration => Check::Content,
        };
        self.report.find(check, place_of(seal, self.days), what);
        Ok(())
    }

    /// What can be said about rows that are not those that were sealed.
    fn difference(&self, seal: &SealRow, lines: &[String], content: &str) -> rusqlite::Result<String> {
        let query = "SELECT number FROM seal WHERE content = ?1 AND number <> ?2 LIMIT 1";
        let twin: Option<i64> =
            self.book.query_row(query, params![content, seal.number], |row| row.get(0)).optional()?;
        let (had, has) = (seal.lines, lines.len() as u64);
        Ok(match twin {
            Some(twin) => format!("its rows are those that seal {twin} covers: they were exchanged or copied"),
            None if has < had => format!("it covers {had} rows, {has} are there: {} missing or moved", had - has),
            None if has > had => format!("it covers {had} rows, {has} are there: {} added or moved", has - had),
            None => format!(
                "the {has} rows are not those that were sealed: their hash is {content}, sealed was {}",
                seal.content
            ),
        })
    }

    fn hash(&mut self, seal: &SealRow, lines: Option<&[String]>) {
        let Some(hash) = seal.computed_hash(lines) else { return };
        if hash != seal.hash {
            let what = format!("its columns give the hash {hash}, it has {}", seal.hash);
            self.report.find(Check::Hash, place_of(seal, self.days), what);
        }
    }
}

/// The chain ends where the book notes that it does.
fn end(book: &Connection, last: &ChainHead, report: &mut Report) -> rusqlite::Result<()> {
    let query = "SELECT head_number, head_hash FROM meta";
    let (number, hash): (i64, String) = book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if (number, hash.as_str(), last.number) == (0, "", 0) {
        return Ok(()); // nothing is sealed, and nothing was noted
    }
    if (number, &hash) != (last.number, &last.hash) {
        let what = if number > last.number {
            format!(
                "the chain ends at seal {}, the book noted seal {number} ({hash}): its end was cut off",
                last.number
            )
        } else {
            format!("the chain ends with {}, the book noted seal {number} with {hash}", last.hash)
        };
        report.find(Check::Head, format!("seal {}", last.number), what);
    }
    Ok(())
}

/// The chain still holds what was noted elsewhere.
pub(super) fn check_noted(book: &Connection, noted: &NotedHead, report: &mut Report) -> rusqlite::Result<()> {
    let query = "SELECT hash FROM seal WHERE number = ?1";
    let hash: Option<String> = book.query_row(query, [noted.number], |row| row.get(0)).optional()?;
    let what = match hash {
        Some(hash) if hash == noted.hash => return Ok(()),
        Some(hash) => format!("its hash is {hash}, noted was {}: this is another chain", noted.hash),
        None => format!("it was noted as {} and is not there: the chain's end was cut off", noted.hash),
    };
    report.find(Check::Head, format!("seal {}", noted.number), what);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_head_is_a_number_and_a_hash() {
        let hash = "0".repeat(63) + "A";
        let noted = NotedHead::parse(&format!("12:{hash}")).expect("a head");
        assert_eq!((noted.number, noted.hash.ends_with('a')), (12, true));
        for text in ["", "12", "12:", &format!("x:{hash}"), &format!("0:{hash}"), &format!("12:{hash}0")] {
            assert!(NotedHead::parse(text).is_err(), "{text}");
        }
    }
}

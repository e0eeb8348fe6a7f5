//! Checks the hash chain: numbers, links, hashes, and the rows behind each seal.

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::hash_chain::canonical::{self, GENESIS_HASH, SealKind, SealRow};

use super::calendar_days::CalendarDays;
use super::epoch_check::EpochTable;
use super::findings::{AuditCheck, AuditReport, ChainHead, ProgressCallback, SealsAfterHead};
use super::hour_order::HourOrder;
use super::seal_walk::{SealLocation, covered_lines, describe_seal, walk_seals};

/// The head of the chain as noted elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedHead {
    /// The seal's number.
    pub number: i64,
    /// The seal's hash, 64 hexadecimal digits in lower case.
    pub hash: String,
}

/// The reason why a text is not a [`NotedHead`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a head; write a seal's number, a colon and its 64 hexadecimal digits, as `ledger info` prints it"
)]
pub struct BadHead(String);

impl NotedHead {
    /// Parses `NUMBER:HASH`.
    pub fn parse(text: &str) -> Result<Self, BadHead> {
        let bad = || BadHead(text.to_owned());
        let (number, hash) = text.split_once(':').ok_or_else(bad)?;
        let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(bad)?;
        let hash = hash.to_ascii_lowercase();
        let fits = hash.len() == GENESIS_HASH.len() && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if fits { Ok(Self { number, hash }) } else { Err(bad()) }
    }
}

/// Walks the chain from its first seal to its last, and compares its end with the book's record of it.
pub(crate) fn check_chain(
    book: &Connection,
    (days, epochs): (&CalendarDays, &EpochTable),
    noted: Option<&NotedHead>,
    (report, progress): (&mut AuditReport, &mut ProgressCallback<'_>),
) -> rusqlite::Result<ChainHead> {
    let count: i64 = book.query_row("SELECT count(*) FROM seal", [], |row| row.get(0))?;
    let order = HourOrder::new(epochs);
    let mut walker = ChainWalker { book, days, report, last: empty_chain(), order, after_noted: None };
    walk_seals(book, |seal, place| -> rusqlite::Result<()> {
        progress("seals", walker.report.checked.seals, count.unsigned_abs());
        walker.check_seal(seal, place)?;
        if noted.is_some_and(|noted| noted.number == seal.number) {
            walker.order.note_head(seal.number);
            walker.after_noted = Some(SealsAfterHead::default());
        }
        Ok(())
    })?;
    let ChainWalker { last, order, after_noted: after, report, .. } = walker;
    order.finish(report);
    report.after = after;
    check_chain_end(book, &last, report)?;
    Ok(last)
}

pub(crate) fn empty_chain() -> ChainHead {
    ChainHead { number: 0, hash: GENESIS_HASH.to_owned(), sealed_at: None }
}

struct ChainWalker<'a> {
    book: &'a Connection,
    days: &'a CalendarDays,
    report: &'a mut AuditReport,
    last: ChainHead,
    order: HourOrder<'a>,
    /// The seals after the noted head.
    after_noted: Option<SealsAfterHead>,
}

impl ChainWalker<'_> {
    fn check_seal(&mut self, seal: &SealRow, place: &SealLocation) -> rusqlite::Result<()> {
        self.report.checked.seals += 1;
        self.check_link(seal);
        self.order.add_seal(seal, &describe_seal(seal, self.days), self.report);
        if let Some(after) = &mut self.after_noted {
            after.count_seal(seal.kind);
        }
        let lines = covered_lines(self.book, self.days, (seal, place))?;
        self.check_content(seal, lines.as_deref())?;
        self.check_hash(seal, lines.as_deref());
        self.last = ChainHead { number: seal.number, hash: seal.hash.clone(), sealed_at: Some(seal.sealed_at.clone()) };
        Ok(())
    }

    fn check_link(&mut self, seal: &SealRow) {
        let place = describe_seal(seal, self.days);
        let expected = self.last.number + 1;
        if seal.number != expected {
            let missing = if seal.number == expected + 1 {
                format!("seal {expected} is missing before it")
            } else {
                format!("seals {expected} to {} are missing before it", seal.number - 1)
            };
            self.report.add_finding(AuditCheck::Link, &place, missing);
        }
        if seal.previous_hash != self.last.hash {
            let what = format!(
                "it follows {}, but the hash of the seal before it (seal {}) is {}",
                seal.previous_hash, self.last.number, self.last.hash
            );
            self.report.add_finding(AuditCheck::Link, &place, what);
        }
    }

    fn check_content(&mut self, seal: &SealRow, lines: Option<&[String]>) -> rusqlite::Result<()> {
        let Some(lines) = lines else {
            self.report.checked.rolled += 1;
            return Ok(());
        };
        self.report.checked.lines += lines.len() as u64;
        let content = canonical::content_hash(lines);
        if content == seal.content {
            if lines.len() as u64 != seal.lines {
                let what = format!("it states {} lines; its content has {}", seal.lines, lines.len());
                self.report.add_finding(AuditCheck::Content, describe_seal(seal, self.days), what);
            }
            return Ok(());
        }
        let what = self.describe_difference(seal, lines, &content)?;
        let check = match seal.kind {
            SealKind::Adjustment => AuditCheck::Adjustments,
            SealKind::Epoch => AuditCheck::Epochs,
            SealKind::Hour | SealKind::Day | SealKind::Migration => AuditCheck::Content,
        };
        self.report.add_finding(check, describe_seal(seal, self.days), what);
        Ok(())
    }

    /// Describes the difference between the rows and the sealed rows.
    fn describe_difference(&self, seal: &SealRow, lines: &[String], content: &str) -> rusqlite::Result<String> {
        let query = "SELECT number FROM seal WHERE content = ?1 AND number <> ?2 LIMIT 1";
        let twin: Option<i64> =
            self.book.query_row(query, params![content, seal.number], |row| row.get(0)).optional()?;
        let (had, has) = (seal.lines, lines.len() as u64);
        Ok(match twin {
            Some(twin) => format!("its rows are the rows of seal {twin}: they were exchanged or copied"),
            None if has < had => format!("it covers {had} rows, {has} are there: {} missing or moved", had - has),
            None if has > had => format!("it covers {had} rows, {has} are there: {} added or moved", has - had),
            None => format!(
                "the {has} rows differ from the sealed ones: their hash is {content}, the sealed hash is {}",
                seal.content
            ),
        })
    }

    fn check_hash(&mut self, seal: &SealRow, lines: Option<&[String]>) {
        let Some(hash) = seal.computed_hash(lines) else { return };
        if hash != seal.hash {
            let what = format!("its columns give the hash {hash}, it has {}", seal.hash);
            self.report.add_finding(AuditCheck::Hash, describe_seal(seal, self.days), what);
        }
    }
}

/// Checks that the chain ends with the seal that the book has recorded as the last one.
fn check_chain_end(book: &Connection, last: &ChainHead, report: &mut AuditReport) -> rusqlite::Result<()> {
    let query = "SELECT head_number, head_hash FROM meta";
    let (number, hash): (i64, String) = book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if (number, hash.as_str(), last.number) == (0, "", 0) {
        return Ok(()); // nothing is sealed, and nothing was recorded
    }
    if (number, &hash) != (last.number, &last.hash) {
        let what = if number > last.number {
            format!(
                "the chain ends at seal {}, but the book records seal {number} ({hash}) as its head: the end was cut \
                 off",
                last.number
            )
        } else {
            format!("the chain ends with {}, but the book records seal {number} with {hash}", last.hash)
        };
        report.add_finding(AuditCheck::Head, format!("seal {}", last.number), what);
    }
    Ok(())
}

/// Checks that the chain still contains the noted head.
pub(crate) fn check_noted_head(book: &Connection, noted: &NotedHead, report: &mut AuditReport) -> rusqlite::Result<()> {
    let query = "SELECT hash FROM seal WHERE number = ?1";
    let hash: Option<String> = book.query_row(query, [noted.number], |row| row.get(0)).optional()?;
    let what = match hash {
        Some(hash) if hash == noted.hash => return Ok(()),
        Some(hash) => format!("its hash is {hash}, the noted hash is {}: this is another chain", noted.hash),
        None => format!("it was noted as {} and is missing: the chain's end was cut off", noted.hash),
    };
    report.add_finding(AuditCheck::Head, format!("seal {}", noted.number), what);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noted_head_is_a_number_and_a_hash() {
        let hash = "0".repeat(63) + "A";
        let noted = NotedHead::parse(&format!("12:{hash}")).expect("a head");
        assert_eq!((noted.number, noted.hash.ends_with('a')), (12, true));
        for text in ["", "12", "12:", &format!("x:{hash}"), &format!("0:{hash}"), &format!("12:{hash}0")] {
            assert!(NotedHead::parse(text).is_err(), "{text}");
        }
    }
}

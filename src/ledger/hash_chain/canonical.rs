//! The canonical form: the text that a seal covers, line by line, and its hash (SHA-256).
//!
//! Sealing, verification and export all use this module. `docs/ledger.md` and `docs/check_ledger.py` describe the same
//! form.
//!
//! Guarantees:
//! - Lines are UTF-8, fields are separated by a tab, and every line ends with a line feed. No field contains either.
//! - The lines of a seal are sorted by their bytes, so equal rows always give equal text.
//! - All functions are pure.
//!
//! Leaves to others: reading the rows, and storing the hash.

use sha2::{Digest, Sha256};

use crate::ledger::values::measures::StoredMeasures;
use crate::model::{Window, hex_text};

/// The hash that the first seal follows.
pub(crate) const GENESIS_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The name in the outcome field for admitted commands.
pub(crate) const ADMITTED_NAME: &str = "admitted";

/// The name in the outcome field for commands that cost no units.
pub(crate) const WAIVED_NAME: &str = "waived";

/// Department, subsystem and command.
pub(crate) type SeriesLabel<'a> = [&'a str; 3];

/// The kind of content that a seal covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SealKind {
    /// The rows of one hour and epoch.
    Hour,
    /// The sums of one calendar day, whose hours may be removed by compaction.
    Day,
    /// The ending of one epoch.
    Epoch,
    /// One correction.
    Adjustment,
    /// The contents of the book when its format changed.
    Migration,
}

impl SealKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Epoch => "epoch",
            Self::Adjustment => "adjustment",
            Self::Migration => "migration",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let all = [Self::Hour, Self::Day, Self::Epoch, Self::Adjustment, Self::Migration];
        all.into_iter().find(|kind| kind.name() == text)
    }
}

/// A seal as stored in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SealRow {
    pub(crate) number: i64,
    /// 1 or 2: the rule of the hash.
    pub(crate) format: u32,
    pub(crate) kind: SealKind,
    pub(crate) epoch: Option<u32>,
    pub(crate) window: Option<Window>,
    pub(crate) lines: u64,
    pub(crate) content: String,
    pub(crate) previous_hash: String,
    pub(crate) hash: String,
    pub(crate) sealed_at: String,
}

impl SealRow {
    /// Computes the hash from the seal's columns. A seal of format 1 hashes its lines directly, so without the lines
    /// the result is `None`.
    pub(crate) fn computed_hash(&self, lines: Option<&[String]>) -> Option<String> {
        if self.format == 1 {
            return lines.map(|lines| self.format_1_hash(lines));
        }
        let (epoch, window) = (value_or_dash(self.epoch), value_or_dash(self.window));
        let Self { number, format, lines, content, previous_hash: previous, sealed_at, .. } = self;
        let kind = self.kind.name();
        let text = format!(
            "tallygate seal {format}\n{number}\n{kind}\n{epoch}\n{window}\n{lines}\n{content}\n{previous}\n{sealed_at}\n"
        );
        Some(hex_text(&Sha256::digest(text)))
    }

    fn format_1_hash(&self, lines: &[String]) -> String {
        let (epoch, window) = (value_or_dash(self.epoch), value_or_dash(self.window));
        let mut digest = Sha256::new();
        digest.update(format!("tallygate seal 1\n{}\n{epoch}\n{window}\n{}\n", self.number, self.previous_hash));
        hash_lines(&mut digest, lines);
        hex_text(&digest.finalize())
    }
}

/// Returns a value as text, or `-` if there is none.
pub(crate) fn value_or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Returns the line of admitted commands and units of one hour, epoch and series.
pub(crate) fn admission_line(names: SeriesLabel<'_>, numbers: [i64; 2]) -> String {
    let [admitted, units] = numbers;
    format!("admission\t{}\t{admitted}\t{units}", names.join("\t"))
}

/// Returns the line of commands that cost no units, and the units that they would have cost, of one hour, epoch and
/// series.
pub(crate) fn waived_line(names: SeriesLabel<'_>, late: i64, numbers: [i64; 2]) -> String {
    let [commands, units] = numbers;
    format!("waived\t{}\t{late}\t{commands}\t{units}", names.join("\t"))
}

/// Returns the line of ended or refused commands of one hour, epoch and series. `late` is `None` in lines of format 1.
pub(crate) fn usage_line(names: SeriesLabel<'_>, outcome: &str, late: Option<i64>, numbers: &StoredMeasures) -> String {
    let late = late.map_or_else(String::new, |late| format!("\t{late}"));
    format!("usage\t{}\t{outcome}{late}\t{}", names.join("\t"), measure_fields(numbers))
}

/// Returns the line of the sums of one day, series and outcome; [`ADMITTED_NAME`] is one of the outcomes.
pub(crate) fn day_line(names: SeriesLabel<'_>, outcome: &str, numbers: &StoredMeasures) -> String {
    format!("day\t{}\t{outcome}\t{}", names.join("\t"), measure_fields(numbers))
}

/// Returns the line of a seal that a later seal covers, with its hash or its content.
pub(crate) fn seal_line(number: i64, hash: &str) -> String {
    format!("seal\t{number}\t{hash}")
}

/// Returns the line of an epoch: its number and process; gateway and boot; times of begin, last sync and end; kind of
/// ending.
pub(crate) fn epoch_line(
    [number, process]: [u32; 2],
    [gateway, boot_id]: [&str; 2],
    [began, synced, ended, ending]: [&str; 4],
) -> String {
    format!("epoch\t{number}\t{gateway}\t{boot_id}\t{process}\t{began}\t{synced}\t{ended}\t{ending}")
}

/// Returns the line of a correction: its number; department, subsystem, command and period; units; reason, author and
/// time.
pub(crate) fn adjustment_line(number: i64, whom: &str, units: i64, why: &str) -> String {
    format!("adjustment\t{number}\t{whom}\t{units}\t{why}")
}

fn measure_fields(numbers: &StoredMeasures) -> String {
    numbers.as_array().map(|number| number.to_string()).join("\t")
}

/// Returns the SHA-256 of lines, in lower-case hexadecimal.
pub(crate) fn content_hash(lines: &[String]) -> String {
    let mut digest = Sha256::new();
    hash_lines(&mut digest, lines);
    hex_text(&digest.finalize())
}

fn hash_lines(digest: &mut Sha256, lines: &[String]) {
    for line in lines {
        digest.update(line);
        digest.update("\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: SeriesLabel<'_> = ["police", "cameras", "read"];
    const NUMBERS: StoredMeasures =
        StoredMeasures { commands: 2, units: 6, request_bytes: 10, response_bytes: 20, duration_ns: 30 };

    #[test]
    fn lines_equal_the_documented_format() {
        for (line, expected) in [
            (admission_line(NAMES, [2, 6]), "admission\tpolice\tcameras\tread\t2\t6"),
            (usage_line(NAMES, "ok", Some(3), &NUMBERS), "usage\tpolice\tcameras\tread\tok\t3\t2\t6\t10\t20\t30"),
            (usage_line(NAMES, "ok", None, &NUMBERS), "usage\tpolice\tcameras\tread\tok\t2\t6\t10\t20\t30"),
            (day_line(NAMES, ADMITTED_NAME, &NUMBERS), "day\tpolice\tcameras\tread\tadmitted\t2\t6\t10\t20\t30"),
            (waived_line(NAMES, 3, [2, 6]), "waived\tpolice\tcameras\tread\t3\t2\t6"),
            (seal_line(7, "ab"), "seal\t7\tab"),
            (
                epoch_line([1, 41], ["gateway-1", "boot"], ["b", "s", "e", "clean"]),
                "epoch\t1\tgateway-1\tboot\t41\tb\ts\te\tclean",
            ),
        ] {
            assert_eq!(line, expected);
        }
    }

    /// The expected hashes were computed with `printf ... | sha256sum`.
    #[test]
    fn hashes_equal_those_of_sha256sum() {
        let lines = [admission_line(NAMES, [2, 6])];
        assert_eq!(content_hash(&[]), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let mut seal = SealRow {
            number: 1,
            format: 2,
            kind: SealKind::Hour,
            epoch: Some(1),
            window: Some(Window(498_795)),
            lines: 1,
            content: content_hash(&lines),
            previous_hash: GENESIS_HASH.to_owned(),
            hash: String::new(),
            sealed_at: "2026-11-24T05:00:00Z".to_owned(),
        };
        assert_eq!(seal.content, CONTENT);
        assert_eq!(seal.computed_hash(None).as_deref(), Some(HASH_2));
        seal.format = 1;
        assert_eq!((seal.computed_hash(None), seal.computed_hash(Some(&lines)).as_deref()), (None, Some(HASH_1)));
    }

    const CONTENT: &str = "6882cd10e7157449406621437f34625e204a549a48c54555e72f941cc076496f";
    const HASH_2: &str = "d17e71c434252539430cb50737de4c9d7166a2450dbe0a6b5c3e46a011e30916";
    const HASH_1: &str = "af8e332349558be78b65e9b5fe2ebc830453a84d69409a040172dd5768af0c61";
}

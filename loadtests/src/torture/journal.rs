//! The callers' log: a line before each command is sent, and a line after its whole response has been read.
//!
//! Guarantees:
//! - A line is one append by one `write(2)`. It survives the death of the writer, and lines are never interleaved.
//! - A reader takes complete lines only, and each line once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// An event in the life of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The command is about to be sent.
    Sent,
    /// The whole response was read; the status.
    Answered(u16),
    /// There was no complete response.
    Failed,
}

/// The writer of a log.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens a log for appending; creates it if it does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        file.map(Self).with_context(|| format!("opening the log {}", path.display()))
    }

    /// Appends a line.
    pub fn note(&mut self, department: &str, event: Event) -> Result<()> {
        let line = match event {
            Event::Sent => format!("{department} sent\n"),
            Event::Answered(status) => format!("{department} {status}\n"),
            Event::Failed => format!("{department} failed\n"),
        };
        self.0.write_all(line.as_bytes()).context("appending to the log")
    }
}

/// The counts of one department's callers so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub sent: u64,
    /// Complete responses by status.
    pub answered: BTreeMap<u16, u64>,
    pub failed: u64,
}

impl Seen {
    /// Number of complete responses of any status.
    pub fn answers(&self) -> u64 {
        self.answered.values().sum()
    }

    fn take(&mut self, word: &str) -> Result<()> {
        match word {
            "sent" => self.sent += 1,
            "failed" => self.failed += 1,
            status => *self.answered.entry(status.parse()?).or_default() += 1,
        }
        Ok(())
    }
}

/// A reader of a growing file, which takes complete lines.
#[derive(Debug)]
pub struct Tail {
    file: File,
    rest: String,
}

impl Tail {
    /// Opens a file at its beginning.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options().create(true).read(true).append(true).open(path);
        Ok(Self { file: file.with_context(|| format!("opening {}", path.display()))?, rest: String::new() })
    }

    /// The lines since the last call, each split at its first space.
    pub fn lines(&mut self) -> Result<Vec<(String, String)>> {
        self.file.read_to_string(&mut self.rest).context("reading a log")?;
        let end = self.rest.rfind('\n').map_or(0, |at| at + 1);
        let whole: String = self.rest.drain(..end).collect();
        whole.lines().map(split).collect()
    }
}

fn split(line: &str) -> Result<(String, String)> {
    let Some((first, second)) = line.split_once(' ') else { bail!("{line:?} is no line of a log") };
    Ok((first.to_owned(), second.to_owned()))
}

/// Adds the new lines of the callers' log to `seen`.
pub fn read_on(tail: &mut Tail, seen: &mut BTreeMap<String, Seen>) -> Result<()> {
    for (department, word) in tail.lines()? {
        seen.entry(department).or_default().take(&word)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_lines_are_read_once_and_a_partial_line_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut journal = Journal::open(&path).expect("a log");
        for event in [Event::Sent, Event::Answered(200), Event::Sent, Event::Failed] {
            journal.note("dept-1", event).expect("a line");
        }
        journal.0.write_all(b"dept-2 se").expect("half a line");
        let (mut tail, mut seen) = (Tail::open(&path).expect("a reader"), BTreeMap::new());
        read_on(&mut tail, &mut seen).expect("lines");
        let expected = Seen { sent: 2, answered: BTreeMap::from([(200, 1)]), failed: 1 };
        assert_eq!(seen, BTreeMap::from([("dept-1".to_owned(), expected)]));
        journal.0.write_all(b"nt\n").expect("the other half");
        read_on(&mut tail, &mut seen).expect("lines");
        assert_eq!(seen["dept-2"].sent, 1);
    }
}

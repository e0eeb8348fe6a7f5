//! Names of departments, subsystems and commands, and the small numbers that stand for them at run time.
//!
//! Guarantees: a [`Name`] fits the ledger's fixed fields and is safe as a metric label, a header value and a CSV cell.
//! A number, once given to a name, stays with it for the life of the process, whatever is reloaded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;

/// An identifier of 1 to [`Name::MAX_BYTES`] characters out of `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name; three of them fit one slot of the tally.
    pub const MAX_BYTES: usize = 63;
    /// Stands for a department, subsystem or command that could not be told.
    pub const UNKNOWN: &'static str = "unknown";
    /// Stands for the commands of a subsystem that no rule names (`otherCommands: allow`).
    pub const OTHER: &'static str = "other";

    /// Reads a name, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let first = text.bytes().next().ok_or(BadName::Empty)?;
        if text.len() > Self::MAX_BYTES {
            return Err(BadName::TooLong(text.len()));
        }
        if !first.is_ascii_alphanumeric() {
            return Err(BadName::Start(text.chars().next().unwrap_or(' ')));
        }
        let odd = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
        match odd {
            Some(odd) => Err(BadName::Character(odd)),
            None => Ok(Self(text.into())),
        }
    }

    /// The reserved name [`Name::UNKNOWN`].
    pub fn unknown() -> Self {
        Self(Self::UNKNOWN.into())
    }

    /// The reserved name [`Name::OTHER`].
    pub fn other() -> Self {
        Self(Self::OTHER.into())
    }

    /// Whether the house itself uses this name, so that a configuration may not.
    pub fn is_reserved(&self) -> bool {
        matches!(self.as_str(), Self::UNKNOWN | Self::OTHER)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing was written.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`Name::MAX_BYTES`].
    #[error("a name has at most 63 characters, this one has {0}")]
    TooLong(usize),
    /// Starts with something else than a letter or a digit.
    #[error("a name starts with a letter or a digit, not with {0:?}")]
    Start(char),
    /// Holds a character outside the set.
    #[error("a name is made of letters, digits, '.', '_' and '-', not {0:?}")]
    Character(char),
}

/// Gives every name it is shown a small number, the same one each time.
///
/// Bounded by the configurations the process has seen: only `config` shows it names, never a caller.
#[derive(Debug, Default)]
pub struct NameInterner {
    numbers: DashMap<Arc<str>, u32>,
    next_number: AtomicU32,
}

impl NameInterner {
    /// The number of `key`; 0 is never given, it stands for [`Name::UNKNOWN`].
    pub fn intern(&self, key: &str) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        *self.numbers.entry(key.into()).or_insert_with(|| self.next_number.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        let long = "a".repeat(64);
        for (text, expected) in [
            ("traffic-police", None),
            ("snapshot.submit", None),
            ("3rd_floor", None),
            ("", Some(BadName::Empty)),
            (long.as_str(), Some(BadName::TooLong(64))),
            (".hidden", Some(BadName::Start('.'))),
            ("a b", Some(BadName::Character(' '))),
            ("\u{4ea4}\u{8b66}", Some(BadName::Start('\u{4ea4}'))),
        ] {
            assert_eq!(Name::parse(text).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_number_stays_with_its_name() {
        let numbers = NameInterner::default();
        let (a, b) = (numbers.intern("a"), numbers.intern("b"));
        assert_ne!(a, b);
        assert_ne!(a, 0);
        assert_eq!(numbers.intern("a"), a);
    }
}

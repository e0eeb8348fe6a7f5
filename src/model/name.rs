//! Names of departments, subsystems and commands, and the numbers that represent them at run time.
//!
//! Guarantees:
//! - A [`Name`] fits the ledger's fixed fields and is safe as a metric label, a header value and a CSV cell.
//! - The number of a name stays the same for the life of the process, across all reloads.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;

use super::identity_token::IdentityToken;

/// An identifier of 1 to [`Name::MAX_BYTES`] characters from `A-Z a-z 0-9 . _ -`, starting with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name in bytes; three names fit one slot of the tally.
    pub const MAX_BYTES: usize = 63;
    /// The name of a department, subsystem or command that could not be determined.
    pub const UNKNOWN: &'static str = "unknown";
    /// The name of the commands of a subsystem that no rule names (`otherCommands: allow`).
    pub const OTHER: &'static str = "other";

    /// The subsystem of the commands that the gateway answers itself, without any configuration.
    pub const GATEWAY: &'static str = "tallygate";

    /// Reads a name.
    ///
    /// # Errors
    /// The fault in the text.
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

    /// The subsystem [`Name::GATEWAY`].
    pub fn gateway() -> Self {
        Self(Self::GATEWAY.into())
    }

    /// Whether this is the subsystem [`Name::GATEWAY`], whose commands are in no quota and no forecast.
    pub fn is_gateway(&self) -> bool {
        self.as_str() == Self::GATEWAY
    }

    /// The reserved name [`Name::OTHER`].
    pub fn other() -> Self {
        Self(Self::OTHER.into())
    }

    /// Whether the gateway itself uses this name, so that a configuration may not.
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

/// The reason why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`Name::MAX_BYTES`].
    #[error("a name has at most 63 characters, this one has {0}")]
    TooLong(usize),
    /// Starts with another character than a letter or a digit.
    #[error("a name starts with a letter or a digit, not with {0:?}")]
    Start(char),
    /// Holds a character outside the set.
    #[error("a name is made of letters, digits, '.', '_' and '-', not {0:?}")]
    Character(char),
}

/// Assigns a small number to each name, the same number each time.
///
/// The map is bounded by the configurations that the process has loaded and by the departments of the ledger: no caller
/// adds names.
#[derive(Debug, Default)]
pub struct NameInterner {
    numbers: DashMap<Arc<str>, u32>,
    next_number: AtomicU32,
    identity: IdentityToken,
}

impl NameInterner {
    /// The number of a department.
    pub fn department(&self, id: &Name) -> u32 {
        self.intern(&Self::department_key(id.as_str()))
    }

    /// The key of a department.
    pub fn department_key(id: &str) -> String {
        format!("d/{id}")
    }

    /// The identity of this interner: numbers of two interners have nothing in common.
    pub fn identity(&self) -> &IdentityToken {
        &self.identity
    }

    /// The number of `key`, if it has one.
    pub fn find(&self, key: &str) -> Option<u32> {
        self.numbers.get(key).map(|number| *number)
    }

    /// The number of `key`. The number 0 is never assigned; it represents [`Name::UNKNOWN`].
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
    fn name_is_interned_to_a_stable_number() {
        let numbers = NameInterner::default();
        let (a, b) = (numbers.intern("a"), numbers.intern("b"));
        assert_ne!(a, b);
        assert_ne!(a, 0);
        assert_eq!(numbers.intern("a"), a);
    }
}

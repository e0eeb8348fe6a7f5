//! A regular expression for the subject of a certificate.
//!
//! Guarantees: the memory of an expression is bounded, and the time of a match is linear.
//!
//! Leaves to others: the text of a subject (`distinguished_name`).

use std::hash::{Hash, Hasher};

use regex::{Regex, RegexBuilder};

/// The longest expression, in bytes.
const TEXT_MAX: usize = 4096;
/// The most bytes of a compiled expression.
const COMPILED_MAX: usize = 1 << 20;

/// A regular expression for a subject in the form of RFC 2253. It may match any part of the subject.
#[derive(Clone, Debug)]
pub struct SubjectPattern(Regex);

impl SubjectPattern {
    /// Reads an expression in the syntax of RE2.
    ///
    /// # Errors
    /// A description of the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > TEXT_MAX {
            return Err(format!("a regular expression of 1 to {TEXT_MAX} bytes was expected"));
        }
        let read = RegexBuilder::new(text).size_limit(COMPILED_MAX).build();
        read.map(Self).map_err(|error| format!("{text:?} is not a regular expression: {error}"))
    }

    /// Whether some part of the subject matches.
    pub(crate) fn is_match(&self, subject: &str) -> bool {
        self.0.is_match(subject)
    }
}

impl PartialEq for SubjectPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for SubjectPattern {}

impl Hash for SubjectPattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

//! Conditions of the Gateway API, before they become a status.
//!
//! Guarantees: a condition always has a reason, and a message that says what to do if it does not hold.
//!
//! Leaves to others: times and generations (`status`).

/// A condition of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its type, such as `Accepted`.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// The reason in one word.
    pub reason: &'static str,
    /// The reason in a sentence.
    pub message: String,
}

impl Condition {
    /// A condition that holds.
    pub fn holds(kind: &'static str, reason: &'static str) -> Self {
        Self { kind, holds: true, reason, message: String::new() }
    }

    /// A condition that does not hold.
    pub fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, holds: false, reason, message: message.into() }
    }
}

/// `Accepted` of a route or a listener.
pub const ACCEPTED: &str = "Accepted";
/// `ResolvedRefs` of a route or a listener.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// `Programmed` of a Gateway or a listener.
pub const PROGRAMMED: &str = "Programmed";
/// `Conflicted` of a listener.
pub const CONFLICTED: &str = "Conflicted";

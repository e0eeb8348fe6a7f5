//! The identity of a command.

use super::Name;

/// The identity of a command: its subsystem and its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandKey {
    /// The number of the pair of names in this process ([`super::NameInterner`]); 0 is the wholly unknown command.
    pub number: u32,
    /// The subsystem that performs it.
    pub subsystem: Name,
    /// The command's id within its subsystem.
    pub command: Name,
}

impl CommandKey {
    /// The key for a command of no known subsystem.
    pub fn unknown() -> Self {
        Self { number: 0, subsystem: Name::unknown(), command: Name::unknown() }
    }
}

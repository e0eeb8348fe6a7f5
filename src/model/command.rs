//! What is called.

use super::Name;

/// The identity of a command: which subsystem, which operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandKey {
    /// Stands for the pair of names while this process lives ([`super::Numbers`]); 0 is the wholly unknown command.
    pub number: u32,
    /// The subsystem that performs it.
    pub subsystem: Name,
    /// The command's id within its subsystem.
    pub command: Name,
}

impl CommandKey {
    /// A command of no known subsystem.
    pub fn unknown() -> Self {
        Self { number: 0, subsystem: Name::unknown(), command: Name::unknown() }
    }
}

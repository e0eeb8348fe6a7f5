//! Conflicts between the parts of a draft.

/// A conflict between parts of a draft, which are named by their positions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyConflict {
    /// Two subsystems claim the same host and path prefix.
    SameSubsystemPath {
        /// The later subsystem.
        subsystem: usize,
        /// The earlier one.
        with: usize,
        /// The host that both claim; `None` for any host.
        host: Option<String>,
    },
    /// Two commands match the same requests, or no precedence rule decides between them.
    SameRoute {
        /// Their subsystem.
        subsystem: usize,
        /// The later command.
        command: usize,
        /// The earlier command, if it is known.
        with: Option<usize>,
    },
    /// A glob that matches no command of its subsystem.
    UnmatchedGlob {
        /// The grant's position in the document.
        grant: usize,
        /// The glob's position in the grant.
        glob: usize,
    },
}

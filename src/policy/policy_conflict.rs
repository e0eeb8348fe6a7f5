//! Parts of a draft that do not fit together.

/// Parts of a draft that do not fit together, by their positions in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyConflict {
    /// Two subsystems claim the same host and path prefix.
    SameSubsystemPath {
        /// The later subsystem.
        subsystem: usize,
        /// The earlier one.
        with: usize,
        /// The host both claim, or none for any host.
        host: Option<String>,
    },
    /// Two commands answer to the same requests, or no rule could tell which is meant.
    SameRoute {
        /// Their subsystem.
        subsystem: usize,
        /// The later command.
        command: usize,
        /// The earlier one, where it is known.
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

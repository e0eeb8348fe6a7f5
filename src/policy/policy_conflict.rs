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
    /// Two subsystems claim the same server name (SNI), at least one of them for its TLS connections.
    SameServerName {
        /// The later subsystem.
        subsystem: usize,
        /// The earlier one.
        with: usize,
        /// The host that both claim; `None` for any host.
        host: Option<String>,
    },
    /// Two matches of commands accept the same requests, or no precedence rule decides between them.
    SameRoute {
        /// The later match.
        place: MatchPlace,
        /// The earlier match, if it is known.
        with: Option<MatchPlace>,
    },
}

/// A match of a command, by its positions in the draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatchPlace {
    /// The position of the subsystem.
    pub subsystem: usize,
    /// The position of the command in the subsystem.
    pub command: usize,
    /// The position of the match in the command.
    pub position: usize,
}

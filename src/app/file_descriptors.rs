//! The limit of connections by file descriptors, checked before the first connection is accepted.
//!
//! Guarantees: a gateway that starts has file descriptors for all its connections, for the same number of upstream
//! connections, and for its ledger: `2 * connections + RESERVED_DESCRIPTORS <= limit`.
//!
//! Leaves to others: the enforcement of the limit (`proxy`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{CapacitySettings, ConfigProblem, ConfigProblems};

/// The default maximum of caller connections (Envoy's recommendation for one listener at the edge).
const CONNECTIONS_DEFAULT: usize = 10_000;
/// File descriptors for the ledger, the admin listener, logs, libraries, and connections in transition.
const RESERVED_DESCRIPTORS: usize = 512;

/// The maximum of caller connections: the configured one, or the default bounded by the available descriptors.
pub(crate) fn connections_max(capacity: &CapacitySettings) -> Result<usize, ConfigProblems> {
    let allowed = raise_soft_limit();
    let room = allowed.saturating_sub(RESERVED_DESCRIPTORS) / 2;
    match capacity.connections {
        Some(requested) if requested > room => Err(too_many_connections(requested, allowed, room)),
        Some(requested) => Ok(requested),
        None if room == 0 => Err(too_many_connections(CONNECTIONS_DEFAULT, allowed, room)),
        None => {
            let connections = CONNECTIONS_DEFAULT.min(room);
            if connections < CONNECTIONS_DEFAULT {
                tracing::warn!(
                    connections,
                    descriptors = allowed,
                    "connection limit below the default: the limit of file descriptors is too low"
                );
            }
            Ok(connections)
        }
    }
}

/// Raises the soft limit to the hard limit, as Go and nginx do. The soft limit exists for programs that use `select`.
fn raise_soft_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let now = if current == maximum || setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    now.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)) // `None` means no limit
}

fn too_many_connections(requested: usize, allowed: usize, room: usize) -> ConfigProblems {
    let needed = requested.saturating_mul(2).saturating_add(RESERVED_DESCRIPTORS);
    let message = format!(
        "{requested} client connections need {needed} file descriptors (as many again for upstream connections, and \
         {RESERVED_DESCRIPTORS} for the ledger and other files), but the limit of this process is {allowed}"
    );
    let hint = format!("write at most {room}, or raise the limit: LimitNOFILE= in systemd, ulimit -n in a shell");
    ConfigProblems(vec![ConfigProblem::new("capacity.connections", message).with_hint(hint)])
}

//! How many connections the system lets us have: file descriptors, counted before anybody is let in.
//!
//! Guarantees: a gateway that starts can open as many connections as it promises to carry, with as many again towards
//! subsystems, and still write its ledger.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{CapacitySettings, ConfigProblem, ConfigProblems};

/// Connections of callers if nothing else is said (Envoy's recommendation for one listener at the edge).
const CONNECTIONS_DEFAULT: usize = 10_000;
/// Descriptors for the ledger, the admin listener, logs, libraries and what is on its way.
const RESERVED_DESCRIPTORS: usize = 512;

/// How many connections of callers this process carries: what was asked for, or as many as there is room for.
pub(crate) fn connections_max(capacity: &CapacitySettings) -> Result<usize, ConfigProblems> {
    let allowed = raise_soft_limit();
    let room = allowed.saturating_sub(RESERVED_DESCRIPTORS) / 2;
    match capacity.connections {
        Some(asked) if asked > room => Err(too_many_connections(asked, allowed, room)),
        Some(asked) => Ok(asked),
        None if room == 0 => Err(too_many_connections(CONNECTIONS_DEFAULT, allowed, room)),
        None => {
            let connections = CONNECTIONS_DEFAULT.min(room);
            if connections < CONNECTIONS_DEFAULT {
                tracing::warn!(
                    connections,
                    descriptors = allowed,
                    "fewer connections than usual: file descriptors are few"
                );
            }
            Ok(connections)
        }
    }
}

/// The soft limit is for programs that use `select`; a server raises it to what it may have, as Go's and nginx' do.
fn raise_soft_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let now = if current == maximum || setrlimit(Resource::Nofile, raised).is_ok() { maximum } else { current };
    now.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)) // none means: no limit
}

fn too_many_connections(asked: usize, allowed: usize, room: usize) -> ConfigProblems {
    let needed = asked.saturating_mul(2).saturating_add(RESERVED_DESCRIPTORS);
    let message = format!(
        "{asked} connections of callers need {needed} file descriptors (as many again towards subsystems, and {RESERVED_DESCRIPTORS} for \
         ledger and the rest), and the system allows this process {allowed}"
    );
    let hint = format!("write at most {room}, or raise the limit: LimitNOFILE= in systemd, ulimit -n in a shell");
    ConfigProblems(vec![ConfigProblem::new("capacity.connections", message).with_hint(hint)])
}

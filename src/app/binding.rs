//! Binding of all addresses of a configuration, before it serves any connection: at start, and before a reload.
//!
//! Guarantees:
//! - Every address is tried, so that all problems are reported at once.
//! - If one address fails, all sockets that were bound for the configuration are closed again.
//! - A live socket whose address stays is not touched.
//!
//! Leaves to others: which sockets stay (`listener_plan`), and accepting connections (`listener_set`, `admin`).

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::io::Errno;

use crate::config::{ConfigProblem, GatewaySettings};
use crate::proxy::TrafficListener;

use super::listener_plan::{ListenerPlan, keeps_admin};
use super::live_listeners::{BoundAddress, LiveAddresses, LiveListener};

/// The sockets of a configuration: those bound for it, and the live ones that it keeps.
pub(crate) struct BoundSockets {
    pub(crate) plan: ListenerPlan,
    /// The sockets of the listeners that need a new one, in the order of the configuration.
    pub(crate) listeners: Vec<TrafficListener>,
    pub(crate) admin: AdminSocket,
}

/// The socket of the admin listener.
pub(crate) enum AdminSocket {
    /// The live one, or still none.
    Unchanged,
    /// None any more.
    Removed,
    /// A new one.
    Bound(TcpListener),
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindProblem {
    /// The configuration key of the address: `listeners[departments].address`, `admin.address`.
    pub path: String,
    /// The position of the listener in the configuration; `None` for the admin listener.
    pub position: Option<usize>,
    /// The address.
    pub address: SocketAddr,
    /// The error of the system.
    pub error: io::Error,
    /// The listener of this gateway that holds the port, if one does: `listener departments`.
    pub holder: Option<String>,
}

/// All addresses that could not be bound; never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct BindProblems(pub Vec<BindProblem>);

/// Binds the addresses of `settings` that no socket of `live` serves.
pub(crate) fn bind_sockets(settings: &GatewaySettings, live: &LiveAddresses) -> Result<BoundSockets, BindProblems> {
    let plan = ListenerPlan::new(&live.listeners, &settings.listeners);
    let (mut problems, mut listeners) = (Vec::new(), Vec::new());
    let mut keep = |path: String, position, address, error| {
        let holder = holder_of_port(live, address);
        problems.push(BindProblem { path, position, address, error, holder });
    };
    for (position, listener) in settings.listeners.iter().enumerate().filter(|(at, _)| plan.sockets[*at].is_none()) {
        match TrafficListener::bind(listener.address) {
            Ok(bound) => listeners.push(bound),
            Err(error) => {
                keep(format!("listeners[{}].address", listener.name), Some(position), listener.address, error);
            }
        }
    }
    let admin = match settings.admin {
        wanted if wanted.is_none() && live.admin.is_none() => AdminSocket::Unchanged,
        wanted if keeps_admin(live.admin, wanted) => AdminSocket::Unchanged,
        None => AdminSocket::Removed,
        Some(address) => match bind_admin(address) {
            Ok(socket) => AdminSocket::Bound(socket),
            Err(error) => {
                keep("admin.address".to_owned(), None, address, error);
                AdminSocket::Unchanged
            }
        },
    };
    if problems.is_empty() { Ok(BoundSockets { plan, listeners, admin }) } else { Err(BindProblems(problems)) }
}

fn bind_admin(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The live listener that has the port of an address.
fn holder_of_port(live: &LiveAddresses, address: SocketAddr) -> Option<String> {
    let holds = |bound: SocketAddr| address.port() != 0 && bound.port() == address.port();
    let listener = live.listeners.iter().find(|listener| holds(listener.address.bound));
    let admin = || live.admin.filter(|admin| holds(admin.bound)).map(|_| "the admin listener".to_owned());
    listener.map(|listener| format!("listener {}", listener.name)).or_else(admin)
}

impl BoundSockets {
    /// The addresses that are live once these sockets are.
    pub(crate) fn addresses(&self, settings: &GatewaySettings, live: &LiveAddresses) -> LiveAddresses {
        let mut new = self.listeners.iter().map(TrafficListener::address);
        let sockets = settings.listeners.iter().zip(&self.plan.sockets);
        let listeners = sockets.filter_map(|(listener, socket)| {
            let bound = match socket {
                Some(index) => live.listeners[*index].address.bound,
                None => new.next()?,
            };
            let address = BoundAddress { configured: listener.address, bound };
            Some(LiveListener { name: listener.name.clone(), address, protocol: listener.protocol })
        });
        let listeners = listeners.collect();
        let bound = match &self.admin {
            AdminSocket::Unchanged => live.admin.map(|admin| admin.bound),
            AdminSocket::Removed => None,
            AdminSocket::Bound(socket) => socket.local_addr().ok(),
        };
        let admin = bound.zip(settings.admin).map(|(bound, configured)| BoundAddress { configured, bound });
        LiveAddresses { listeners, admin }
    }
}

impl BindProblem {
    /// The problem of a configuration that a reload rejects.
    pub(crate) fn to_config_problem(&self) -> ConfigProblem {
        let path = self.position.map_or_else(|| self.path.clone(), |position| format!("listeners[{position}].address"));
        let problem = ConfigProblem::new(path, self.message());
        match self.hint() {
            Some(hint) => problem.with_hint(hint),
            None => problem,
        }
    }

    fn message(&self) -> String {
        format!("cannot listen on {}: {}", self.address, self.error)
    }

    /// A remedy, for the error numbers that have a clear one.
    fn hint(&self) -> Option<String> {
        let port = self.address.port();
        let hint = match Errno::from_io_error(&self.error)? {
            Errno::ADDRINUSE => {
                if let Some(holder) = &self.holder {
                    return Some(format!(
                        "{holder} of this gateway uses the port until the reload is live; choose another port, or \
                         restart the gateway"
                    ));
                }
                format!(
                    "the port is in use; find the process with `ss -ltnp 'sport = :{port}'` and stop it, or choose \
                     another port"
                )
            }
            Errno::ADDRNOTAVAIL => {
                "the address is not assigned to this machine; `ip address` lists its addresses, and 0.0.0.0 or [::] \
                 means all"
                    .to_owned()
            }
            Errno::ACCESS | Errno::PERM => format!(
                "no permission to bind port {port}; choose a port of 1024 or higher, or give the process \
                 CAP_NET_BIND_SERVICE (AmbientCapabilities= in systemd)"
            ),
            Errno::AFNOSUPPORT => "this machine does not support IPv6; choose an IPv4 address".to_owned(),
            Errno::MFILE | Errno::NFILE => {
                "out of file descriptors; raise the limit: LimitNOFILE= in systemd, ulimit -n in a shell".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }
}

impl fmt::Display for BindProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message())?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind_problem(errno: Errno, address: &str) -> BindProblem {
        let address = address.parse().expect("an address");
        let path = "admin.address".to_owned();
        BindProblem { path, position: None, address, error: errno.into(), holder: None }
    }

    fn problem(errno: Errno, address: &str) -> String {
        bind_problem(errno, address).to_string()
    }

    #[test]
    fn each_errno_has_its_hint() {
        for (errno, address, hint) in [
            (Errno::ADDRINUSE, "127.0.0.1:8443", "find the process with `ss -ltnp 'sport = :8443'`"),
            (Errno::ADDRNOTAVAIL, "192.0.2.1:8443", "the address is not assigned to this machine"),
            (Errno::ACCESS, "127.0.0.1:443", "no permission to bind port 443"),
            (Errno::AFNOSUPPORT, "[::1]:8443", "does not support IPv6"),
            (Errno::MFILE, "127.0.0.1:8443", "LimitNOFILE"),
        ] {
            let message = problem(errno, address);
            let begin = format!("admin.address: cannot listen on {address}: ");
            assert!(message.starts_with(&begin) && message.contains(hint), "{message}");
            assert_eq!(message.contains("ss -ltnp"), errno == Errno::ADDRINUSE, "{message}");
        }
        assert!(problem(Errno::IO, "127.0.0.1:1").ends_with("(os error 5)"), "no hint for an unknown errno");
    }

    #[test]
    fn problem_of_a_reload_names_position_and_holder() {
        let in_use = bind_problem(Errno::ADDRINUSE, "127.0.0.1:8443");
        let holder = Some("listener departments".to_owned());
        let in_use = BindProblem { path: "listeners[web].address".to_owned(), position: Some(1), holder, ..in_use };
        let shown = in_use.to_config_problem();
        assert_eq!(shown.path, "listeners[1].address");
        assert!(shown.message.starts_with("cannot listen on 127.0.0.1:8443: "), "{}", shown.message);
        assert!(shown.hint.is_some_and(|hint| hint.starts_with("listener departments of this gateway uses the port")));
        assert_eq!(bind_problem(Errno::ACCESS, "127.0.0.1:443").to_config_problem().path, "admin.address");
    }
}

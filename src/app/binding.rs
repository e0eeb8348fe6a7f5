//! Binding of all addresses of a gateway, before it serves any connection.
//!
//! Guarantees:
//! - Every address is tried, so that all problems are reported at once.
//! - If one address fails, all bound sockets are closed again.
//!
//! Leaves to others: accepting connections (`listener_set`, `admin`).

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::io::Errno;

use crate::config::GatewaySettings;
use crate::model::Name;
use crate::proxy::TrafficListener;

/// The bound sockets of a gateway.
pub(crate) struct BoundSockets {
    pub(crate) listeners: Vec<(Name, TrafficListener)>,
    pub(crate) admin: Option<TcpListener>,
}

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindProblem {
    /// The configuration key of the address: `listeners[departments].address`, `admin.address`.
    pub path: String,
    /// The address.
    pub address: SocketAddr,
    /// The error of the system.
    pub error: io::Error,
}

/// All addresses that could not be bound; never empty.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct BindProblems(pub Vec<BindProblem>);

/// Binds the traffic listeners and the admin listener.
pub(crate) fn bind_sockets(settings: &GatewaySettings) -> Result<BoundSockets, BindProblems> {
    let mut problems = Vec::new();
    let mut keep = |path: String, address, error| problems.push(BindProblem { path, address, error });
    let mut listeners = Vec::with_capacity(settings.listeners.len());
    for listener in &settings.listeners {
        match TrafficListener::bind(listener.address) {
            Ok(bound) => listeners.push((listener.name.clone(), bound)),
            Err(error) => keep(format!("listeners[{}].address", listener.name), listener.address, error),
        }
    }
    let admin = settings
        .admin
        .and_then(|address| bind_admin(address).map_err(|error| keep("admin.address".to_owned(), address, error)).ok());
    if problems.is_empty() { Ok(BoundSockets { listeners, admin }) } else { Err(BindProblems(problems)) }
}

fn bind_admin(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

impl BindProblem {
    /// A remedy, for the error numbers that have a clear one.
    fn hint(&self) -> Option<String> {
        let port = self.address.port();
        let hint = match Errno::from_io_error(&self.error)? {
            Errno::ADDRINUSE => {
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
        write!(f, "{}: cannot listen on {}: {}", self.path, self.address, self.error)?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(errno: Errno, address: &str) -> String {
        let address = address.parse().expect("an address");
        BindProblem { path: "admin.address".to_owned(), address, error: errno.into() }.to_string()
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
}

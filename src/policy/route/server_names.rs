//! From the server name of a TLS connection (SNI) to the subsystem whose command the connection is.
//!
//! A server name belongs to the subsystem with the most specific host, in the order of `host_table` (Gateway API: an
//! exact name before wildcards, a longer wildcard before a shorter). If the commands of that subsystem are HTTP
//! requests, the connection is HTTPS.
//!
//! Guarantees:
//! - A connection without a server name belongs to no subsystem with a [`ConnectionMode`].
//! - A lookup allocates nothing, and takes no time where no subsystem has a [`ConnectionMode`].
//!
//! Leaves to others: the certificate for a server name (`identity`), and requests (`path_table`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::host_table::HostTable;
use super::listener_table::RouteSet;
use crate::policy::policy_conflict::PolicyConflict;
use crate::policy::subsystem::{Command, ConnectionMode, Subsystem};

/// What becomes of a TLS connection.
#[derive(Debug)]
pub enum ConnectionMatch<'a> {
    /// The connection is a command of a subsystem.
    Command {
        /// How the connection is forwarded.
        mode: ConnectionMode,
        /// The subsystem.
        subsystem: &'a Arc<Subsystem>,
        /// Its only command.
        command: &'a Arc<Command>,
    },
    /// The connection is HTTPS. The handshake decides whether its server name is served.
    Http,
    /// No subsystem has the server name, and there is no HTTP here: the connection is refused.
    None,
}

/// The server names of one set of visible subsystems.
#[derive(Debug)]
pub(super) struct ServerNameTable {
    /// The subsystem of each host; empty if no subsystem has a [`ConnectionMode`].
    names: HostTable<Arc<Subsystem>>,
    has_no_http: bool,
}

impl ServerNameTable {
    /// Compiles the server names of a set. Of equal hosts the first one wins; if the later one may not be shadowed,
    /// that is a conflict.
    pub(super) fn compile(subsystems: &[Arc<Subsystem>], set: &RouteSet, conflicts: &mut Vec<PolicyConflict>) -> Self {
        let members = || set.members.iter().map(|index| (*index, &subsystems[*index]));
        let has_connections = set.any_connections && members().any(|(_, subsystem)| subsystem.tls_mode.is_some());
        let claimants = members().filter(|(_, one)| has_connections && (one.tls_mode.is_some() || !set.has_no_http));
        let claims = claimants.flat_map(|one| one.1.scope.claimed_hosts().map(move |host| (one, host)));
        let mut holders: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        for ((index, subsystem), host) in claims {
            let first = *holders.entry(host).or_insert(index);
            let is_mixed = subsystem.tls_mode.or(subsystems[first].tls_mode).is_some();
            if first == index || !is_mixed || subsystem.is_shadowable {
                continue;
            }
            let host = host.map(str::to_owned);
            let conflict = PolicyConflict::SameServerName { subsystem: index, with: first, host };
            if !conflicts.contains(&conflict) {
                conflicts.push(conflict); // once, although several listeners see both
            }
        }
        let names = holders.into_iter().map(|(host, index)| (host, vec![("", Arc::clone(&subsystems[index]))]));
        Self { names: HostTable::build(names), has_no_http: set.has_no_http }
    }

    /// Whether neither has a server name, and both decide the same.
    pub(super) fn is_as_empty_as(&self, other: &Self) -> bool {
        self.names.is_empty() && other.names.is_empty() && self.has_no_http == other.has_no_http
    }

    /// What becomes of a connection with this server name.
    pub(super) fn find(&self, server_name: Option<&str>) -> ConnectionMatch<'_> {
        let found = server_name.and_then(|name| self.names.visit_values(name, "/", |one, _| ControlFlow::Break(one)));
        let command = found.and_then(|subsystem| Some((subsystem.tls_mode?, subsystem, subsystem.commands.first()?)));
        match command {
            Some((mode, subsystem, command)) => ConnectionMatch::Command { mode, subsystem, command },
            None if self.has_no_http => ConnectionMatch::None,
            None => ConnectionMatch::Http,
        }
    }
}

//! From host, method and path to a command. The most specific wins: host over any host, longest prefix, literal
//! segments over parameters, named method over any method.

use std::sync::Arc;

use http::Method;

use super::snapshot::{Command, Snapshot, Subsystem};

/// What a request is.
#[derive(Debug)]
pub enum Route<'a> {
    /// A command of a subsystem.
    Command {
        /// The subsystem.
        subsystem: &'a Arc<Subsystem>,
        /// The command.
        command: &'a Arc<Command>,
    },
    /// A subsystem's path, but none of its commands, and `otherCommands: refuse`.
    NoCommand {
        /// The subsystem.
        subsystem: &'a Arc<Subsystem>,
    },
    /// No subsystem's host or path.
    NoSubsystem,
}

/// The compiled routes.
#[derive(Debug)]
pub struct RouteTable {}

impl RouteTable {
    pub(super) fn find<'a>(&'a self, _snapshot: &'a Snapshot, _host: &str, _method: &Method, _path: &str) -> Route<'a> {
        todo!()
    }
}

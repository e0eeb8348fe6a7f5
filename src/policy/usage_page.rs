//! The usage page: the command by which a department reads its own usage. The gateway answers it itself.
//!
//! Guarantees:
//! - It has the same path on every host and every listener, and no subsystem of the configuration can take that path.
//! - Every department may read its own page, and no grant opens that of another one.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::{HeaderValue, Method};

use crate::model::{CommandKey, Name, RateLimit, RateUnit, TrafficLimits};

use super::command_backends::CommandBackends;
use super::grant::Grant;
use super::subsystem::{Command, CommandTimeouts, DepartmentPolicy, Durability, RouteScope, Subsystem};

/// The usage page of a configuration that has one.
#[derive(Debug)]
pub struct UsagePage {
    /// The subsystem [`Name::GATEWAY`], which has no servers.
    pub subsystem: Arc<Subsystem>,
    /// Its only command.
    pub command: Arc<Command>,
}

/// The numbers of the names of a [`UsagePage`].
#[derive(Clone, Copy, Debug)]
pub struct UsagePageNumbers {
    /// Of the subsystem.
    pub subsystem: u32,
    /// Of the command.
    pub command: u32,
}

impl UsagePage {
    /// The path of the page.
    pub const PATH: &'static str = "/.well-known/tallygate/usage";
    /// The id of the command.
    pub const COMMAND: &'static str = "usage.read";
    /// The methods, for `Allow`.
    pub const METHODS: &'static str = "GET, HEAD";
    /// The rate of each department: more than a person or a dashboard needs.
    const RATE: RateLimit =
        RateLimit { count: NonZeroU32::MIN, unit: RateUnit::Second, burst: NonZeroU32::new(10).expect("not zero") };
    /// The most requests of a department at a time.
    const CONCURRENT: NonZeroU32 = NonZeroU32::new(4).expect("not zero");

    /// The page, whose command costs no units and has only limits of its own.
    pub fn new(numbers: UsagePageNumbers) -> Self {
        let key = |number, command| CommandKey { number, subsystem: Name::gateway(), command };
        let command = Command {
            key: key(numbers.command, Name::parse(Self::COMMAND).expect("a name")),
            subsystem: numbers.subsystem,
            header: HeaderValue::from_static("tallygate/usage.read"),
            matches: Vec::new(),
            units: 0,
            limits: TrafficLimits { rate: Some(Self::RATE), concurrent: Some(Self::CONCURRENT) },
            address_limits: None,
            sources: None,
            body_max: 0,
            upgrade: None,
            durability: Durability::Process,
            timeouts: CommandTimeouts::default(),
            shape: None,
            backends: CommandBackends::None,
            is_refused: false,
        };
        let command = Arc::new(command);
        let subsystem = Subsystem {
            id: Name::gateway(),
            scope: RouteScope::default(),
            prefix: String::new(),
            keep_path: false,
            backend: None,
            timeouts: CommandTimeouts::default(),
            commands: vec![Arc::clone(&command)],
            other: None,
            passes_on: false,
            is_shadowable: false,
            tls_mode: None,
            owner: None,
            unknown: key(numbers.subsystem, Name::unknown()),
        };
        Self { subsystem: Arc::new(subsystem), command }
    }

    /// Whether a request is for the page.
    pub fn is_at(path: &str) -> bool {
        path == Self::PATH
    }

    /// Whether the page has this method.
    pub fn has_method(method: &Method) -> bool {
        matches!(*method, Method::GET | Method::HEAD)
    }

    /// The permission of a department to read its own page.
    pub fn grant(&self, department: &DepartmentPolicy) -> Grant {
        Grant::of_own_page(department, &self.command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_subsystem_and_command() {
        let page = UsagePage::new(UsagePageNumbers { subsystem: 1, command: 2 });
        assert_eq!(page.command.header, format!("{}/{}", page.subsystem.id, page.command.key.command));
    }
}

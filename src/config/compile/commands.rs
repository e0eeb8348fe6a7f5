//! `subsystems[].commands`: the operations that are counted, limited and granted.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderValue, Method};

use crate::config::document::{Body, Command as CommandDocument, Match};
use crate::config::leaf;
use crate::limit::QUOTA_UNITS_MAX;
use crate::model::{CommandKey, Limits, Name, Numbers};
use crate::policy::{Command, PathTemplate, Protocol, Snapshot};

use super::departments::header;
use super::place::Place;
use super::subsystems::Commands;
use super::{limits, settings, shaping};

pub(super) fn compile(
    commands: &[CommandDocument],
    subsystem: &Name,
    shared: &mut Commands<'_>,
    place: &Place<'_>,
) -> Vec<Arc<Command>> {
    let mut ids = HashSet::new();
    let mut compiled = Vec::with_capacity(commands.len());
    for (position, written) in commands.iter().enumerate() {
        let place = place.item(position);
        let command = one(written, subsystem, shared, &place);
        if !ids.insert(command.key.command.clone()) {
            place.key("id").problem(format!("{:?} is the id of two commands of {subsystem}", written.id));
        }
        compiled.push(Arc::new(command));
    }
    compiled
}

/// The command that all unnamed requests of a subsystem are.
pub(super) fn other(subsystem: &Name, shared: &mut Commands<'_>) -> Command {
    Command {
        header: header(&format!("{subsystem}/{}", Name::OTHER)),
        key: key(subsystem, Name::other(), shared.numbers),
        index: next_index(shared),
        method: None,
        path: None,
        units: 1,
        limits: Limits::default(),
        body_max: Snapshot::BODY_MAX_DEFAULT,
        upgrade: None,
        durability: shared.durability,
        shape: shared.common.clone().shape(None, None, None),
    }
}

/// The key of a command, with the number that stays with its name.
pub(super) fn key(subsystem: &Name, command: Name, numbers: &Numbers) -> CommandKey {
    CommandKey { number: numbers.of(&format!("c/{subsystem}/{command}")), subsystem: subsystem.clone(), command }
}

fn one(written: &CommandDocument, subsystem: &Name, shared: &mut Commands<'_>, place: &Place<'_>) -> Command {
    let id = place.key("id").name(&written.id);
    let (method, path) = requests(&written.r#match, &place.key("match"));
    Command {
        header: header(&format!("{subsystem}/{id}")),
        key: key(subsystem, id, shared.numbers),
        index: next_index(shared),
        shape: shaping::compile(written, path.as_ref(), shared, place),
        method,
        path,
        units: units(written.units, &place.key("units")),
        limits: limits::compile(written.limits.as_ref(), &place.key("limits")),
        upgrade: written.upgrade.as_deref().and_then(|text| upgrade(text, shared.protocol, &place.key("upgrade"))),
        body_max: body_max(written.body.as_ref(), &place.key("body").key("max")),
        durability: settings::durability(written.durability.as_deref(), shared.durability, place),
    }
}

/// The method, if one is named, and the path of the requests a command is.
fn requests(written: &Match, place: &Place<'_>) -> (Option<Method>, Option<PathTemplate>) {
    let method = || written.method.as_deref().and_then(|text| place.key("method").read(leaf::method(text)));
    match (&written.path, &written.grpc) {
        (Some(path), None) => (method(), place.key("path").read(leaf::template(path))),
        (None, Some(grpc)) => {
            if written.method.is_some() {
                place.key("method").problem("a gRPC method is always POST; leave it out");
            }
            (Some(Method::POST), place.key("grpc").read(leaf::grpc_method(grpc)))
        }
        (None, None) => (None, place.key("path").absent("is missing; write a path, or grpc: package.Service/Method")),
        (Some(_), Some(_)) => (None, place.key("grpc").absent("stands beside a path; a command has one of the two")),
    }
}

/// A tunnel goes to its subsystem over HTTP/1.1.
fn upgrade(text: &str, protocol: Protocol, place: &Place<'_>) -> Option<HeaderValue> {
    if protocol == Protocol::Http2 {
        place.problem_with_hint(
            "cannot stand in a subsystem that speaks HTTP/2: a tunnel goes over HTTP/1.1",
            "leave one of the two out; callers may use HTTP/2 all the same",
        );
    }
    place.read(leaf::token(text))
}

fn next_index(shared: &mut Commands<'_>) -> usize {
    let index = shared.next_index;
    shared.next_index += 1;
    index
}

/// 0 is allowed: a command that is counted, but free.
fn units(units: Option<u64>, place: &Place<'_>) -> u64 {
    let units = units.unwrap_or(1);
    if units > QUOTA_UNITS_MAX {
        place.problem(format!("{units} is more than {QUOTA_UNITS_MAX}"));
    }
    units
}

fn body_max(body: Option<&Body>, place: &Place<'_>) -> u64 {
    let text = body.and_then(|body| body.max.as_deref());
    let max = text.and_then(|text| place.read(leaf::size(text))).unwrap_or(Snapshot::BODY_MAX_DEFAULT);
    if max == 0 {
        place.problem("0 would let no body through; write at least 1B");
    }
    max
}

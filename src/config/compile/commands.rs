//! Compiles `subsystems[].commands`: the operations that are counted, limited and granted.

use std::collections::HashSet;
use std::sync::Arc;

use http::HeaderValue;

use crate::config::document::{BodyDocument, CommandDocument, CommandTimeoutsDocument};
use crate::limit::QUOTA_UNITS_MAX;
use crate::model::{CommandKey, Name, NameInterner, TrafficLimits};
use crate::policy::{Command, CommandBackends, CommandTimeouts, PolicySnapshot, UpstreamProtocol};

use super::command_backends::compile_command_backends;
use super::command_context::CommandContext;
use super::connections::check_protocol;
use super::departments::header_value;
use super::doc_path::DocPath;
use super::values::optional_duration;
use super::{command_match, command_shape, limits, scalars, settings};

pub(crate) fn compile_commands(
    commands: &[CommandDocument],
    subsystem: &Name,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> Vec<Arc<Command>> {
    let mut ids = HashSet::new();
    let mut compiled = Vec::with_capacity(commands.len());
    for (position, written) in commands.iter().enumerate() {
        let place = place.item(position);
        let command = compile_command(written, subsystem, context, &place);
        if !ids.insert(command.key.command.clone()) {
            place.key("id").problem(format!("{:?} is the id of two commands of {subsystem}", written.id));
        }
        compiled.push(Arc::new(command));
    }
    compiled
}

/// The implicit command for all requests of a subsystem that match no named command.
pub(crate) fn compile_unnamed(subsystem: &Name, context: &mut CommandContext<'_>, place: &DocPath<'_>) -> Command {
    let shape = context.common.clone().shape(None, None, Vec::new());
    let backends = compile_command_backends(None, shape.as_deref(), context, place);
    Command {
        header: header_value(&format!("{subsystem}/{}", Name::OTHER)),
        key: command_key(subsystem, Name::other(), context.name_interner),
        subsystem: subsystem_number(subsystem, context.name_interner),
        matches: Vec::new(),
        units: 1,
        limits: TrafficLimits::default(),
        address_limits: None,
        sources: None,
        body_max: PolicySnapshot::BODY_MAX_DEFAULT,
        upgrade: None,
        durability: context.durability,
        timeouts: context.timeouts,
        shape,
        backends,
        is_refused: false,
    }
}

/// The key of a command, with the stable number of its name.
pub(crate) fn command_key(subsystem: &Name, command: Name, interner: &NameInterner) -> CommandKey {
    CommandKey { number: interner.intern(&format!("c/{subsystem}/{command}")), subsystem: subsystem.clone(), command }
}

fn compile_command(
    written: &CommandDocument,
    subsystem: &Name,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> Command {
    let id = place.key("id").parse_name(&written.id);
    let matches = match &written.r#match {
        Some(matched) => command_match::compile_matches(matched, &place.key("match")),
        None => {
            place.key("match").missing("is missing; write a path, or grpc: package.Service/Method").unwrap_or_default()
        }
    };
    let shape = command_shape::compile_shape(written, &matches, context, place);
    let is_refused = written.refuse.unwrap_or(false);
    let backends = match written.redirect {
        _ if is_refused => CommandBackends::None,
        Some(_) => CommandBackends::None,
        None => {
            let named = written.backends.as_deref();
            compile_command_backends(named, shape.as_deref(), context, &place.key("backends"))
        }
    };
    check_protocol(&backends, (context, false), &place.key("backends"));
    for mirror in shape.iter().flat_map(|shape| &shape.mirrors) {
        check_protocol(&CommandBackends::One(mirror.backend), (context, false), &place.key("mirror"));
    }
    let upgrade = written.upgrade.as_deref();
    let upgrade = upgrade.and_then(|text| compile_upgrade(text, uses_http2(&backends, context), &place.key("upgrade")));
    let header = header_value(&format!("{subsystem}/{id}"));
    let key = command_key(subsystem, id, context.name_interner);
    let address_limits = limits::compile_address_limits(
        written.address_limits.as_ref(),
        (&key, context.name_interner),
        &place.key("addressLimits"),
    );
    Command {
        header,
        key,
        subsystem: subsystem_number(subsystem, context.name_interner),
        address_limits,
        sources: limits::compile_sources(written.sources.as_ref(), &place.key("sources")),
        shape,
        backends,
        matches,
        units: compile_units(written.units, &place.key("units")),
        limits: limits::compile_limits(written.limits.as_ref(), &place.key("limits")),
        upgrade,
        body_max: compile_body_max(written.body.as_ref(), &place.key("body").key("max")),
        durability: settings::compile_durability(written.durability.as_deref(), context.durability, place),
        timeouts: compile_timeouts(written.timeouts.as_ref(), context.timeouts, &place.key("timeouts")),
        is_refused,
    }
}

/// Compiles `timeouts` of a command. `0s` disables a timeout that the subsystem sets.
fn compile_timeouts(
    written: Option<&CommandTimeoutsDocument>,
    common: CommandTimeouts,
    place: &DocPath<'_>,
) -> CommandTimeouts {
    let Some(written) = written else { return common };
    let own = |text: &Option<String>, common, key| match text {
        Some(text) => optional_duration(Some(text), &place.key(key)),
        None => common,
    };
    CommandTimeouts {
        request: own(&written.request, common.request, "request"),
        attempt: own(&written.attempt, common.attempt, "attempt"),
    }
}

/// Whether one of these backends uses HTTP/2.
fn uses_http2(backends: &CommandBackends, context: &CommandContext<'_>) -> bool {
    backends.numbers().any(|number| {
        let backend = context.backends.with_number(number);
        backend.is_some_and(|backend| backend.protocol == UpstreamProtocol::Http2)
    })
}

/// Compiles `upgrade`. A tunnel to a subsystem uses HTTP/1.1.
fn compile_upgrade(text: &str, uses_http2: bool, place: &DocPath<'_>) -> Option<HeaderValue> {
    if uses_http2 {
        place.problem_with_hint(
            "is not supported in a subsystem with HTTP/2: a tunnel uses HTTP/1.1",
            "remove one of the two; clients may still use HTTP/2",
        );
    }
    place.value_or_problem(scalars::parse_token(text))
}

/// The key of the number of a subsystem.
pub(crate) fn subsystem_key(id: &str) -> String {
    format!("c/{id}/{}", Name::UNKNOWN)
}

/// The number of a subsystem: that of the key under which its unnamed requests are counted.
pub(crate) fn subsystem_number(subsystem: &Name, interner: &NameInterner) -> u32 {
    command_key(subsystem, Name::unknown(), interner).number
}

/// Compiles `units`. 0 is allowed: the command is counted but free.
pub(crate) fn compile_units(units: Option<u64>, place: &DocPath<'_>) -> u64 {
    let units = units.unwrap_or(1);
    if units > QUOTA_UNITS_MAX {
        place.problem(format!("{units} is more than {QUOTA_UNITS_MAX}"));
    }
    units
}

fn compile_body_max(body: Option<&BodyDocument>, place: &DocPath<'_>) -> u64 {
    let text = body.and_then(|body| body.max.as_deref());
    let max = text
        .and_then(|text| place.value_or_problem(scalars::parse_size(text)))
        .unwrap_or(PolicySnapshot::BODY_MAX_DEFAULT);
    if max == 0 {
        place.problem("0 would refuse every body; write at least 1B");
    }
    max
}

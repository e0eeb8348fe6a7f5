//! Compiles `subsystems`: the systems that can be called, and their routes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::document::{ConfigDocument, SubsystemDocument, TimeoutsDocument};
use crate::config::settings::gateway_settings::{GatewaySettings, ListenerSettings};
use crate::model::{Name, NameInterner};
use crate::policy::{Command, CommandTimeouts, DepartmentPolicy, ListenerScope, RouteScope, Subsystem};

use super::backends::{self, CompiledBackends};
use super::command_backends::compile_shares;
use super::command_context::{CommandContext, CommonShape};
use super::doc_path::DocPath;
use super::values::optional_duration;
use super::{command_shape, commands, connections, scalars};

pub(crate) fn compile_subsystems(
    document: &ConfigDocument,
    settings: &GatewaySettings,
    interner: &NameInterner,
    (departments, compiled_backends): (&[Arc<DepartmentPolicy>], &CompiledBackends),
    root: &DocPath<'_>,
) -> Vec<(Arc<Subsystem>, RouteScope)> {
    let place = root.key("subsystems");
    let list = &place;
    let mut ids = HashMap::new();
    let ids_of_all = document.subsystems.iter().map(|subsystem| subsystem.id.as_str()).collect();
    let mut context = CommandContext {
        name_interner: interner,
        durability: settings.durability,
        next_command_index: 0,
        common: CommonShape::default(),
        timeouts: CommandTimeouts::default(),
        backends: compiled_backends,
        own_backend: None,
        default_shares: None,
        lacks_servers: false,
        next_choice_index: 0,
        subsystem_ids: ids_of_all,
    };
    let mut compiled = Vec::with_capacity(document.subsystems.len());
    for (index, written) in document.subsystems.iter().enumerate() {
        let place = list.item(index);
        let mut subsystem = compile_subsystem(written, index, &mut context, &place);
        subsystem.owner = connections::compile_owner(written, subsystem.tls_mode, departments, &place);
        if let Some(first) = ids.insert(subsystem.id.clone(), index) {
            let message = format!("{:?} is the id of two subsystems", written.id);
            place.key("id").problem_beside(message, &list.item(first).key("id"));
        }
        let hosts = compile_hosts(written, &place.key("hosts"));
        let listeners = compile_listener_scopes(written, &settings.listeners, &place.key("listeners"));
        let scope = RouteScope { hosts, listeners };
        connections::check_listeners(subsystem.tls_mode, &scope, &settings.listeners, &place.key("listeners"));
        compiled.push((Arc::new(subsystem), scope));
    }
    compiled
}

fn compile_subsystem(
    written: &SubsystemDocument,
    index: usize,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> Subsystem {
    let id = place.key("id").parse_name(&written.id);
    let prefix = place.key("path").value_or_problem(scalars::parse_prefix(written.path.as_deref().unwrap_or("/")));
    let own_backend = if written.upstreams.is_empty() { None } else { context.backends.find(&written.id) };
    context.own_backend = own_backend.map(|backend| backend.index);
    context.common = command_shape::compile_common(written, place);
    context.timeouts = compile_timeouts(written.timeouts.as_ref(), &place.key("timeouts"));
    let default = written.backends.as_ref();
    context.default_shares = default.map(|written| compile_shares(written, context.backends, &place.key("backends")));
    context.lacks_servers = false;
    let tls_mode = connections::compile_tls_mode(written, place);
    let (commands, other, passes_on) = match written.tls_mode {
        Some(_) => (connections::compile_connection_command(written, &id, context, place), None, false),
        None => compile_request_commands(written, &id, context, place),
    };
    if context.lacks_servers {
        let hint = "or name the backends of each command";
        place.key("upstreams").problem_with_hint("at least one upstream is required", hint);
    } else if own_backend.is_none() {
        backends::refuse_unused_keys(written, place);
    }
    Subsystem {
        index,
        prefix: prefix.unwrap_or_default(),
        keep_path: written.keep_path.unwrap_or(false),
        backend: own_backend.map(Arc::clone),
        timeouts: context.timeouts,
        commands,
        other,
        passes_on,
        is_shadowable: written.is_shadowable,
        tls_mode,
        owner: None,
        unknown: commands::command_key(&id, Name::unknown(), context.name_interner),
        id,
    }
}

/// The named commands, the command for unnamed requests, and whether those are offered to less specific subsystems.
fn compile_request_commands(
    written: &SubsystemDocument,
    id: &Name,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> (Vec<Arc<Command>>, Option<Arc<Command>>, bool) {
    let commands = commands::compile_commands(&written.commands, id, context, &place.key("commands"));
    let (other, passes_on) = compile_other_commands(written, id, context, place);
    if commands.is_empty() && other.is_none() {
        place.key("commands").problem_with_hint("at least one command is required", "or write otherCommands: allow");
    }
    (commands, other, passes_on)
}

fn compile_hosts(written: &SubsystemDocument, place: &DocPath<'_>) -> Vec<String> {
    let Some(hosts) = &written.hosts else { return Vec::new() };
    if hosts.is_empty() {
        place.problem("an empty list matches no host; omit it to match any");
    }
    let mut read: Vec<String> = Vec::with_capacity(hosts.len());
    for (index, text) in hosts.iter().enumerate() {
        let place = place.item(index);
        match place.value_or_problem(scalars::parse_host_pattern(text)) {
            Some(host) if read.contains(&host) => place.problem(format!("{host} is named twice")),
            Some(host) => read.push(host),
            None => {}
        }
    }
    read
}

/// Compiles `listeners`: names, each with the name of a virtual host behind a slash, if one is meant.
fn compile_listener_scopes(
    written: &SubsystemDocument,
    known: &[ListenerSettings],
    place: &DocPath<'_>,
) -> Vec<ListenerScope> {
    let Some(written) = &written.listeners else { return Vec::new() };
    if written.is_empty() {
        place.problem("an empty list names no listener; omit it for all listeners");
    }
    let mut read: Vec<ListenerScope> = Vec::with_capacity(written.len());
    for (index, text) in written.iter().enumerate() {
        let place = place.item(index);
        match place.value_or_problem(find_listener_scope(text, known)) {
            Some(scope) if read.contains(&scope) => place.problem(format!("{text} is named twice")),
            Some(scope) => read.push(scope),
            None => {}
        }
    }
    read
}

fn find_listener_scope(text: &str, known: &[ListenerSettings]) -> Result<ListenerScope, String> {
    let (listener, virtual_host) = text.split_once('/').map_or((text, None), |(name, host)| (name, Some(host)));
    let Some(listener) = known.iter().find(|one| one.name.as_str() == listener) else {
        return Err(format!("there is no listener {listener:?}"));
    };
    let name = listener.name.clone();
    let Some(wanted) = virtual_host else { return Ok(ListenerScope { listener: name, virtual_host: None }) };
    match listener.virtual_hosts.iter().find(|known| known.name.as_str() == wanted) {
        Some(host) => Ok(ListenerScope { listener: name, virtual_host: Some(host.name.clone()) }),
        None => Err(format!("the listener {name} has no virtual host {wanted:?}")),
    }
}

fn compile_timeouts(written: Option<&TimeoutsDocument>, place: &DocPath<'_>) -> CommandTimeouts {
    let text = |read: fn(&TimeoutsDocument) -> Option<&String>| written.and_then(read).map(String::as_str);
    CommandTimeouts {
        request: optional_duration(text(|t| t.request.as_ref()), &place.key("request")),
        attempt: optional_duration(text(|t| t.attempt.as_ref()), &place.key("attempt")),
    }
}

/// The command for unnamed requests, if they are allowed, and whether they are offered to less specific subsystems.
fn compile_other_commands(
    written: &SubsystemDocument,
    id: &Name,
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> (Option<Arc<Command>>, bool) {
    let words = [("refuse", (false, false)), ("allow", (true, false)), ("next", (false, true))];
    let word = written.other_commands.as_deref().unwrap_or("refuse");
    let read = place.key("otherCommands").value_or_problem(scalars::parse_keyword(word, &words));
    let (allowed, passes_on) = read.unwrap_or_default();
    (allowed.then(|| Arc::new(commands::compile_unnamed(id, context, &place.key("backends")))), passes_on)
}

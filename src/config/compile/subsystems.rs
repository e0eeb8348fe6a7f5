//! Compiles `subsystems`: the systems that can be called, and their routes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::document::{ConfigDocument, SubsystemDocument, TimeoutsDocument};
use crate::config::settings::gateway_settings::{GatewaySettings, ListenerSettings};
use crate::model::{Name, NameInterner};
use crate::policy::{Backend, Command, CommandTimeouts, DepartmentPolicy, ListenerScope, RouteScope, Subsystem};

use super::backends::{self, CompiledBackends};
use super::command_backends::compile_shares;
use super::command_context::{CommandContext, CommonShape};
use super::compile_context::{PartList, RenewedParts};
use super::departments::KnownDepartments;
use super::doc_path::DocPath;
use super::values::optional_duration;
use super::{command_shape, commands, connections, scalars};

/// All subsystems of a document.
#[derive(Debug, Default)]
pub(crate) struct CompiledSubsystems {
    /// The subsystems, in the order of the document.
    pub(crate) all: Vec<Arc<Subsystem>>,
    /// The position of each subsystem, by its number; the first one of a duplicate id.
    by_number: HashMap<u32, usize, RandomState>,
    /// The subsystems of the document before that are not among these.
    pub(crate) gone: HashSet<*const Subsystem, RandomState>,
}

/// A compiled subsystem, with what it depends on beside its document.
#[derive(Clone, Debug)]
pub(crate) struct SubsystemPart {
    subsystem: Arc<Subsystem>,
    /// The number of the subsystem.
    number: u32,
    /// The backends that it names, and its own.
    backends: Arc<[Arc<Backend>]>,
    /// Whether a command has limits of client addresses.
    has_address_limits: bool,
}

impl SubsystemPart {
    /// Whether its names still mean the same backends and the same department.
    fn is_current(&self, backends: &CompiledBackends<'_>, departments: &[Arc<DepartmentPolicy>]) -> bool {
        let is_same = |backend: &Arc<Backend>| {
            backends.with_number(backend.number).is_some_and(|current| Arc::ptr_eq(current, backend))
        };
        let owner = self.subsystem.owner.as_ref();
        self.backends.iter().all(is_same)
            && owner.is_none_or(|owner| departments.iter().any(|current| Arc::ptr_eq(current, owner)))
    }

    /// The subsystem, if a command has limits of client addresses.
    pub(crate) fn with_address_limits(&self) -> Option<&Subsystem> {
        self.has_address_limits.then_some(&*self.subsystem)
    }
}

impl CompiledSubsystems {
    fn with_capacity(capacity: usize) -> Self {
        let by_number = HashMap::with_capacity_and_hasher(capacity, RandomState::default());
        Self { all: Vec::with_capacity(capacity), by_number, gone: HashSet::default() }
    }

    /// The subsystem with this number.
    pub(crate) fn with_number(&self, number: u32) -> Option<&Arc<Subsystem>> {
        self.all.get(*self.by_number.get(&number)?)
    }
}

/// Compiles the subsystems. Those of `before` that are current are used again. Also returns the parts.
pub(crate) fn compile_subsystems<'b>(
    document: &ConfigDocument,
    (settings, interner): (&GatewaySettings, &NameInterner),
    (departments, compiled_backends): (KnownDepartments<'_>, &CompiledBackends<'_>),
    before: Option<&'b PartList<SubsystemDocument, SubsystemPart>>,
    root: &DocPath<'_>,
) -> (CompiledSubsystems, RenewedParts<'b, SubsystemDocument, SubsystemPart>) {
    let place = root.key("subsystems");
    let list = &place;
    let mut context = CommandContext {
        name_interner: interner,
        durability: settings.durability,
        common: CommonShape::default(),
        timeouts: CommandTimeouts::default(),
        backends: compiled_backends,
        own_backend: None,
        default_shares: None,
        lacks_servers: false,
        subsystems: &document.subsystems,
    };
    // Then no part is looked at.
    let all_names_mean_the_same = departments.are_as_before && compiled_backends.are_as_before;
    let renewed = PartList::renewed(
        &document.subsystems,
        before,
        |part: &SubsystemPart| all_names_mean_the_same || part.is_current(compiled_backends, departments.all),
        |index, written| Some(compile_part(written, (settings, departments.all), &mut context, &list.item(index))),
    );
    let mut compiled = CompiledSubsystems::with_capacity(document.subsystems.len());
    for (index, part) in renewed.list.parts().enumerate() {
        match compiled.by_number.entry(part.number) {
            Entry::Vacant(place) => drop(place.insert(index)),
            Entry::Occupied(first) => {
                let message = format!("{:?} is the id of two subsystems", document.subsystems[index].id);
                let place = list.item(index).key("id");
                place.problem_beside(message, &list.item(*first.get()).key("id"));
            }
        }
        compiled.all.push(Arc::clone(&part.subsystem));
    }
    compiled.gone = renewed.gone.iter().map(|part| Arc::as_ptr(&part.subsystem)).collect();
    (compiled, renewed)
}

fn compile_part(
    written: &SubsystemDocument,
    (settings, departments): (&GatewaySettings, &[Arc<DepartmentPolicy>]),
    context: &mut CommandContext<'_>,
    place: &DocPath<'_>,
) -> SubsystemPart {
    context.backends.take_found();
    let mut subsystem = compile_subsystem(written, context, place);
    let backends = context.backends.take_found().into();
    subsystem.owner = connections::compile_owner(written, subsystem.tls_mode, departments, place);
    let hosts = compile_hosts(written, &place.key("hosts"));
    let listeners = compile_listener_scopes(written, &settings.listeners, &place.key("listeners"));
    connections::check_listeners(subsystem.tls_mode, &listeners, &settings.listeners, &place.key("listeners"));
    subsystem.scope = RouteScope::new(hosts, listeners);
    let has_address_limits = subsystem.commands.iter().any(|command| command.address_limits.is_some());
    SubsystemPart { number: subsystem.number(), subsystem: Arc::new(subsystem), backends, has_address_limits }
}

fn compile_subsystem(written: &SubsystemDocument, context: &mut CommandContext<'_>, place: &DocPath<'_>) -> Subsystem {
    let id = place.key("id").parse_name(&written.id);
    if id.is_gateway() {
        let hint = "choose another";
        place.key("id").problem_with_hint("\"tallygate\" is the subsystem of the gateway's own usage page", hint);
    }
    let prefix = place.key("path").value_or_problem(scalars::parse_prefix(written.path.as_deref().unwrap_or("/")));
    let own_backend = if written.upstreams.is_empty() { None } else { context.backends.find(&written.id) };
    context.own_backend = own_backend.map(|backend| backend.number);
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
        scope: RouteScope::default(),
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

//! `subsystems`: what may be called, and how it is reached.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::document::{Document, Subsystem as SubsystemDocument, Timeouts as TimeoutsDocument};
use crate::config::{Settings, leaf};
use crate::model::{Name, Numbers};
use crate::policy::{Command, Durability, Protocol, Subsystem, Timeouts};

use super::commands;
use super::place::Place;
use super::servers;
use super::settings::wait;
use super::shaping::{self, Common};

const PROTOCOLS: [(&str, Protocol); 2] = [("http1", Protocol::Http1), ("http2", Protocol::Http2)];

/// What all commands of a document share.
pub(super) struct Commands<'a> {
    /// Gives names their numbers.
    pub(super) numbers: &'a Numbers,
    /// The durability of commands that name none.
    pub(super) durability: Durability,
    /// How many workers there are.
    pub(super) workers: usize,
    /// The next [`Command::index`].
    pub(super) next_index: usize,
    /// What the subsystem at hand says for all its commands.
    pub(super) common: Common,
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// Its index.
    pub(super) index: usize,
    /// The ids of all subsystems, as they are written.
    pub(super) ids: Vec<&'a str>,
}

pub(super) fn compile(
    document: &Document,
    settings: &Settings,
    numbers: &Numbers,
    root: &Place<'_>,
) -> Vec<(Arc<Subsystem>, Vec<String>)> {
    let place = root.key("subsystems");
    let list = &place;
    let mut ids = HashMap::new();
    let ids_of_all = document.subsystems.iter().map(|subsystem| subsystem.id.as_str()).collect();
    let mut shared = Commands {
        numbers,
        durability: settings.durability,
        workers: settings.workers,
        next_index: 0,
        common: Common::default(),
        protocol: Protocol::default(),
        index: 0,
        ids: ids_of_all,
    };
    let mut compiled = Vec::with_capacity(document.subsystems.len());
    for (index, written) in document.subsystems.iter().enumerate() {
        let place = list.item(index);
        let subsystem = one(written, index, &mut shared, &place);
        if let Some(first) = ids.insert(subsystem.id.clone(), index) {
            let message = format!("{:?} is the id of two subsystems", written.id);
            place.key("id").problem_beside(message, &list.item(first).key("id"));
        }
        compiled.push((Arc::new(subsystem), hosts(written, &place.key("hosts"))));
    }
    compiled
}

fn one(written: &SubsystemDocument, index: usize, shared: &mut Commands<'_>, place: &Place<'_>) -> Subsystem {
    let id = place.key("id").name(&written.id);
    let prefix = place.key("path").read(leaf::prefix(written.path.as_deref().unwrap_or("/")));
    shared.index = index;
    shared.common = shaping::common(written, place);
    let protocol = written.protocol.as_deref().unwrap_or("http1");
    shared.protocol = place.key("protocol").read(leaf::word(protocol, &PROTOCOLS)).unwrap_or_default();
    let commands = commands::compile(&written.commands, &id, shared, &place.key("commands"));
    let other = other(written, &id, shared, place);
    if commands.is_empty() && other.is_none() {
        place
            .key("commands")
            .problem_with_hint("without a command nothing can be called", "or write otherCommands: allow");
    }
    Subsystem {
        index,
        protocol: shared.protocol,
        prefix: prefix.unwrap_or_default(),
        keep_path: written.keep_path.unwrap_or(false),
        upstreams: servers::upstreams(written, shared.workers, &place.key("upstreams")),
        balance: servers::balance(written.balance.as_ref(), &place.key("balance")),
        queue: servers::queue(written.queue.as_ref(), &place.key("queue")),
        retries: servers::retries(written.retries.as_ref(), &place.key("retries")),
        slow_start: servers::slow_start(written.slow_start.as_deref(), &place.key("slowStart")),
        health_check: servers::health_check(written.health_check.as_ref(), &place.key("healthCheck")),
        timeouts: timeouts(written.timeouts.as_ref(), &place.key("timeouts")),
        commands,
        other,
        unknown: commands::key(&id, Name::unknown(), shared.numbers),
        id,
    }
}

fn hosts(written: &SubsystemDocument, place: &Place<'_>) -> Vec<String> {
    let Some(hosts) = &written.hosts else { return Vec::new() };
    if hosts.is_empty() {
        place.problem("an empty list takes no host; leave it out to take any");
    }
    let mut read: Vec<String> = Vec::with_capacity(hosts.len());
    for (index, text) in hosts.iter().enumerate() {
        let place = place.item(index);
        match place.read(leaf::host(text)) {
            Some(host) if read.contains(&host) => place.problem(format!("{host} is named twice")),
            Some(host) => read.push(host),
            None => {}
        }
    }
    read
}

fn timeouts(timeouts: Option<&TimeoutsDocument>, place: &Place<'_>) -> Timeouts {
    let text = |read: fn(&TimeoutsDocument) -> Option<&String>| timeouts.and_then(read).map(String::as_str);
    Timeouts {
        connect: wait(text(|t| t.connect.as_ref()), Duration::from_secs(2), &place.key("connect")),
        response: wait(text(|t| t.response.as_ref()), Duration::from_secs(15), &place.key("response")),
        idle: wait(text(|t| t.idle.as_ref()), Duration::from_secs(300), &place.key("idle")),
        deadline: wait(text(|t| t.deadline.as_ref()), Duration::from_secs(3600), &place.key("deadline")),
    }
}

fn other(written: &SubsystemDocument, id: &Name, shared: &mut Commands<'_>, place: &Place<'_>) -> Option<Arc<Command>> {
    let words = [("refuse", false), ("allow", true)];
    let word = written.other_commands.as_deref().unwrap_or("refuse");
    let allowed = place.key("otherCommands").read(leaf::word(word, &words))?;
    allowed.then(|| Arc::new(commands::other(id, shared)))
}

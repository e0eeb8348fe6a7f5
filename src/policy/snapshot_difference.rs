//! The difference between two configurations: departments, subsystems, commands and grants by their ids.
//!
//! Guarantees:
//! - Pure.
//! - Costs a comparison of pointers for what both share, and a few lookups for each other department, caller, command
//!   and grant.
//! - Names are in the order of the documents.
//!
//! Leaves to others: certificates, and the settings that are read only at the start.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::StatusCode;

use crate::model::Name;

use super::backend::Backend;
use super::command_backends::{BackendShare, CommandBackends, ShareEdits, ShareTarget};
use super::command_shape::{CommandShape, MirrorTarget};
use super::request_conditions::CommandMatch;
use super::shared_list::ListChanges;
use super::snapshot::PolicySnapshot;
use super::subsystem::{Command, DepartmentPolicy, Subsystem};

/// The difference between two snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotDifference {
    /// Departments, by id.
    pub departments: ItemChanges,
    /// Subsystems, by id.
    pub subsystems: ItemChanges,
    /// Backends that are not those of a subsystem, by id.
    pub backends: ItemChanges,
    /// Commands of subsystems that both snapshots have, as `subsystem/command`.
    pub commands: ItemChanges,
    /// The commands that departments may run, as `department subsystem/command`. Includes those of departments,
    /// subsystems and commands that are added or removed.
    pub grants: ItemChanges,
    /// Whether the rate limit of the whole gateway differs.
    pub total_limit: bool,
}

/// The difference between two lists of items with ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemChanges {
    /// The new ids.
    pub added: Vec<String>,
    /// The removed ids.
    pub removed: Vec<RemovedItem>,
    /// The ids in both lists, with the keys that differ: `police (limits, quotas)`.
    pub changed: Vec<String>,
    /// The old and the new id of each renamed item: the item is the same under another id.
    pub renamed: Vec<(String, String)>,
}

/// A share of a command's backends in comparable form; see [`shares_of`].
type ComparedShare<'a> = ((Option<&'a Name>, Option<StatusCode>), u32, Option<Box<ShareEdits>>);

/// A removed id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedItem {
    /// The removed id.
    pub id: String,
    /// The id, present in both snapshots, that now has all callers of the removed id.
    pub successor: Option<String>,
}

impl ItemChanges {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.renamed.is_empty()
    }

    /// The ids that are gone, each with its successor, if there is one.
    pub fn removed_or_renamed(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let removed = self.removed.iter().map(|item| (item.id.as_str(), item.successor.as_deref()));
        removed.chain(self.renamed.iter().map(|(old, new)| (old.as_str(), Some(new.as_str()))))
    }
}

impl SnapshotDifference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.departments, &self.subsystems, &self.backends, &self.commands, &self.grants];
        lists.into_iter().all(ItemChanges::is_empty) && !self.total_limit
    }
}

impl PolicySnapshot {
    /// The changes from this snapshot to `new`.
    pub fn difference(&self, new: &Self) -> SnapshotDifference {
        let changes = ListChanges::between(&self.subsystems, &new.subsystems);
        let subsystems = subsystems(&changes);
        SnapshotDifference {
            departments: departments(self, new),
            commands: commands((self, new), &changes, &subsystems),
            subsystems,
            backends: backends(self, new),
            grants: grants(self, new),
            total_limit: self.total_rate != new.total_rate,
        }
    }

    fn departments_by_number(&self) -> HashMap<u32, &Arc<DepartmentPolicy>> {
        self.departments.iter().map(|policy| (policy.department.number, policy)).collect()
    }
}

fn departments(old: &PolicySnapshot, new: &PolicySnapshot) -> ItemChanges {
    let has_same_claims = Arc::ptr_eq(&old.callers, &new.callers) && Arc::ptr_eq(&old.anonymous, &new.anonymous);
    if has_same_claims && Arc::ptr_eq(&old.departments, &new.departments) {
        return ItemChanges::default();
    }
    let (before, after) = (old.departments_by_number(), new.departments_by_number());
    let (moved, heirs) = (moved_callers(old, new), find_successors(old, new, &after));
    let mut changes = ItemChanges::default();
    for policy in old.departments.iter() {
        let id = policy.department.id.to_string();
        let Some(same) = after.get(&policy.department.number) else {
            changes.record_removal(id, heirs.get(&policy.department.number).copied().flatten(), &before);
            continue;
        };
        changes.record_change(&id, &department_keys(policy, same, &moved));
    }
    let renamed: HashSet<&str> = changes.renamed.iter().map(|(_, new)| new.as_str()).collect();
    let added = new.departments.iter().filter(|policy| !before.contains_key(&policy.department.number));
    let added = added.filter(|policy| !renamed.contains(policy.department.id.as_str()));
    changes.added = added.map(|policy| policy.department.id.to_string()).collect();
    changes
}

impl ItemChanges {
    /// Records the keys in which an item differs, if there are any.
    fn record_change(&mut self, id: &str, keys: &[&str]) {
        if !keys.is_empty() {
            self.changed.push(format!("{id} ({})", keys.join(", ")));
        }
    }

    /// Records a removed department: as renamed, if a new department has all its callers.
    fn record_removal(
        &mut self,
        id: String,
        heir: Option<&DepartmentPolicy>,
        before: &HashMap<u32, &Arc<DepartmentPolicy>>,
    ) {
        let successor = heir.map(|heir| heir.department.id.to_string());
        match successor {
            Some(new) if heir.is_some_and(|heir| !before.contains_key(&heir.department.number)) => {
                self.renamed.push((id, new));
            }
            successor => self.removed.push(RemovedItem { id, successor }),
        }
    }
}

/// The departments, by number, that have gained or lost callers.
fn moved_callers(old: &PolicySnapshot, new: &PolicySnapshot) -> HashSet<u32> {
    let mut moved = HashSet::new();
    for (one, other) in [(old, new), (new, old)] {
        for (claim, policy) in one.claims() {
            let number = policy.department.number;
            if other.claimant(claim).is_none_or(|policy| policy.department.number != number) {
                moved.insert(number);
            }
        }
    }
    moved
}

/// For each removed department, by number: the department that now has all its callers, if there is one.
fn find_successors<'a>(
    old: &PolicySnapshot,
    new: &'a PolicySnapshot,
    after: &HashMap<u32, &Arc<DepartmentPolicy>>,
) -> HashMap<u32, Option<&'a DepartmentPolicy>> {
    let mut heirs: HashMap<u32, Option<&DepartmentPolicy>> = HashMap::new();
    for (claim, policy) in old.claims().filter(|(_, policy)| !after.contains_key(&policy.department.number)) {
        let heir = new.claimant(claim).map(|policy| &**policy);
        let all = heirs.entry(policy.department.number).or_insert(heir);
        if all.map(|one| one.department.number) != heir.map(|one| one.department.number) {
            *all = None;
        }
    }
    heirs
}

fn department_keys(old: &DepartmentPolicy, new: &DepartmentPolicy, moved: &HashSet<u32>) -> Vec<&'static str> {
    differing_keys([
        ("name", old.department.name != new.department.name),
        ("callers", moved.contains(&old.department.number)),
        ("limits", old.limits != new.limits),
        ("quotas", old.quotas != new.quotas),
        ("disabled", old.disabled != new.disabled),
        ("realms", old.realms != new.realms),
    ])
}

/// The keys that differ.
fn differing_keys<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// The subsystems by their ids.
fn by_id<'a>(subsystems: &[&'a Arc<Subsystem>]) -> HashMap<&'a Name, &'a Arc<Subsystem>> {
    subsystems.iter().map(|subsystem| (&subsystem.id, *subsystem)).collect()
}

fn subsystems(list: &ListChanges<'_, Subsystem>) -> ItemChanges {
    let (before, after) = (by_id(&list.removed), by_id(&list.added));
    let is_new = |subsystem: &&Arc<Subsystem>| !before.contains_key(&subsystem.id);
    let mut free: HashMap<_, Vec<&Arc<Subsystem>>> = HashMap::new();
    for subsystem in list.added.iter().copied().filter(is_new) {
        free.entry(call_path(subsystem)).or_default().push(subsystem);
    }
    let mut changes = ItemChanges::default();
    for subsystem in &list.removed {
        let id = subsystem.id.to_string();
        match after.get(&subsystem.id) {
            Some(same) => changes.record_change(&id, &subsystem_keys(subsystem, same)),
            None => match free.get_mut(&call_path(subsystem)).and_then(Vec::pop) {
                Some(heir) => changes.renamed.push((id, heir.id.to_string())),
                None => changes.removed.push(RemovedItem { id, successor: None }),
            },
        }
    }
    let added: HashSet<&Name> = free.values().flatten().map(|subsystem| &subsystem.id).collect();
    let added = list.added.iter().filter(|subsystem| added.contains(&subsystem.id));
    changes.added = added.map(|subsystem| subsystem.id.to_string()).collect();
    changes
}

/// The calling path of a subsystem: its hosts and its prefix. Only subsystems with `otherCommands: next` share one.
fn call_path(subsystem: &Subsystem) -> (&[String], &str) {
    (&subsystem.scope.hosts, &subsystem.prefix)
}

fn owner_of(subsystem: &Subsystem) -> Option<u32> {
    subsystem.owner.as_ref().map(|owner| owner.department.number)
}

fn subsystem_keys(one: &Subsystem, other: &Subsystem) -> Vec<&'static str> {
    let mut keys = differing_keys([
        ("hosts", one.scope.hosts != other.scope.hosts),
        ("listeners", one.scope.listeners != other.scope.listeners),
        ("path", one.prefix != other.prefix),
        ("keepPath", one.keep_path != other.keep_path),
        ("tlsMode", one.tls_mode != other.tls_mode),
        ("department", owner_of(one) != owner_of(other)),
        ("otherCommands", (one.other.is_some(), one.passes_on) != (other.other.is_some(), other.passes_on)),
    ]);
    keys.extend(match (&one.backend, &other.backend) {
        (Some(one), Some(other)) => backend_keys(one, other),
        (None, None) => vec![],
        _ => vec!["upstreams"],
    });
    if one.timeouts != other.timeouts && !keys.contains(&"timeouts") {
        keys.push("timeouts");
    }
    keys
}

/// The backends that are not those of a subsystem.
fn backends(old: &PolicySnapshot, new: &PolicySnapshot) -> ItemChanges {
    let list = ListChanges::between(&old.backends, &new.backends);
    let (before, after) = (named_backends(&list.removed), named_backends(&list.added));
    let mut changes = ItemChanges::default();
    for backend in list.removed.iter().filter(|backend| !backend.is_own) {
        match after.get(&backend.id) {
            Some(same) => changes.record_change(backend.id.as_str(), &backend_keys(backend, same)),
            None => changes.removed.push(RemovedItem { id: backend.id.to_string(), successor: None }),
        }
    }
    let added = list.added.iter().filter(|backend| !backend.is_own && !before.contains_key(&backend.id));
    changes.added = added.map(|backend| backend.id.to_string()).collect();
    changes
}

fn named_backends<'a>(backends: &[&'a Arc<Backend>]) -> HashMap<&'a Name, &'a Arc<Backend>> {
    let named = backends.iter().filter(|backend| !backend.is_own);
    named.map(|backend| (&backend.id, *backend)).collect()
}

fn backend_keys(one: &Backend, other: &Backend) -> Vec<&'static str> {
    differing_keys([
        ("upstreams", lists_other_upstreams(one, other)),
        ("protocol", one.protocol != other.protocol),
        ("balance", one.balance != other.balance),
        ("queue", one.queue != other.queue),
        ("slowStart", one.slow_start != other.slow_start),
        ("retries", one.retries != other.retries),
        ("healthCheck", one.health_check != other.health_check),
        ("timeouts", one.timeouts != other.timeouts),
    ])
}

/// Endpoints that are discovered are no part of the configuration.
fn lists_other_upstreams(one: &Backend, other: &Backend) -> bool {
    one.discovery != other.discovery || (one.discovery.is_none() && one.upstreams != other.upstreams)
}

/// The commands of the subsystems that stay or are renamed.
fn commands(
    (old, new): (&PolicySnapshot, &PolicySnapshot),
    list: &ListChanges<'_, Subsystem>,
    subsystems: &ItemChanges,
) -> ItemChanges {
    let renamed: HashMap<&str, &str> =
        subsystems.renamed.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
    let after: HashMap<&str, &Arc<Subsystem>> =
        list.added.iter().map(|subsystem| (subsystem.id.as_str(), *subsystem)).collect();
    let mut changes = ItemChanges::default();
    for subsystem in &list.removed {
        let id = subsystem.id.as_str();
        if let Some(same) = after.get(renamed.get(id).copied().unwrap_or(id)) {
            commands_of((old, subsystem), (new, same), &mut changes);
        }
    }
    changes
}

fn commands_of(
    (old, one): (&PolicySnapshot, &Subsystem),
    (new, other): (&PolicySnapshot, &Subsystem),
    changes: &mut ItemChanges,
) {
    let id = |subsystem: &Subsystem, command: &Command| format!("{}/{}", subsystem.id, command.key.command);
    let before: HashSet<&Name> = one.commands.iter().map(|command| &command.key.command).collect();
    let after: HashMap<&Name, &Arc<Command>> =
        other.commands.iter().map(|command| (&command.key.command, command)).collect();
    let is_new = |command: &&Arc<Command>| !before.contains(&command.key.command);
    let mut free: HashMap<_, _> =
        other.commands.iter().filter(is_new).map(|command| (matched_requests(command), command)).collect();
    for command in &one.commands {
        match after.get(&command.key.command) {
            Some(same) => changes.record_change(&id(other, same), &command_keys((old, command), (new, same))),
            None => match free.remove(&matched_requests(command)) {
                Some(heir) => changes.renamed.push((id(one, command), id(other, heir))),
                None => changes.removed.push(RemovedItem { id: id(one, command), successor: None }),
            },
        }
    }
    let left: HashSet<&Name> = free.values().map(|command| &command.key.command).collect();
    let added = other.commands.iter().filter(|command| left.contains(&command.key.command));
    changes.added.extend(added.map(|command| id(other, command)));
}

/// The requests that match a command, below the prefix of its subsystem.
fn matched_requests(command: &Command) -> Vec<String> {
    command.matches.iter().map(CommandMatch::canonical_text).collect()
}

fn command_keys(
    (old, one): (&PolicySnapshot, &Command),
    (new, other): (&PolicySnapshot, &Command),
) -> Vec<&'static str> {
    let mut keys = differing_keys([
        ("match", one.matches != other.matches),
        ("units", one.units != other.units),
        ("limits", one.limits != other.limits || one.address_limits != other.address_limits),
        ("sources", one.sources != other.sources),
        ("body", one.body_max != other.body_max),
        ("upgrade", one.upgrade != other.upgrade),
        ("durability", one.durability != other.durability),
        ("timeouts", one.timeouts != other.timeouts),
        ("refuse", one.is_refused != other.is_refused),
        ("backends", shares_of(old, one) != shares_of(new, other)),
    ]);
    keys.extend(shape_keys((old, one.shape.as_deref()), (new, other.shape.as_deref())));
    keys
}

/// The shares of a command's backends: the id of each backend, `None` for that of the command's own subsystem, or its
/// status; the weight and the edits.
fn shares_of<'a>(snapshot: &'a PolicySnapshot, command: &Command) -> Vec<ComparedShare<'a>> {
    let own = &command.key.subsystem;
    let place = |target| match target {
        ShareTarget::Backend(number) => {
            (snapshot.backend(number).map(|backend| &backend.id).filter(|id| *id != own), None)
        }
        ShareTarget::Status(status) => (None, Some(status)),
    };
    match &command.backends {
        CommandBackends::None => Vec::new(),
        CommandBackends::One(number) => vec![(place(ShareTarget::Backend(*number)), 1, None)],
        CommandBackends::Weighted(weighted) => {
            let share = |share: &BackendShare| (place(share.target), share.weight, share.edits.clone());
            weighted.shares.iter().map(share).collect()
        }
    }
}

fn shape_keys(
    (old, one): (&PolicySnapshot, Option<&CommandShape>),
    (new, other): (&PolicySnapshot, Option<&CommandShape>),
) -> Vec<&'static str> {
    let (Some(one), Some(other)) = (one, other) else {
        return if one.is_some() == other.is_some() {
            vec![]
        } else {
            vec!["headers, rewrite, cors, mirror, compress or bandwidthLimit"]
        };
    };
    let mirrors = |snapshot: &PolicySnapshot, shape: &CommandShape| -> Vec<_> {
        let id = |target: &MirrorTarget| snapshot.backend(target.backend).map(|mirror| mirror.id.clone());
        shape.mirrors.iter().map(|target| (id(target), target.fraction)).collect()
    };
    differing_keys([
        ("headers", one.request != other.request || one.response != other.response),
        ("rewrite", one.rewrite != other.rewrite),
        ("redirect", one.redirect != other.redirect),
        ("cors", one.cors != other.cors),
        ("mirror", mirrors(old, one) != mirrors(new, other)),
        ("compress", one.compress != other.compress),
        ("bandwidthLimit", one.bandwidth != other.bandwidth),
    ])
}

fn grants(old: &PolicySnapshot, new: &PolicySnapshot) -> ItemChanges {
    let (before, after) = (old.grants.pairs_beside(&new.grants), new.grants.pairs_beside(&old.grants));
    let added = named_pairs(new, after.difference(&before).copied().collect()).into_iter().collect();
    let removed = named_pairs(old, before.difference(&after).copied().collect());
    let removed = removed.into_iter().map(|id| RemovedItem { id, successor: None }).collect();
    let has_other_limits =
        |(department, command)| old.granted_limits(department, command) != new.granted_limits(department, command);
    let is_changed = |pair: &&(u32, u32)| before.contains(pair) && has_other_limits(**pair);
    let mut changes = ItemChanges { added, removed, ..ItemChanges::default() };
    for id in named_pairs(new, after.iter().filter(is_changed).copied().collect()) {
        changes.record_change(&id, &["limits"]);
    }
    changes
}

/// The allowed pairs, by names.
fn named_pairs(snapshot: &PolicySnapshot, mut pairs: Vec<(u32, u32)>) -> Vec<String> {
    if pairs.is_empty() {
        return Vec::new();
    }
    pairs.sort_unstable(); // numbers follow the order of the documents
    let departments = snapshot.departments_by_number();
    let wanted: HashSet<u32> = pairs.iter().map(|(_, command)| *command).collect();
    let commands = snapshot.subsystems.iter().flat_map(|subsystem| subsystem.commands.iter().chain(&subsystem.other));
    let commands = commands.filter(|command| wanted.contains(&command.key.number));
    let commands: HashMap<u32, &Arc<Command>> = commands.map(|command| (command.key.number, command)).collect();
    let named = |(department, command): (u32, u32)| {
        let (department, key) = (departments.get(&department)?, &commands.get(&command)?.key);
        Some(format!("{} {}/{}", department.department.id, key.subsystem, key.command))
    };
    pairs.into_iter().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_fixtures::{compile_with, config_text};
    use crate::model::NameInterner;

    /// A document with departments, subsystems with their commands, and grants.
    fn document(departments: &str, subsystems: &str, grants: &str) -> String {
        config_text(&format!("departments: [{departments}]\nsubsystems: [{subsystems}]\ngrants: [{grants}]\n"))
    }

    fn department(id: &str, callers: &str, more: &str) -> String {
        let callers: Vec<_> = callers.split(' ').map(|dns| format!("{{ dns: {dns}.example }}")).collect();
        format!("{{ id: {id}, callers: [{}], {more} }}", callers.join(", "))
    }

    fn subsystem(id: &str, path: &str, commands: &str) -> String {
        let commands: Vec<_> =
            commands.split(' ').map(|id| format!("{{ id: {id}, match: {{ path: /{id} }} }}")).collect();
        let commands = commands.join(", ");
        format!("{{ id: {id}, path: {path}, upstreams: [{{ url: \"http://127.0.0.1:1\" }}], commands: [{commands}] }}")
    }

    fn grant(department: &str, subsystem: &str, commands: &str) -> String {
        format!("{{ department: {department}, subsystem: {subsystem}, commands: [\"{commands}\"] }}")
    }

    fn difference(old: &str, new: &str) -> SnapshotDifference {
        let numbers = NameInterner::default();
        let read = |text: &str| compile_with(text, &numbers).snapshot;
        read(old).difference(&read(new))
    }

    fn removed(changes: &ItemChanges) -> Vec<(&str, Option<&str>)> {
        changes.removed.iter().map(|item| (item.id.as_str(), item.successor.as_deref())).collect()
    }

    #[test]
    fn equal_configurations_have_no_difference() {
        let text = document(&department("a", "a b", "name: A"), &subsystem("s", "/s", "c"), &grant("a", "s", "*"));
        assert!(difference(&text, &text).is_empty());
    }

    #[test]
    fn departments_are_compared_by_id_and_by_identities() {
        let (s, lines) = (subsystem("s", "/s", "c"), |all: &[String]| all.join(", "));
        let old = [
            department("police", "p1 p2", ""),
            department("fire", "f", "limits: { rate: 1/s }"),
            department("old", "o", ""),
            department("parks", "k", ""),
            department("split", "x y", ""),
        ];
        let new = [
            department("fire", "f", "name: Fire, limits: { rate: 2/s }, quota: { per: month, units: 1 }"),
            department("traffic-police", "p2 p1", ""),
            department("parks", "k o", "disabled: true"),
            department("x", "x", ""),
            department("y", "y", ""),
        ];
        let found = difference(&document(&lines(&old), &s, ""), &document(&lines(&new), &s, "")).departments;
        assert_eq!(found.renamed, [("police".to_owned(), "traffic-police".to_owned())]);
        assert_eq!(removed(&found), [("old", Some("parks")), ("split", None)]);
        assert_eq!(found.changed, ["fire (name, limits, quotas)", "parks (callers, disabled)"]);
        assert_eq!(found.added, ["x", "y"]);
        let vanished: Vec<_> = found.removed_or_renamed().collect();
        assert_eq!(vanished, [("old", Some("parks")), ("split", None), ("police", Some("traffic-police"))]);
    }

    #[test]
    fn subsystems_and_commands_are_compared_by_id_and_by_route() {
        let d = department("a", "a", "");
        let lines = |all: &[String]| all.join(", ");
        let old = [subsystem("s", "/s", "c e g"), subsystem("t", "/t", "c"), subsystem("u", "/u", "c")];
        let slower = subsystem("s", "/s", "c h").replacen("id: s,", "id: s, timeouts: { connect: 9s },", 1);
        let slower = slower.replace("{ id: c, ", "{ id: c, units: 7, headers: { request: { remove: [X-A] } }, ");
        let same_place = subsystem("v", "/t", "c");
        let new = [slower.replace("id: h, match: { path: /h }", "id: h, match: { path: /e }"), same_place];
        let found = difference(&document(&d, &lines(&old), ""), &document(&d, &lines(&new), ""));
        assert_eq!(found.subsystems.changed, ["s (timeouts)"]);
        assert_eq!(found.subsystems.renamed, [("t".to_owned(), "v".to_owned())]);
        assert_eq!(removed(&found.subsystems), [("u", None)]);
        assert_eq!(found.commands.changed, ["s/c (units, headers, rewrite, cors, mirror, compress or bandwidthLimit)"]);
        assert_eq!(found.commands.renamed, [("s/e".to_owned(), "s/h".to_owned())]);
        assert_eq!(removed(&found.commands), [("s/g", None)]);
        assert_eq!((found.subsystems.added, found.commands.added), (vec![], vec![]));
    }

    #[test]
    fn changed_rewrites_redirects_and_mirrors_are_named() {
        let d = department("a", "a", "");
        let text = |setting: &str, others: &[&str]| {
            let shaped = subsystem("s", "/s", "c").replace("{ id: c, ", &format!("{{ id: c, {setting}, "));
            let others = others.iter().map(|id| subsystem(id, &format!("/{id}"), "c"));
            let all: Vec<_> = [shaped].into_iter().chain(others).collect();
            document(&d, &all.join(", "), "")
        };
        for (old, new, key) in [
            ("rewrite: { host: a }", "rewrite: { host: b }", Some("rewrite")),
            ("rewrite: { host: a, prefix: /a }", "rewrite: { host: a }", Some("rewrite")),
            ("redirect: { location: /a }", "redirect: { path: /a }", Some("redirect")),
            ("redirect: { host: a }", "redirect: { host: a, port: 80 }", Some("redirect")),
            ("mirror: { subsystem: t }", "mirror: { subsystem: u }", Some("mirror")),
            ("mirror: { subsystem: t }", "mirror: [{ subsystem: t }, { subsystem: u }]", Some("mirror")),
            ("mirror: { subsystem: t }", "mirror: { subsystem: t, fraction: { numerator: 1 } }", Some("mirror")),
            ("mirror: { subsystem: t }", "mirror: [{ subsystem: t, percent: 100 }]", None),
        ] {
            // The order of the other subsystems changes, and with it their indices.
            let found = difference(&text(old, &["t", "u"]), &text(new, &["u", "t"]));
            let expected: Vec<_> = key.map(|key| format!("s/c ({key})")).into_iter().collect();
            assert_eq!(found.commands.changed, expected, "{old} to {new}");
        }
    }

    #[test]
    fn timeouts_of_a_command_are_its_own_or_those_of_its_subsystem() {
        let (d, s) = (department("a", "a", ""), subsystem("s", "/s", "c e"));
        let common = s.replacen("id: s,", "id: s, timeouts: { request: 9s },", 1);
        let own = s.replacen("{ id: c,", "{ id: c, timeouts: { attempt: 1s },", 1);
        let compared = |new: &str| difference(&document(&d, &s, ""), &document(&d, new, ""));
        let found = compared(&common);
        assert_eq!(found.subsystems.changed, ["s (timeouts)"]);
        assert_eq!(found.commands.changed, ["s/c (timeouts)", "s/e (timeouts)"]);
        assert_eq!(compared(&own).commands.changed, ["s/c (timeouts)"]);
        assert!(compared(&s.replacen("id: s,", "id: s, timeouts: { request: 0s },", 1)).is_empty());
    }

    #[test]
    fn backends_are_compared_by_id_and_shares_by_what_they_mean() {
        let d = department("a", "a", "");
        let text = |setting: &str, backends: &[&str]| {
            let shaped = subsystem("s", "/s", "c").replace("{ id: c, ", &format!("{{ id: c, {setting} "));
            let backends: Vec<_> = backends.iter().map(|keys| format!("{{ {keys} }}")).collect();
            format!("{}\nbackends: [{}]\n", document(&d, &shaped, ""), backends.join(", "))
        };
        let server = "upstreams: [{ url: \"http://127.0.0.1:1\" }]";
        let (x, y) = (format!("id: x, {server}"), format!("id: y, {server}"));
        let slow = format!("{x}, slowStart: 1s");
        let both = "backends: [{ backend: x, weight: 9 }, { backend: y }],";
        let found = difference(&text("", &[&x]), &text("", &[&y, &slow]));
        assert_eq!(
            (&found.backends.added, &found.backends.changed),
            (&vec!["y".into()], &vec!["x (slowStart)".into()])
        );
        assert!(found.subsystems.is_empty() && found.commands.is_empty());
        let found = difference(&text("", &[&x, &y]), &text("", &["id: x, upstreams: []"]));
        assert_eq!(removed(&found.backends), [("y", None)]);
        assert_eq!(found.backends.changed, ["x (upstreams)"]);
        for (old, new, differs) in [
            ("", "backends: [{ backend: s }],", false),
            ("", "backends: [{ backend: x }],", true),
            (both, both, false),
            (both, "backends: [{ backend: x, weight: 8 }, { backend: y }],", true),
            (both, "backends: [{ backend: x, weight: 9 }, { status: 500 }],", true),
        ] {
            // The order of the backends changes, and with it their indices.
            let found = difference(&text(old, &[&x, &y]), &text(new, &[&y, &x]));
            let expected: Vec<String> = differs.then(|| "s/c (backends)".to_owned()).into_iter().collect();
            assert_eq!(found.commands.changed, expected, "{old} to {new}");
            assert!(found.backends.is_empty());
        }
    }

    #[test]
    fn limits_of_grants_and_realms_are_compared() {
        let limited =
            |rate: &str| format!("{{ department: a, subsystem: s, commands: [c], limits: {{ rate: {rate} }} }}");
        let s = subsystem("s", "/s", "c");
        let text = |realm: &str, rate: &str| {
            let department = format!("{{ id: a, callers: [{{ dns: a }}], realms: [{realm}] }}");
            document(&department, &s, &limited(rate))
        };
        let found = difference(&text("x", "1/s"), &text("y", "2/s"));
        assert_eq!(
            (found.grants.changed, found.departments.changed),
            (vec!["a s/c (limits)".to_owned()], vec!["a (realms)".to_owned()])
        );
        assert!(difference(&text("x", "1/s"), &text("x", "1/s")).is_empty());
    }

    #[test]
    fn grants_are_compared_by_what_they_allow() {
        let departments = [department("a", "a", ""), department("b", "b", "")].join(", ");
        let s = subsystem("s", "/s", "c.one c.two d");
        let old = document(&departments, &s, &[grant("a", "s", "c.*"), grant("b", "s", "d")].join(", "));
        let new = document(&departments, &s, &[grant("a", "s", "c.one"), grant("a", "s", "d")].join(", "));
        let found = difference(&old, &new).grants;
        assert_eq!(found.added, ["a s/d"]);
        assert_eq!(removed(&found), [("a s/c.two", None), ("b s/d", None)]);
        let same = document(&departments, &s, &[grant("a", "s", "c.?*"), grant("b", "s", "d")].join(", "));
        assert!(difference(&old, &same).is_empty(), "a different spelling of equal grants");
    }
}

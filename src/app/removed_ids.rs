//! Ids with usage this month that the configuration no longer has. After a rename, the bill of the renamed department
//! is split between two ids.
//!
//! Guarantees:
//! - This module only logs warnings, at most [`WARNINGS_MAX`] lines at a time.
//! - It reads rows of the ledger, so callers must not run on a traffic thread.
//!
//! Leaves to others: reading the ledger (`reload`, `app`).

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ledger::{UsageRow, UsageSums};
use crate::model::{Month, Name, Outcome};
use crate::policy::{PolicySnapshot, SnapshotDifference};

/// The maximum of warnings at a time.
const WARNINGS_MAX: usize = 20;

/// An id that the configuration no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemovedId {
    /// `department`, `subsystem` or `command`.
    kind: &'static str,
    id: String,
    /// The id that took over its callers or its place.
    successor: Option<String>,
}

/// Usage by kind and id.
type UsageById = BTreeMap<(&'static str, String), UsageSums>;

/// The ids that a reload removed.
pub(crate) fn removed_by_reload(difference: &SnapshotDifference) -> Vec<RemovedId> {
    let kinds = [
        ("department", &difference.departments),
        ("subsystem", &difference.subsystems),
        ("command", &difference.commands),
    ];
    let vanished = kinds
        .into_iter()
        .flat_map(|(kind, changes)| changes.removed_or_renamed().map(move |(id, heir)| (kind, id, heir)));
    let one = |(kind, id, heir): (_, &str, Option<&str>)| RemovedId {
        kind,
        id: id.to_owned(),
        successor: heir.map(str::to_owned),
    };
    vanished.map(one).collect()
}

/// Warns of the removed ids that have usage.
pub(crate) fn warn_if_used(vanished: &[RemovedId], rows: &[UsageRow], month: Month) {
    let usage = usage_by_id(rows);
    let used = |one: &RemovedId| Some((one.clone(), *usage.get(&(one.kind, one.id.clone()))?));
    log_removed_ids(vanished.iter().filter_map(used).collect(), month);
}

/// Warns of every id with usage that the configuration of a start does not have.
pub(crate) fn warn_of_missing_ids(snapshot: &PolicySnapshot, rows: &[UsageRow], month: Month) {
    let known = known_ids(snapshot);
    let mut usage = usage_by_id(rows);
    usage.retain(|key, _| !known.contains(key));
    let removed_subsystems: HashSet<String> =
        usage.keys().filter(|(kind, _)| *kind == "subsystem").map(|(_, id)| format!("{id}/")).collect();
    usage.retain(|(kind, id), _| {
        *kind != "command" || !removed_subsystems.iter().any(|subsystem| id.starts_with(subsystem))
    });
    let one = |((kind, id), usage)| (RemovedId { kind, id, successor: None }, usage);
    log_removed_ids(usage.into_iter().map(one).collect(), month);
}

fn known_ids(snapshot: &PolicySnapshot) -> HashSet<(&'static str, String)> {
    let departments = snapshot.departments.iter().map(|policy| ("department", policy.department.id.to_string()));
    let subsystems = snapshot.subsystems.iter().flat_map(|subsystem| {
        let commands = subsystem.commands.iter().chain(&subsystem.other);
        let commands = commands.map(|command| ("command", format!("{}/{}", subsystem.id, command.key.command)));
        commands.chain([("subsystem", subsystem.id.to_string())])
    });
    departments.chain(subsystems).collect()
}

/// The usage of each id. Rejected commands have no usage, and `unknown` is no id. Nor is the subsystem of the gateway's
/// own commands one of the configuration.
fn usage_by_id(rows: &[UsageRow]) -> UsageById {
    let mut departments: HashMap<&Name, UsageSums> = HashMap::new();
    let mut commands: HashMap<(&Name, &Name), UsageSums> = HashMap::new();
    for row in rows.iter().filter(|row| matches!(row.outcome, Outcome::Finished(_))) {
        departments.entry(&row.department).or_default().add(row.totals.usage());
        if !row.subsystem.is_gateway() {
            commands.entry((&row.subsystem, &row.command)).or_default().add(row.totals.usage());
        }
    }
    let mut usage = UsageById::new();
    let departments = departments.into_iter().map(|(id, used)| (("department", id.to_string()), used));
    let subsystems = commands.iter().map(|((id, _), used)| (("subsystem", id.to_string()), *used));
    let commands = commands.iter().map(|((subsystem, id), used)| (("command", format!("{subsystem}/{id}")), *used));
    for (key, used) in departments.chain(subsystems).chain(commands).filter(|((_, id), _)| id != Name::UNKNOWN) {
        usage.entry(key).or_default().add(used);
    }
    usage
}

fn log_removed_ids(used: Vec<(RemovedId, UsageSums)>, month: Month) {
    let suppressed = used.len().saturating_sub(WARNINGS_MAX);
    for (RemovedId { kind, id, successor }, UsageSums { units, commands }) in used.into_iter().take(WARNINGS_MAX) {
        let successor = successor.as_deref();
        tracing::warn!(
            kind, id, units, commands, %month, successor,
            "an id with usage this month was removed from the configuration; its usage is kept under this id"
        );
    }
    if suppressed > 0 {
        tracing::warn!(suppressed, "more ids with usage this month were removed from the configuration");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Measures;
    use crate::model::{Finished, Refused, Window};

    fn row(department: &str, command: &str, outcome: Outcome) -> UsageRow {
        let name = |text: &str| Name::parse(text).expect("a name");
        let totals = Measures { commands: 2, units: 6, ..Measures::default() };
        let (department, subsystem, command) = (name(department), name("cameras"), name(command));
        UsageRow { window: Window(1), department, subsystem, command, outcome, totals }
    }

    #[test]
    fn usage_is_summed_per_kind_of_id() {
        let ok = Outcome::Finished(Finished::Ok);
        let rows = [
            row("police", "read", ok),
            row("police", "submit", Outcome::Finished(Finished::Aborted)),
            row("fire", "read", ok),
            row("parks", "read", Outcome::Refused(Refused::RateLimited)),
            row("unknown", "read", ok),
        ];
        let usage = usage_by_id(&rows);
        let units: Vec<_> =
            usage.iter().map(|((kind, id), used)| format!("{kind} {id} {} {}", used.units, used.commands)).collect();
        assert_eq!(
            units,
            [
                "command cameras/read 18 6",
                "command cameras/submit 6 2",
                "department fire 6 2",
                "department police 12 4",
                "subsystem cameras 24 8"
            ]
        );
    }
}

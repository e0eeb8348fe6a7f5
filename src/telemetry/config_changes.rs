//! The changes of a reload, for `/config` and the log: the first names of each list and its length.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use crate::policy::{ItemChanges, SnapshotDifference};

/// The maximum number of names that `/config` shows of a list.
const NAMES_MAX: usize = 20;

/// The maximum number of names that a log line shows of a list: a line has up to thirty lists.
const LOGGED_NAMES_MAX: usize = 4;

/// The changes of one reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigChanges {
    /// The time of the reload.
    pub at: Timestamp,
    /// The version that was live before.
    pub from: String,
    /// Departments, by id.
    pub departments: ChangedItems,
    /// Subsystems, by id.
    pub subsystems: ChangedItems,
    /// Backends that are not those of a subsystem, by id.
    pub backends: ChangedItems,
    /// Commands, as `subsystem/command`.
    pub commands: ChangedItems,
    /// Grants of commands to departments, as `department subsystem/command`.
    pub grants: ChangedItems,
    /// Whether the limit of the whole gateway changed.
    pub total_limit: bool,
    /// Listeners, by name.
    pub listeners: ChangedItems,
    /// The changed keys of the admin listener: `admin.address`, `admin.hosts`.
    pub admin: NameList,
    /// The changed keys of the access log: `accessLog.output`; `accessLog` if it was switched on or off.
    pub access_log: NameList,
    /// Changes to keys, trust and hosts of listeners and subsystems: `listener departments: server certificate CN=a:
    /// ends …, before …`.
    pub tls: NameList,
}

/// The items that were added, removed, changed and renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChangedItems {
    /// New ids.
    #[serde(skip_serializing_if = "NameList::is_empty")]
    pub added: NameList,
    /// Removed ids.
    #[serde(skip_serializing_if = "NameList::is_empty")]
    pub removed: NameList,
    /// Changed ids with the keys that differ: `police (limits)`.
    #[serde(skip_serializing_if = "NameList::is_empty")]
    pub changed: NameList,
    /// Renamed items as `old -> new`: the same item under another id.
    #[serde(skip_serializing_if = "NameList::is_empty")]
    pub renamed: NameList,
}

/// The first names of a list and the length of the whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NameList {
    /// The length of the whole list.
    pub count: usize,
    /// The first names.
    pub names: Vec<String>,
}

/// The changes of a reload outside of the policy snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerChanges {
    /// Listeners, by name.
    pub listeners: ChangedItems,
    /// The changed keys of the admin listener.
    pub admin: Vec<String>,
    /// The changed keys of the access log.
    pub access_log: Vec<&'static str>,
    /// Changes to keys, trust and hosts, as text.
    pub tls: Vec<String>,
}

impl ConfigChanges {
    /// Builds the changes from the difference between two snapshots and the `other` changes, with the time of the
    /// reload and the previous version.
    pub fn new(difference: &SnapshotDifference, (at, from): (Timestamp, String), other: ListenerChanges) -> Self {
        Self {
            at,
            from,
            departments: ChangedItems::from_changes(&difference.departments),
            subsystems: ChangedItems::from_changes(&difference.subsystems),
            backends: ChangedItems::from_changes(&difference.backends),
            commands: ChangedItems::from_changes(&difference.commands),
            grants: ChangedItems::from_changes(&difference.grants),
            total_limit: difference.total_limit,
            listeners: other.listeners,
            admin: other.admin.into_iter().collect(),
            access_log: other.access_log.into_iter().map(str::to_owned).collect(),
            tls: other.tls.into_iter().collect(),
        }
    }
}

impl ConfigChanges {
    /// Whether nothing changed, as when the same file was read twice.
    pub fn is_empty(&self) -> bool {
        let items =
            [&self.departments, &self.subsystems, &self.backends, &self.commands, &self.grants, &self.listeners];
        let lists = [&self.admin, &self.access_log, &self.tls];
        let has_items = items.into_iter().any(|items| items.to_text().is_some());
        !has_items && !self.total_limit && lists.into_iter().all(NameList::is_empty)
    }
}

impl ChangedItems {
    fn from_changes(changes: &ItemChanges) -> Self {
        Self {
            added: changes.added.iter().cloned().collect(),
            removed: changes.removed.iter().map(|item| item.id.clone()).collect(),
            changed: changes.changed.iter().cloned().collect(),
            renamed: changes.renamed.iter().map(|(old, new)| format!("{old} -> {new}")).collect(),
        }
    }

    /// The changes as text for the log, with the first names of each list; `None` if nothing changed.
    pub fn to_text(&self) -> Option<String> {
        let lists = [
            ("added", &self.added),
            ("removed", &self.removed),
            ("changed", &self.changed),
            ("renamed", &self.renamed),
        ];
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let words: Vec<_> =
            lists.map(|(what, list)| format!("{} {what}: {}", list.count, list.to_short_text())).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

impl NameList {
    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The list as text for the log: a few names, and the number of the others.
    pub fn to_short_text(&self) -> String {
        self.text_of(LOGGED_NAMES_MAX)
    }

    /// At most `most` names, and the number of the others.
    fn text_of(&self, most: usize) -> String {
        let shown = &self.names[..most.min(self.names.len())];
        let mut text = shown.join(", ");
        if self.count > shown.len() {
            text += &format!(" and {} more", self.count - shown.len());
        }
        text
    }
}

impl FromIterator<String> for NameList {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut list = Self::default();
        for name in names {
            list.count += 1;
            if list.names.len() < NAMES_MAX {
                list.names.push(name);
            }
        }
        list
    }
}

impl fmt::Display for NameList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text_of(NAMES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_truncated_with_their_length() {
        let many: NameList = (0..50_000).map(|number| format!("d{number}")).collect();
        assert_eq!((many.count, many.names.len()), (50_000, NAMES_MAX));
        assert!(many.to_string().ends_with("d18, d19 and 49980 more"), "{many}");
        let items = ChangedItems { added: many, ..ChangedItems::default() };
        assert!(items.to_text().is_some_and(|words| words.starts_with("50000 added: d0, d1, ")));
        let text = items.to_text().unwrap_or_default();
        assert_eq!(text, "50000 added: d0, d1, d2, d3 and 49996 more", "a log line is short");
        assert_eq!(ChangedItems::default().to_text(), None);
    }

    #[test]
    fn reload_without_changes_is_recognised() {
        let with = |difference: &SnapshotDifference, other: ListenerChanges| {
            ConfigChanges::new(difference, (Timestamp::UNIX_EPOCH, "0123456789ab".to_owned()), other)
        };
        let changes = |difference: &SnapshotDifference, tls: &[&str]| {
            let tls = tls.iter().map(|&text| text.to_owned()).collect();
            with(difference, ListenerChanges { tls, ..ListenerChanges::default() })
        };
        let nothing = SnapshotDifference::default();
        assert!(changes(&nothing, &[]).is_empty());
        assert!(!changes(&nothing, &["listener a: the served hosts have changed"]).is_empty());
        assert!(!changes(&SnapshotDifference { total_limit: true, ..SnapshotDifference::default() }, &[]).is_empty());
        let web = ChangedItems { added: ["web".to_owned()].into_iter().collect(), ..ChangedItems::default() };
        let listeners = ListenerChanges { listeners: web, ..ListenerChanges::default() };
        assert!(!with(&nothing, listeners).is_empty());
        let admin = ListenerChanges { admin: vec!["admin.hosts".to_owned()], ..ListenerChanges::default() };
        assert!(!with(&nothing, admin).is_empty());
        let added = ItemChanges { added: vec!["police".to_owned()], ..ItemChanges::default() };
        assert!(!changes(&SnapshotDifference { departments: added, ..SnapshotDifference::default() }, &[]).is_empty());
    }
}

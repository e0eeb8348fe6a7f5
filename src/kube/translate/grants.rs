//! Grants: which routes are closed, and documents with the grants of departments on them.
//!
//! Guarantees:
//! - A route that is the target of a Grant is closed to all callers without a grant, whatever becomes of the Grant.
//! - A Grant is about routes of its own namespace: nobody opens or closes the routes of others.
//!
//! Leaves to others: globs and limits (`config`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::condition::{ACCEPTED, Condition, RESOLVED_REFS};
use super::departments::{DepartmentSet, limit_keys};
use super::gateways::GatewayPlan;
use super::names;
use super::routes::RouteOutcome;
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{GrantSpec, ObjectKey, ObjectKind};

/// The grants of all commands.
const ALL_COMMANDS: &str = "*";

/// A Grant with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct GrantOutcome {
    /// Its key.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// The name of its document, if it has one.
    pub document: Option<String>,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// The routes that are closed to callers without a grant.
#[derive(Debug, Default)]
pub(super) struct ClosedRoutes {
    routes: BTreeSet<(ObjectKind, ObjectKey)>,
    /// The namespaces with a Grant that cannot be read: its targets are not known, so all their routes are closed.
    namespaces: BTreeSet<Box<str>>,
}

impl ClosedRoutes {
    pub(super) fn read(index: &Index) -> Self {
        let mut closed = Self::default();
        for (key, fact) in index.grants().iter() {
            let Some(grant) = fact.valid() else {
                closed.namespaces.insert((&*key.namespace).into());
                continue;
            };
            let targets = grant.target_refs.iter();
            closed
                .routes
                .extend(targets.map(|one| (one.kind.object_kind(), ObjectKey::new(&key.namespace, &one.name))));
        }
        closed
    }

    /// Whether only grants open a route.
    pub(super) fn contains(&self, kind: ObjectKind, route: &ObjectKey) -> bool {
        self.namespaces.contains(&*route.namespace) || self.routes.contains(&(kind, route.clone()))
    }
}

/// What Grants refer to.
pub(super) struct GrantSubjects<'a> {
    pub(super) departments: &'a DepartmentSet,
    pub(super) gateways: &'a [GatewayPlan<'a>],
    pub(super) routes: &'a [Arc<RouteOutcome>],
}

/// Translates all Grants, the oldest first.
pub(super) fn translate_grants(
    index: &Index,
    subjects: &GrantSubjects<'_>,
) -> (Vec<(String, Value)>, Vec<GrantOutcome>) {
    let mut facts: Vec<(&ObjectKey, &Fact<GrantSpec>)> = index.grants().iter().collect();
    if facts.is_empty() {
        return (Vec::new(), Vec::new());
    }
    facts.sort_by_cached_key(|(key, fact)| (fact.meta.created, (*key).clone()));
    let lookup = GrantLookup::new(subjects);
    let (mut documents, mut outcomes) = (Vec::new(), Vec::with_capacity(facts.len()));
    for (key, fact) in facts {
        let (document, conditions) = match &fact.parsed {
            Ok(grant) => lookup.translate(key, grant),
            Err(fault) => {
                let message = format!(
                    "{fault}. Its targets are not known, so all routes of the namespace are closed to callers \
                             without another Grant"
                );
                (None, vec![Condition::fails(ACCEPTED, "Invalid", message)])
            }
        };
        let name = format!("Grant {key}");
        outcomes.push(GrantOutcome {
            key: key.clone(),
            generation: fact.meta.generation,
            document: document.as_ref().map(|_| name.clone()),
            conditions,
        });
        documents.extend(document.map(|document| (name, document)));
    }
    (documents, outcomes)
}

/// The names that Grants may use.
struct GrantLookup<'a> {
    departments: &'a DepartmentSet,
    /// The departments of Gateways that have a document.
    gateways: BTreeSet<String>,
    routes: BTreeMap<(ObjectKind, &'a ObjectKey), &'a RouteOutcome>,
}

impl<'a> GrantLookup<'a> {
    fn new(subjects: &GrantSubjects<'a>) -> Self {
        let gateways = subjects.gateways.iter().filter(|plan| plan.listeners.iter().any(|one| one.is_live()));
        Self {
            departments: subjects.departments,
            gateways: gateways.map(|plan| names::department(plan.key)).collect(),
            routes: subjects.routes.iter().map(|route| ((route.kind, &route.key), &**route)).collect(),
        }
    }

    fn translate(&self, key: &ObjectKey, grant: &GrantSpec) -> (Option<Value>, Vec<Condition>) {
        let (mut subsystems, mut missing) = (Vec::new(), None);
        for target in &grant.target_refs {
            let (kind, route) = (target.kind.object_kind(), ObjectKey::new(&key.namespace, &target.name));
            match self.routes.get(&(kind, &route)) {
                Some(outcome) if outcome.document.is_some() => {
                    subsystems.push(names::subsystem(&route, subsystem_kind(kind)));
                }
                Some(_) => missing = missing.or(Some(format!("the {kind} {route} is not served; see its conditions"))),
                None => missing = missing.or(Some(format!("there is no {kind} {route} with a Gateway of this class"))),
            }
        }
        let known = |id: &str| self.departments.contains(id) || self.gateways.contains(id);
        let unknown = grant.departments.iter().find(|id| !known(id));
        let commands = match &grant.commands[..] {
            [] => json!([ALL_COMMANDS]),
            commands => json!(commands),
        };
        let mut grants = Vec::new();
        for department in grant.departments.iter().filter(|id| known(id)) {
            for subsystem in &subsystems {
                let mut one = json!({ "department": department, "subsystem": subsystem, "commands": commands });
                if let Some(limits) = &grant.limits {
                    one["limits"] = limit_keys(limits);
                }
                grants.push(one);
            }
        }
        let accepted = match missing {
            Some(message) => Condition::fails(ACCEPTED, "TargetNotFound", message),
            None => Condition::holds(ACCEPTED, "Accepted"),
        };
        let resolved = match unknown {
            Some(id) => {
                let message =
                    format!("there is no Department with the id {id} that is accepted; the others have the grant");
                Condition::fails(RESOLVED_REFS, "DepartmentNotFound", message)
            }
            None => Condition::holds(RESOLVED_REFS, "ResolvedRefs"),
        };
        let document = (!grants.is_empty()).then(|| json!({ "grants": grants }));
        (document, vec![accepted, resolved])
    }
}

/// The mark of a kind of route in the name of its subsystem.
pub(super) fn subsystem_kind(kind: ObjectKind) -> &'static str {
    if kind == ObjectKind::GrpcRoute { "grpc" } else { "" }
}

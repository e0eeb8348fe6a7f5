//! Grants, as documents with the grants of departments on routes and Ingresses.
//!
//! Guarantees: a Grant is about routes of its own namespace. Nobody opens the routes of others.
//!
//! Leaves to others: closing the routes (`closed_routes`), globs and limits (`config`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::condition::{ACCEPTED, Condition, RESOLVED_REFS};
use super::departments::{DepartmentSet, limit_keys};
use super::gateways::GatewayPlan;
use super::ingresses::{DEPARTMENT as INGRESS_DEPARTMENT, IngressOutcome, IngressSubsystem};
use super::names;
use super::routes::{OutcomeList, RouteOutcome};
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{GrantSpec, ObjectKey, ObjectKind};
use crate::policy::CommandGlob;

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

/// What Grants refer to.
pub(super) struct GrantSubjects<'a> {
    pub(super) departments: &'a DepartmentSet,
    pub(super) gateways: &'a [GatewayPlan<'a>],
    pub(super) routes: &'a OutcomeList,
    pub(super) ingresses: &'a [IngressOutcome],
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
    ingresses: BTreeMap<&'a ObjectKey, &'a IngressOutcome>,
}

/// A subsystem that a Grant opens.
struct GrantedSubsystem {
    id: String,
    /// The globs on its commands.
    commands: Vec<Box<str>>,
}

impl<'a> GrantLookup<'a> {
    fn new(subjects: &GrantSubjects<'a>) -> Self {
        let gateways = subjects.gateways.iter().filter(|plan| plan.listeners.iter().any(|one| one.is_live()));
        let gateways = gateways.map(|plan| names::department(plan.key));
        // All Ingresses have one department; without an Ingress there is none.
        let of_ingresses = (!subjects.ingresses.is_empty()).then(|| INGRESS_DEPARTMENT.to_owned());
        Self {
            departments: subjects.departments,
            gateways: gateways.chain(of_ingresses).collect(),
            ingresses: subjects.ingresses.iter().map(|ingress| (&ingress.key, ingress)).collect(),
            routes: subjects.routes.iter().map(|route| ((route.kind, &route.key), &**route)).collect(),
        }
    }

    /// The subsystems of a target.
    ///
    /// # Errors
    /// Why there is none.
    fn subsystems_of(
        &self,
        kind: ObjectKind,
        target: &ObjectKey,
        grant: &GrantSpec,
    ) -> Result<Vec<GrantedSubsystem>, String> {
        let globs = match &grant.commands[..] {
            [] => vec![ALL_COMMANDS.into()],
            globs => globs.to_vec(),
        };
        if kind == ObjectKind::Ingress {
            return match self.ingresses.get(target) {
                Some(ingress) if !ingress.subsystems.is_empty() => Ok(granted_in_ingress(ingress, &globs)),
                Some(_) => Err(format!("the {kind} {target} is not served; see its events")),
                None => Err(format!("there is no {kind} {target} with a class of this controller")),
            };
        }
        match self.routes.get(&(kind, target)) {
            Some(outcome) if outcome.document.is_some() => Ok(vec![GrantedSubsystem {
                id: names::subsystem(target, names::subsystem_kind(kind)),
                commands: globs,
            }]),
            Some(_) => Err(format!("the {kind} {target} is not served; see its conditions")),
            None => Err(format!("there is no {kind} {target} with a Gateway of this class")),
        }
    }

    fn translate(&self, key: &ObjectKey, grant: &GrantSpec) -> (Option<Value>, Vec<Condition>) {
        let (mut subsystems, mut missing) = (Vec::new(), None);
        for target in &grant.target_refs {
            let (kind, route) = (target.kind.object_kind(), ObjectKey::new(&key.namespace, &target.name));
            match self.subsystems_of(kind, &route, grant) {
                Ok(found) => subsystems.extend(found),
                Err(why) => missing = missing.or(Some(why)),
            }
        }
        let known = |id: &str| self.departments.contains(id) || self.gateways.contains(id);
        let unknown = grant.departments.iter().find(|id| !known(id));
        let mut grants = Vec::new();
        for department in grant.departments.iter().filter(|id| known(id)) {
            for subsystem in &subsystems {
                let GrantedSubsystem { id, commands } = subsystem;
                let mut one = json!({ "department": department, "subsystem": id, "commands": commands });
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

/// The subsystems of an Ingress, each with the globs that match one of its commands: an Ingress has a subsystem for
/// each host. A glob without a match stays in the first one, so that the configuration reports it.
fn granted_in_ingress(ingress: &IngressOutcome, globs: &[Box<str>]) -> Vec<GrantedSubsystem> {
    let matches = |glob: &str, subsystem: &IngressSubsystem| match CommandGlob::parse(glob) {
        Ok(glob) => subsystem.commands.iter().any(|command| glob.matches_id(command)),
        Err(_) => true, // the configuration reports it
    };
    let is_unmatched = |glob: &str| !ingress.subsystems.iter().any(|subsystem| matches(glob, subsystem));
    let granted = ingress.subsystems.iter().enumerate().map(|(position, subsystem)| {
        let counts = |glob: &str| matches(glob, subsystem) || (position == 0 && is_unmatched(glob));
        let commands = globs.iter().filter(|glob| counts(glob)).cloned().collect();
        GrantedSubsystem { id: subsystem.id.clone(), commands }
    });
    granted.filter(|one| !one.commands.is_empty()).collect()
}

//! BackendTLSPolicies: TLS towards the endpoints of Services.
//!
//! Guarantees:
//! - Of two policies for one Service and port the older one is used; the other one is `Conflicted`.
//! - A policy that cannot be used makes the Service unusable (500): traffic is never sent in clear text instead.
//! - A policy has an entry in its status for each Gateway that uses it.
//!
//! Leaves to others: verification (`identity`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::certificates::{TextCollector, take_authorities};
use super::condition::{ACCEPTED, Condition, RESOLVED_REFS};
use super::references::{BrokenReference, Referrer};
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{
    BackendAltName, BackendAltNameKind, BackendTlsPolicy, GATEWAY_GROUP, LocalReference, ObjectKey, ObjectReference,
    ParentReference,
};

/// The words for the authorities of the machine.
const SYSTEM_AUTHORITIES: &str = "System";

/// A policy with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOutcome {
    /// The policy.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// For each Gateway that uses it the conditions.
    pub ancestors: Vec<(ParentReference, Vec<Condition>)>,
}

/// The policies of a cluster, by their targets.
#[derive(Debug, Default)]
pub(super) struct TlsPolicies {
    policies: Vec<PolicyPlan>,
    /// The policy of each Service, and of each named port of a Service.
    targets: BTreeMap<(ObjectKey, Option<Box<str>>), usize>,
    /// All policies with each Service among their targets, those in conflict as well.
    of_services: BTreeMap<ObjectKey, BTreeSet<usize>>,
}

#[derive(Debug)]
struct PolicyPlan {
    key: ObjectKey,
    generation: i64,
    /// The keys of `tls`, or why the policy cannot be used.
    tls: Result<Value, BrokenReference>,
    conditions: Vec<Condition>,
    used_by: BTreeSet<ObjectKey>,
}

impl TlsPolicies {
    /// Reads all policies, the oldest first.
    pub(super) fn read(index: &Index, texts: &mut TextCollector<'_>) -> Self {
        let mut facts: Vec<(&ObjectKey, &Fact<BackendTlsPolicy>)> = index.backend_tls_policies().iter().collect();
        facts.sort_by_cached_key(|(key, fact)| (fact.meta.created, (*key).clone()));
        let mut policies = Self::default();
        for (key, fact) in facts {
            let Some(policy) = fact.valid() else { continue };
            let targets: Vec<_> = policy
                .target_refs
                .iter()
                .filter(|target| target.group.is_empty() && &*target.kind == "Service")
                .map(|target| (ObjectKey::new(&key.namespace, &target.name), target.section_name.clone()))
                .collect();
            let position = policies.policies.len();
            let mut has_conflict = false;
            for target in &targets {
                has_conflict |= policies.targets.contains_key(target);
                policies.targets.entry(target.clone()).or_insert(position);
                policies.of_services.entry(target.0.clone()).or_default().insert(position);
            }
            let mut plan = plan_policy(index, (key, fact.meta.generation), policy, texts);
            if has_conflict {
                let message = "an older policy has the same target";
                plan.conditions[0] = Condition::fails(ACCEPTED, "Conflicted", message);
            }
            policies.policies.push(plan);
        }
        policies
    }

    /// Whether a policy has this Service among its targets.
    pub(super) fn has_target(&self, service: &ObjectKey) -> bool {
        self.of_services.contains_key(service)
    }

    /// Notes that these Gateways use a Service. A policy in conflict is used by nobody, but its status is shown where
    /// its Service is used.
    pub(super) fn mark_used(&mut self, service: &ObjectKey, gateways: &[ObjectKey]) {
        for position in self.of_services.get(service).into_iter().flatten() {
            self.policies[*position].used_by.extend(gateways.iter().cloned());
        }
    }

    /// The `tls` of a port of a Service; `None` without a policy.
    ///
    /// # Errors
    /// If the policy cannot be used.
    pub(super) fn tls_of(&self, service: &ObjectKey, port_name: &str) -> Result<Option<Value>, BrokenReference> {
        let named = (service.clone(), Some(port_name.into()));
        let position = self.targets.get(&named).or_else(|| self.targets.get(&(service.clone(), None))).copied();
        position.map(|position| self.policies[position].tls.clone()).transpose()
    }

    /// The policies with their conditions.
    pub(super) fn into_outcomes(self) -> Vec<PolicyOutcome> {
        let outcome = |plan: PolicyPlan| PolicyOutcome {
            key: plan.key,
            generation: plan.generation,
            ancestors: plan.used_by.iter().map(|gateway| (ancestor(gateway), plan.conditions.clone())).collect(),
        };
        self.policies.into_iter().map(outcome).collect()
    }
}

fn ancestor(gateway: &ObjectKey) -> ParentReference {
    ParentReference {
        group: GATEWAY_GROUP.into(),
        kind: "Gateway".into(),
        namespace: Some((&*gateway.namespace).into()),
        name: (&*gateway.name).into(),
        section_name: None,
        port: None,
    }
}

fn plan_policy(
    index: &Index,
    (key, generation): (&ObjectKey, i64),
    policy: &BackendTlsPolicy,
    texts: &mut TextCollector<'_>,
) -> PolicyPlan {
    let tls = policy_tls(index, key, policy, texts);
    let conditions = match &tls {
        Ok(_) => vec![Condition::holds(ACCEPTED, "Accepted"), Condition::holds(RESOLVED_REFS, "ResolvedRefs")],
        Err(broken) if broken.reason == "UnsupportedValue" => vec![
            Condition::fails(ACCEPTED, "Invalid", broken.message.clone()),
            Condition::holds(RESOLVED_REFS, "ResolvedRefs"),
        ],
        Err(broken) => vec![
            Condition::fails(ACCEPTED, "NoValidCACertificate", "no reference to authorities can be used"),
            Condition::fails(RESOLVED_REFS, broken.reason, broken.message.clone()),
        ],
    };
    PolicyPlan { key: key.clone(), generation, tls, conditions, used_by: BTreeSet::new() }
}

fn policy_tls(
    index: &Index,
    key: &ObjectKey,
    policy: &BackendTlsPolicy,
    texts: &mut TextCollector<'_>,
) -> Result<Value, BrokenReference> {
    let validation = &policy.validation;
    let unsupported = |message: String| BrokenReference { reason: "UnsupportedValue", message };
    let mut tls = Map::new();
    match validation.well_known_ca_certificates.as_deref() {
        None => {
            let authorities = validation.ca_certificate_refs.iter();
            let taken: Result<Vec<String>, _> =
                authorities.map(|reference| local_authorities(index, key, reference, texts)).collect();
            tls.insert("authorities".to_owned(), json!(taken?));
        }
        Some(SYSTEM_AUTHORITIES) => drop(tls.insert("systemAuthorities".to_owned(), json!(true))),
        Some(other) => return Err(unsupported(format!("wellKnownCACertificates: {other} is not supported"))),
    }
    tls.insert("serverName".to_owned(), json!(validation.hostname));
    let names: Result<Vec<Value>, _> = validation.subject_alt_names.iter().map(alternative_name).collect();
    let names = names.map_err(unsupported)?;
    if !names.is_empty() {
        tls.insert("subjectAltNames".to_owned(), json!(names));
    }
    Ok(Value::Object(tls))
}

fn local_authorities(
    index: &Index,
    key: &ObjectKey,
    reference: &LocalReference,
    texts: &mut TextCollector<'_>,
) -> Result<String, BrokenReference> {
    let LocalReference { group, kind, name } = reference;
    let reference = ObjectReference { group: group.clone(), kind: kind.clone(), name: name.clone(), namespace: None };
    let from = Referrer { kind: "BackendTLSPolicy", namespace: &key.namespace };
    take_authorities(index, from, &reference, texts).map_err(|broken| match broken.reason {
        "InvalidCACertificateKind" => BrokenReference { reason: "InvalidKind", ..broken },
        _ => broken,
    })
}

fn alternative_name(name: &BackendAltName) -> Result<Value, String> {
    match &name.kind {
        BackendAltNameKind::Hostname => Ok(json!({ "dns": name.hostname })),
        BackendAltNameKind::Uri => Ok(json!({ "uri": name.uri })),
        BackendAltNameKind::Other(other) => Err(format!("subjectAltNames of the type {other} are not supported")),
    }
}

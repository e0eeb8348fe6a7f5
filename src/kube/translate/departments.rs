//! Departments: documents, and the realms in which their certificates count.
//!
//! Guarantees:
//! - The certificates of a Department count on a listener only if each of its authorities is one of the Department's.
//!   So nobody who can write a Gateway, a policy or an Ingress can certify callers of a Department with an authority of
//!   their own.
//! - Of two Departments with one id or one identity the older one has it; the other one is refused as a whole.
//! - No Department has an id that a Gateway's department can have.
//!
//! Leaves to others: authentication (`identity`), limits and quotas (`config`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::certificates::{AuthorityDigests, TextCollector, digests_of_entry};
use super::condition::{ACCEPTED, Condition, RESOLVED_REFS};
use super::ingresses;
use super::references::BrokenReference;
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{
    CallerIdentity, DepartmentSpec, LimitsSpec, ObjectKey, QuotaPeriod, QuotaSpec, SubjectIdentity,
};

/// A Department with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct DepartmentOutcome {
    /// Its key.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// The name of its document, if it has one.
    pub document: Option<String>,
    /// Its conditions, beside `Programmed`.
    pub conditions: Vec<Condition>,
    /// Whether there is a listener on which its certificates count.
    pub has_listener: bool,
}

/// The Departments of a cluster.
#[derive(Debug, Default)]
pub(super) struct DepartmentSet {
    pub(super) documents: Vec<(String, Value)>,
    pub(super) outcomes: Vec<DepartmentOutcome>,
    /// The owner of each id.
    ids: BTreeMap<String, ObjectKey>,
    /// The owner of each identity.
    identities: BTreeMap<String, ObjectKey>,
}

impl DepartmentSet {
    /// Translates all Departments, the oldest first. `texts` knows the realms of all listeners.
    pub(super) fn translate(index: &Index, texts: &TextCollector<'_>) -> Self {
        let mut facts: Vec<(&ObjectKey, &Fact<DepartmentSpec>)> = index.departments().iter().collect();
        facts.sort_by_cached_key(|(key, fact)| (fact.meta.created, (*key).clone()));
        let mut set = Self::default();
        for (key, fact) in facts {
            set.add(index, (key, fact), texts);
        }
        set
    }

    /// Whether a Department with this id is in order.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    fn add(&mut self, index: &Index, (key, fact): (&ObjectKey, &Fact<DepartmentSpec>), texts: &TextCollector<'_>) {
        let resolved = Condition::holds(RESOLVED_REFS, "ResolvedRefs");
        let (document, has_listener, conditions) = match self.document(index, key, fact, texts) {
            Ok((document, has_listener)) => {
                (Some(document), has_listener, vec![Condition::holds(ACCEPTED, "Accepted"), resolved])
            }
            Err(DepartmentFault::Refused(reason, message)) => {
                (None, false, vec![Condition::fails(ACCEPTED, reason, message), resolved])
            }
            Err(DepartmentFault::Broken(broken)) => {
                let message = "an authority cannot be used, so its callers cannot be distinguished from others";
                let resolved = Condition::fails(RESOLVED_REFS, broken.reason, broken.message);
                (None, false, vec![Condition::fails(ACCEPTED, "NoValidCACertificate", message), resolved])
            }
        };
        let name = format!("Department {key}");
        self.outcomes.push(DepartmentOutcome {
            key: key.clone(),
            generation: fact.meta.generation,
            document: document.as_ref().map(|_| name.clone()),
            conditions,
            has_listener,
        });
        self.documents.extend(document.map(|document| (name, document)));
    }

    /// The document of a Department, and whether there is a listener on which its certificates count.
    fn document(
        &mut self,
        index: &Index,
        key: &ObjectKey,
        fact: &Fact<DepartmentSpec>,
        texts: &TextCollector<'_>,
    ) -> Result<(Value, bool), DepartmentFault> {
        let department =
            fact.parsed.as_ref().map_err(|fault| DepartmentFault::Refused("Invalid", fault.to_string()))?;
        let id = department.id.as_deref().unwrap_or(&key.name);
        self.claim(key, id, department)?;
        let digests = authorities(index, department, texts);
        let realms = digests.as_ref().map(|digests| texts.realms_within(digests)).unwrap_or_default();
        // The identities stay claimed: no other Department gets them while an authority is missing.
        digests.map_err(DepartmentFault::Broken)?;
        let mut keys = Map::new();
        keys.insert("id".to_owned(), json!(id));
        keys.insert("name".to_owned(), json!(department.display_name.as_deref().unwrap_or(id)));
        keys.insert("callers".to_owned(), department.callers.iter().map(caller_keys).collect());
        // A name of no listener, so that the certificates count nowhere: an empty list would be the realm without a
        // name.
        let has_listener = !realms.is_empty();
        keys.insert("realms".to_owned(), if has_listener { json!(realms) } else { json!([NO_REALM]) });
        keys.extend(department.limits.as_ref().map(|limits| ("limits".to_owned(), limit_keys(limits))));
        keys.extend(department.quota.as_ref().map(|quota| ("quota".to_owned(), quota_keys(quota))));
        if !department.quotas.is_empty() {
            keys.insert("quotas".to_owned(), department.quotas.iter().map(quota_keys).collect());
        }
        keys.extend(department.disabled.map(|disabled| ("disabled".to_owned(), json!(disabled))));
        self.ids.insert(id.to_owned(), key.clone());
        Ok((json!({ "departments": [keys] }), has_listener))
    }

    /// Claims the id and the identities, all or none.
    fn claim(&mut self, key: &ObjectKey, id: &str, department: &DepartmentSpec) -> Result<(), DepartmentFault> {
        if id.contains('.') || id == ingresses::DEPARTMENT {
            let message = format!(
                "the id {id:?} could be that of a Gateway's department or of the callers of Ingresses; write an id without \
                 a dot in spec.id"
            );
            return Err(DepartmentFault::Refused("Invalid", message));
        }
        let conflict = |what: String, owner: &ObjectKey| {
            let message = format!("{what} belongs to the older Department {owner}; this one is refused as a whole");
            DepartmentFault::Refused("Conflicted", message)
        };
        if let Some(owner) = self.ids.get(id) {
            return Err(conflict(format!("the id {id}"), owner));
        }
        let identities: Vec<String> = department.callers.iter().map(identity_text).collect();
        for identity in &identities {
            if let Some(owner) = self.identities.get(identity) {
                return Err(conflict(format!("the identity {identity}"), owner));
            }
        }
        self.identities.extend(identities.into_iter().map(|identity| (identity, key.clone())));
        Ok(())
    }
}

/// The realm of a Department whose certificates count on no listener.
const NO_REALM: &str = "none";

/// Why a Department has no document.
enum DepartmentFault {
    /// A reason and a sentence.
    Refused(&'static str, String),
    /// An authority cannot be used.
    Broken(BrokenReference),
}

fn authorities(
    index: &Index,
    department: &DepartmentSpec,
    texts: &TextCollector<'_>,
) -> Result<AuthorityDigests, BrokenReference> {
    let mut digests = AuthorityDigests::new();
    for bundle in &department.authorities {
        let key = ObjectKey::new(&bundle.namespace, &bundle.name);
        digests.extend(digests_of_entry(index, bundle.kind.as_str(), (&key, &bundle.key), texts.check)?);
    }
    Ok(digests)
}

/// An identity as one text, so that equal ones are found. Host names have no case.
fn identity_text(caller: &CallerIdentity) -> String {
    match caller {
        CallerIdentity { uri: Some(uri), .. } => format!("uri {uri}"),
        CallerIdentity { dns: Some(dns), .. } => format!("dns {}", dns.to_ascii_lowercase()),
        CallerIdentity { subject: Some(SubjectIdentity { common_name, organizational_unit }), .. } => {
            format!("subject {common_name:?} {organizational_unit:?}")
        }
        _ => "no identity".to_owned(), // the configuration refuses it
    }
}

fn caller_keys(caller: &CallerIdentity) -> Value {
    let mut keys = Map::new();
    keys.extend(caller.uri.as_ref().map(|uri| ("uri".to_owned(), json!(uri))));
    keys.extend(caller.dns.as_ref().map(|dns| ("dns".to_owned(), json!(dns))));
    if let Some(subject) = &caller.subject {
        let mut written = json!({ "commonName": subject.common_name });
        if let Some(unit) = &subject.organizational_unit {
            written["organizationalUnit"] = json!(unit);
        }
        keys.insert("subject".to_owned(), written);
    }
    Value::Object(keys)
}

/// Limits in the form of the configuration.
pub(super) fn limit_keys(limits: &LimitsSpec) -> Value {
    let mut keys = Map::new();
    keys.extend(limits.rate.as_ref().map(|rate| ("rate".to_owned(), json!(rate))));
    keys.extend(limits.burst.map(|burst| ("burst".to_owned(), json!(burst))));
    keys.extend(limits.concurrent.map(|concurrent| ("concurrent".to_owned(), json!(concurrent))));
    Value::Object(keys)
}

fn quota_keys(quota: &QuotaSpec) -> Value {
    let per = match quota.per {
        QuotaPeriod::Day => "day",
        QuotaPeriod::Month => "month",
    };
    let mut keys = Map::new();
    keys.insert("per".to_owned(), json!(per));
    keys.extend(quota.units.map(|units| ("units".to_owned(), json!(units))));
    keys.extend(quota.commands.map(|commands| ("commands".to_owned(), json!(commands))));
    keys.insert("warn".to_owned(), json!(quota.warn));
    keys.insert("exceeded".to_owned(), json!(quota.exceeded.as_str()));
    Value::Object(keys)
}

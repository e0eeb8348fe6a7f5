//! Compiles `departments`: the parties that are billed and limited, and the certificate identities of their callers.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use http::HeaderValue;

use crate::config::document::{CallerDocument, DepartmentDocument, SubjectDocument};
use crate::config::settings::gateway_settings::ListenerSettings;
use crate::model::{CallerId, Department, Name, NameInterner};
use crate::policy::DepartmentPolicy;

use super::compile_context::CompileContext;
use super::doc_path::DocPath;
use super::{limits, scalars};

/// The departments, and which callers each of them claims. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct CompiledDepartments {
    pub(crate) departments: Arc<[Arc<DepartmentPolicy>]>,
    /// The department of each identity in a certificate.
    pub(crate) callers: Arc<HashMap<CallerId, Arc<DepartmentPolicy>>>,
    /// The department of the callers without a certificate, by listener.
    pub(crate) anonymous: Arc<HashMap<Name, Arc<DepartmentPolicy>>>,
    /// The listeners whose department also has the callers with a certificate that no department claims.
    pub(crate) unclaimed: Arc<HashSet<Name>>,
}

/// Departments with the documents that they were compiled from.
pub(crate) type KeptDepartments = (Vec<Arc<DepartmentDocument>>, CompiledDepartments);

/// The departments that subsystems and grants may name.
#[derive(Clone, Copy)]
pub(crate) struct KnownDepartments<'a> {
    pub(crate) all: &'a [Arc<DepartmentPolicy>],
    /// Whether they are the same values as those of the document before.
    pub(crate) are_as_before: bool,
}

/// Compiles the departments. Those of `before` are used again if all their documents are the same: departments may
/// claim identities from each other.
pub(crate) fn compile_departments(
    departments: &[Arc<DepartmentDocument>],
    listeners: &[ListenerSettings],
    (context, before): (CompileContext<'_>, Option<&KeptDepartments>),
    place: &DocPath<'_>,
) -> CompiledDepartments {
    if departments.is_empty() && !context.may_be_empty {
        place.problem("at least one department is required; without one, every command is refused");
    }
    let is_same = |known: &&KeptDepartments| {
        known.0.len() == departments.len()
            && known.0.iter().zip(departments).all(|(one, other)| Arc::ptr_eq(one, other))
    };
    if let Some((_, same)) = before.filter(is_same) {
        return same.clone();
    }
    let mut register = IdentityRegister {
        list: place,
        listeners,
        ids: HashMap::new(),
        claims: HashMap::new(),
        anonymous: HashMap::new(),
        unclaimed: HashSet::new(),
    };
    let mut compiled = Vec::with_capacity(departments.len());
    for (index, department) in departments.iter().enumerate() {
        let policy = Arc::new(compile_department(department, context.numbers, &place.item(index)));
        register.register_id(department, index, &policy);
        compiled.push(policy);
    }
    let IdentityRegister { claims: callers, anonymous, unclaimed, .. } = register;
    let (callers, anonymous, unclaimed) = (Arc::new(callers), Arc::new(anonymous), Arc::new(unclaimed));
    CompiledDepartments { departments: compiled.into(), callers, anonymous, unclaimed }
}

/// The owner of each department id and of each caller identity, to find duplicates.
struct IdentityRegister<'a> {
    list: &'a DocPath<'a>,
    listeners: &'a [ListenerSettings],
    /// The index of the first occurrence of each id.
    ids: HashMap<Name, usize>,
    claims: HashMap<CallerId, Arc<DepartmentPolicy>>,
    /// By listener.
    anonymous: HashMap<Name, Arc<DepartmentPolicy>>,
    unclaimed: HashSet<Name>,
}

impl IdentityRegister<'_> {
    fn register_id(&mut self, department: &DepartmentDocument, index: usize, policy: &Arc<DepartmentPolicy>) {
        let place = self.list.item(index);
        let first = *self.ids.entry(policy.department.id.clone()).or_insert(index);
        if first != index {
            let message = format!("{:?} is the id of two departments", department.id);
            place.key("id").problem_beside(message, &self.list.item(first).key("id"));
        }
        self.claim_identities(department, policy, &place.key("callers"));
    }

    fn claim_identities(
        &mut self,
        department: &DepartmentDocument,
        policy: &Arc<DepartmentPolicy>,
        place: &DocPath<'_>,
    ) {
        if department.callers.is_empty() {
            place.problem("at least one caller is required; without one, no client belongs to this department");
        }
        for (index, caller) in department.callers.iter().enumerate() {
            let place = place.item(index);
            let other = match compile_claim(caller, &place) {
                None => continue,
                Some(CompiledClaim::Certificate(identity)) => {
                    let shown = identity.to_string();
                    claim(&mut self.claims, identity, policy).map(|other| (other, shown))
                }
                Some(CompiledClaim::Listener(listener)) => {
                    let has_unclaimed = caller.unclaimed == Some(true);
                    self.check_anonymous(&listener, has_unclaimed, &place.key("listener"));
                    if has_unclaimed {
                        self.unclaimed.insert(listener.clone());
                    }
                    let shown = format!("the callers without a certificate on the listener {listener}");
                    claim(&mut self.anonymous, listener, policy).map(|other| (other, shown))
                }
            };
            if let Some((other, shown)) = other {
                let first = self.ids.get(&other).copied().unwrap_or_default();
                let message = format!("{shown} is already claimed by department {other}");
                place.problem_beside(message, &self.list.item(first));
            }
        }
    }

    /// Checks that callers without a certificate can connect to a listener, unless those with one are meant too.
    fn check_anonymous(&self, listener: &Name, has_unclaimed: bool, place: &DocPath<'_>) {
        match self.listeners.iter().find(|known| known.name == *listener) {
            None => place.problem(format!("there is no listener {listener}")),
            Some(known) if !has_unclaimed && !known.accepts_anonymous() => place.problem_with_hint(
                format!("the listener {listener} requires client certificates, so it has no caller without one"),
                "set clientAuth.mode: optional there, or name the certificates instead",
            ),
            Some(_) => {}
        }
    }
}

/// Claims a key for a department. Returns the department that has claimed it before, if any.
fn claim<K: Eq + Hash>(
    claims: &mut HashMap<K, Arc<DepartmentPolicy>>,
    key: K,
    policy: &Arc<DepartmentPolicy>,
) -> Option<Name> {
    match claims.entry(key) {
        Entry::Vacant(free) => {
            free.insert(Arc::clone(policy));
            None
        }
        Entry::Occupied(claimed) => Some(claimed.get().department.id.clone()),
    }
}

/// The callers that one entry of `callers` names.
enum CompiledClaim {
    /// Those with this identity in their certificate.
    Certificate(CallerId),
    /// Those without a certificate on this listener.
    Listener(Name),
}

/// A name as a header value.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(Name::UNKNOWN)) // a name is always visible ASCII
}

fn compile_department(
    department: &DepartmentDocument,
    interner: &NameInterner,
    place: &DocPath<'_>,
) -> DepartmentPolicy {
    let id = place.key("id").parse_name(&department.id);
    let name = department.name.clone().unwrap_or_else(|| department.id.clone());
    if name.is_empty() || name.chars().any(char::is_control) {
        place.key("name").problem("a display name has at least one character and no line break");
    }
    DepartmentPolicy {
        header: header_value(id.as_str()),
        department: Department { number: interner.department(&id), id, name },
        limits: limits::compile_limits(department.limits.as_ref(), &place.key("limits")),
        quotas: limits::compile_quotas(department, place),
        disabled: department.disabled.unwrap_or(false),
        realms: compile_realms(&department.realms, &place.key("realms")),
    }
}

/// The most realms of a department: more than a cluster has different sets of authorities.
const REALMS_MAX: usize = 65_536;

fn compile_realms(written: &[String], place: &DocPath<'_>) -> Vec<Name> {
    if written.len() > REALMS_MAX {
        place.problem(format!("{} realms; write at most {REALMS_MAX}", written.len()));
    }
    let mut realms = BTreeSet::new();
    for (index, text) in written.iter().enumerate().take(REALMS_MAX) {
        let place = place.item(index);
        let realm = place.parse_name(text);
        if !realms.insert(realm.clone()) {
            place.problem(format!("{realm} is named twice"));
        }
    }
    realms.into_iter().collect()
}

fn compile_claim(caller: &CallerDocument, place: &DocPath<'_>) -> Option<CompiledClaim> {
    if caller.unclaimed.is_some() && caller.listener.is_none() {
        return place.key("unclaimed").missing("stands only beside listener");
    }
    match (&caller.uri, &caller.dns, &caller.subject, &caller.listener) {
        (Some(uri), None, None, None) => uri_identity(uri, &place.key("uri")).map(CompiledClaim::Certificate),
        (None, Some(dns), None, None) => dns_identity(dns, &place.key("dns")).map(CompiledClaim::Certificate),
        (None, None, Some(subject), None) => {
            Some(CompiledClaim::Certificate(subject_identity(subject, &place.key("subject"))))
        }
        (None, None, None, Some(listener)) => Some(CompiledClaim::Listener(place.key("listener").parse_name(listener))),
        _ => place.missing("a caller is exactly one of uri, dns, subject or listener"),
    }
}

fn subject_identity(subject: &SubjectDocument, place: &DocPath<'_>) -> CallerId {
    if subject.common_name.is_empty() {
        place.key("commonName").problem("a common name must not be empty");
    }
    CallerId::Subject {
        common_name: subject.common_name.clone(),
        organizational_unit: subject.organizational_unit.clone(),
    }
}

fn dns_identity(dns: &str, place: &DocPath<'_>) -> Option<CallerId> {
    if dns.contains('*') {
        place.problem(format!("{dns:?} has a wildcard, which does not identify a single caller"));
        return None;
    }
    place.value_or_problem(scalars::parse_host(dns)).map(CallerId::Dns)
}

fn uri_identity(uri: &str, place: &DocPath<'_>) -> Option<CallerId> {
    let scheme = uri.split_once(':').map(|(scheme, rest)| (scheme.is_empty(), rest.is_empty()));
    if scheme != Some((false, false)) || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        place.problem(format!("{uri:?} is not a URI, such as spiffe://city.example/department/traffic-police"));
        return None;
    }
    Some(CallerId::Uri(uri.to_owned()))
}

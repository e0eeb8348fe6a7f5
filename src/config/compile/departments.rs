//! Compiles `departments`: the parties that are billed and limited, and the certificate identities of their callers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use http::HeaderValue;

use crate::config::document::{CallerDocument, DepartmentDocument};
use crate::model::{CallerId, Department, Name, NameInterner};
use crate::policy::DepartmentPolicy;

use super::doc_path::DocPath;
use super::{limits, scalars};

/// The departments, and the map from caller identity to department.
type CompiledDepartments = (Vec<Arc<DepartmentPolicy>>, HashMap<CallerId, Arc<DepartmentPolicy>>);

pub(crate) fn compile_departments(
    departments: &[Arc<DepartmentDocument>],
    interner: &NameInterner,
    place: &DocPath<'_>,
) -> CompiledDepartments {
    if departments.is_empty() {
        place.problem("at least one department is required; without one, every command is refused");
    }
    let mut register = IdentityRegister { list: place, ids: HashMap::new(), claims: HashMap::new() };
    let mut compiled = Vec::with_capacity(departments.len());
    for (index, department) in departments.iter().enumerate() {
        let policy = Arc::new(compile_department(department, interner, &place.item(index)));
        register.register_id(department, index, &policy);
        compiled.push(policy);
    }
    (compiled, register.claims)
}

/// The owner of each department id and of each caller identity, to find duplicates.
struct IdentityRegister<'a> {
    list: &'a DocPath<'a>,
    /// The index of the first occurrence of each id.
    ids: HashMap<Name, usize>,
    claims: HashMap<CallerId, Arc<DepartmentPolicy>>,
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
            let Some(identity) = compile_identity(caller, &place) else { continue };
            match self.claims.entry(identity) {
                Entry::Vacant(free) => drop(free.insert(Arc::clone(policy))),
                Entry::Occupied(claimed) => {
                    let other = &claimed.get().department.id;
                    let message = format!("{} is already claimed by department {other}", claimed.key());
                    let first = self.ids.get(other).copied().unwrap_or_default();
                    place.problem_beside(message, &self.list.item(first));
                }
            }
        }
    }
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
        department: Department { number: interner.intern(&format!("d/{id}")), id, name },
        limits: limits::compile_limits(department.limits.as_ref(), &place.key("limits")),
        quota: limits::compile_quota(department.quota.as_ref(), &place.key("quota")),
        disabled: department.disabled.unwrap_or(false),
    }
}

fn compile_identity(caller: &CallerDocument, place: &DocPath<'_>) -> Option<CallerId> {
    match (&caller.uri, &caller.dns, &caller.subject) {
        (Some(uri), None, None) => uri_identity(uri, &place.key("uri")),
        (None, Some(dns), None) => dns_identity(dns, &place.key("dns")),
        (None, None, Some(subject)) => {
            if subject.common_name.is_empty() {
                place.key("subject").key("commonName").problem("a common name must not be empty");
            }
            Some(CallerId::Subject {
                common_name: subject.common_name.clone(),
                organizational_unit: subject.organizational_unit.clone(),
            })
        }
        _ => {
            place.problem("a caller is exactly one of uri, dns or subject");
            None
        }
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

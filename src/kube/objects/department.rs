//! Department: a unit of billing and of limits, with the certificates of its callers.
//!
//! Guarantees:
//! - The schema of the CRD is made from these types and their comments.
//!
//! Leaves to others: which listeners its certificates count on: `translate`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};

/// A department: the unit of billing and of limits, with the certificates of its callers. Cluster-scoped, because an
/// identity and a quota belong to one department of the whole cluster, whoever may write in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.id) == has(oldSelf.id) && (!has(self.id) || self.id == oldSelf.id)",
    "message": "the id of a department is permanent: its usage is in ledgers and on bills. Make another department",
}, {
    "rule": "!(has(self.quota) && has(self.quotas))",
    "message": "write quota for one quota, or quotas for several",
}]))]
pub struct DepartmentSpec {
    /// The permanent id in the ledger, in metrics and on bills. Default: the name of the object.
    #[schemars(length(max = 63), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "!(self in ['ingress', 'other', 'unknown'])",
        "message": "this id is taken: ingress is the department of callers of Ingresses, other and unknown are reserved",
    }]))]
    #[serde(default)]
    pub id: Option<Box<str>>,
    /// The name for people. Default: the id.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default)]
    pub display_name: Option<Box<str>>,
    /// The authorities whose certificates count. A certificate counts on a listener that accepts callers of these
    /// authorities and of no others, so nobody can take over an identity with an authority of their own.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub authorities: Vec<AuthorityBundle>,
    /// The identities of its callers: what their certificates say.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub callers: Vec<CallerIdentity>,
    /// The rate and concurrency limits of the department, in each gateway.
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
    /// The quota, in each gateway: the short form of quotas with one entry.
    #[serde(default)]
    pub quota: Option<QuotaSpec>,
    /// The quotas, in each gateway, of which each holds: at most one of units and one of commands for each period.
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    pub quotas: Vec<QuotaSpec>,
    /// Whether its callers are refused. It keeps its identities, so no other department can claim them. Default: false.
    #[serde(default)]
    pub disabled: Option<bool>,
}

impl KubeObject for DepartmentSpec {
    const KIND: ObjectKind = ObjectKind::Department;
    const PART: ObjectPart = ObjectPart::Spec;
}

/// Certificates of authorities as PEM, in an entry of a ConfigMap or Secret. Who may write that object decides who may
/// certify callers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityBundle {
    /// The kind of the object.
    #[schemars(extend("default" = "ConfigMap"))]
    #[serde(default)]
    pub kind: BundleKind,
    /// The namespace of the object.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Box<str>,
    /// The name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: Box<str>,
    /// The entry of the object.
    #[schemars(length(min = 1, max = 253), extend("default" = "ca.crt"))]
    #[serde(default = "authorities_entry")]
    pub key: Box<str>,
}

/// The entry with authorities, unless another one is named.
pub(super) fn authorities_entry() -> Box<str> {
    "ca.crt".into()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum BundleKind {
    #[default]
    ConfigMap,
    Secret,
}

impl BundleKind {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// One identity in a certificate: exactly one of uri, dns and subject.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.uri), has(self.dns), has(self.subject)].exists_one(is, is)",
    "message": "write exactly one of uri, dns and subject",
}]))]
pub struct CallerIdentity {
    /// A URI SAN, such as spiffe://city.example/department/traffic-police.
    #[schemars(length(max = 2048), regex(pattern = r"^[A-Za-z][A-Za-z0-9+.-]*:[!-~]+$"))]
    pub uri: Option<Box<str>>,
    /// A DNS SAN.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^*]+$"))]
    pub dns: Option<Box<str>>,
    /// A subject.
    pub subject: Option<SubjectIdentity>,
}

/// The subject of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectIdentity {
    /// Its commonName.
    #[schemars(length(min = 1, max = 256))]
    pub common_name: Box<str>,
    /// Its organizationalUnit, if it must be exactly this one. Default: the commonName alone decides.
    #[schemars(length(min = 1, max = 256))]
    #[serde(default)]
    pub organizational_unit: Option<Box<str>>,
}

/// Rate and concurrency limits. They hold in each gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.burst) || has(self.rate)",
    "message": "burst requires a rate",
}]))]
pub struct LimitsSpec {
    /// N/s, N/m or N/h.
    #[schemars(length(max = 12), regex(pattern = r"^[1-9][0-9]*/(s|m|h)$"))]
    pub rate: Option<Box<str>>,
    /// The most commands in a burst after an idle period. Default: the number in the rate.
    #[schemars(range(min = 1, max = 4294967295_u64))]
    pub burst: Option<u64>,
    /// The most commands in flight.
    #[schemars(range(min = 1, max = 4294967295_u64))]
    pub concurrent: Option<u64>,
}

/// A quota: a number of units or of commands in a calendar day or month.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.units) != has(self.commands)",
    "message": "a quota has units or commands, one of the two",
}]))]
pub struct QuotaSpec {
    /// The period.
    #[schemars(extend("default" = "Month"))]
    #[serde(default)]
    pub per: QuotaPeriod,
    /// Units per period.
    #[schemars(range(min = 1, max = 281474976710655_u64))]
    #[serde(default)]
    pub units: Option<u64>,
    /// Instead of units: admitted commands per period.
    #[schemars(range(min = 1, max = 281474976710655_u64))]
    #[serde(default)]
    pub commands: Option<u64>,
    /// Percentages of use at which operators are warned, ascending.
    #[schemars(length(max = 8), inner(range(min = 1, max = 100)), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    pub warn: Vec<u64>,
    /// What happens beyond the quota.
    #[schemars(extend("default" = "Refuse"))]
    #[serde(default)]
    pub exceeded: RefuseOrAllow,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum QuotaPeriod {
    Day,
    #[default]
    Month,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum RefuseOrAllow {
    #[default]
    Refuse,
    Allow,
}

impl RefuseOrAllow {
    /// The word of a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Allow => "allow",
        }
    }
}

//! CommandSet: names for the requests of a rule, as they are metered, limited and granted.
//!
//! Guarantees:
//! - The schema of the CRD is made from these types and their comments.
//!
//! Leaves to others: which requests of a rule are which command: `translate`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::department::{LimitsSpec, RefuseOrAllow};
use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};

/// Names for the requests of rules: a rule of an HTTPRoute or GRPCRoute names a CommandSet of its namespace in a filter
/// of the type ExtensionRef, and is metered, limited and granted by its commands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandSetSpec {
    /// The commands. Of several that match a request the most specific one counts, as among the rules of an HTTPRoute.
    #[schemars(length(min = 1, max = 128))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub commands: Vec<CommandSpec>,
    /// What becomes of requests of the rule that are none of the commands: Refuse answers 404, Allow meters them as the
    /// rule.
    #[schemars(extend("default" = "Refuse"))]
    #[serde(default)]
    pub other_commands: RefuseOrAllow,
}

impl KubeObject for CommandSetSpec {
    const KIND: ObjectKind = ObjectKind::CommandSet;
    const PART: ObjectPart = ObjectPart::Spec;
}

/// A named operation.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandSpec {
    /// The id in the ledger, in metrics and on bills.
    #[schemars(length(max = 63), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "!(self in ['other', 'unknown']) && !self.startsWith('rule-') && !self.startsWith('rule_')",
        "message": "other, unknown and ids that begin with rule- or rule_ are reserved: rules without a CommandSet have them",
    }]))]
    pub id: Box<str>,
    /// The requests that are this command: one of these must match.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<CommandMatchSpec>,
    /// The number of units that one call counts. Default: 1.
    #[schemars(range(max = 281474976710655_u64))]
    #[serde(default)]
    pub units: Option<u64>,
    /// The limits of each department on this command, unless a Grant has others.
    #[serde(default)]
    pub limits: Option<LimitsSpec>,
    /// The limits of its request body.
    #[serde(default)]
    pub body: Option<BodySpec>,
}

/// The limits of a request body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct BodySpec {
    /// The largest size, such as 16MiB.
    #[schemars(length(max = 24), regex(pattern = r"^[0-9]+(B|KiB|MiB|GiB)$"))]
    pub max: Box<str>,
}

/// One set of conditions, which must all hold: exactly one of path, pathPrefix, pathRegex and grpc. Paths lie below the
/// path prefix that the rule matches. Conditions of the rule hold as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.path), has(self.pathPrefix), has(self.pathRegex), has(self.grpc)].exists_one(is, is)",
        "message": "write exactly one of path, pathPrefix, pathRegex and grpc",
    },
    { "rule": "!has(self.grpc) || !has(self.method)", "message": "a gRPC method is always POST; leave method out" },
]))]
pub struct CommandMatchSpec {
    /// GET, POST, ... Default: any.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[A-Z-]+$"))]
    pub method: Option<Box<str>>,
    /// The path below the rule's prefix: literal segments, {name} for one, {*name} for the rest.
    #[schemars(length(max = 1024), regex(pattern = r"^/"))]
    pub path: Option<Box<str>>,
    /// A path below the rule's prefix, with all paths below it, by whole segments; / for all paths.
    #[schemars(length(max = 1024), regex(pattern = r"^/"))]
    pub path_prefix: Option<Box<str>>,
    /// A regular expression (RE2 syntax) for the whole path below the rule's prefix.
    #[schemars(length(min = 1, max = 1024))]
    pub path_regex: Option<Box<str>>,
    /// A gRPC method: package.Service/Method, package.Service/* for a whole service, */Method for a method of any
    /// service, or * for all. The rule matches every path, or this service.
    #[schemars(length(min = 1, max = 1024))]
    pub grpc: Option<Box<str>>,
    /// Conditions on header fields.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<FieldMatchSpec>,
    /// Conditions on decoded query parameters, of which the first of a name counts.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub query: Vec<FieldMatchSpec>,
}

/// A condition on a header field or a query parameter: exactly one of value, regex and present.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.value), has(self.regex), has(self.present)].exists_one(is, is)",
    "message": "write exactly one of value, regex and present",
}]))]
pub struct FieldMatchSpec {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: Box<str>,
    /// The exact value.
    #[schemars(length(max = 4096))]
    #[serde(default)]
    pub value: Option<Box<str>>,
    /// A regular expression (RE2 syntax) for the whole value.
    #[schemars(length(min = 1, max = 1024))]
    #[serde(default)]
    pub regex: Option<Box<str>>,
    /// true: with any value.
    #[schemars(extend("enum" = [true]))]
    #[serde(default)]
    pub present: Option<bool>,
}

//! The CustomResourceDefinitions of our own kinds, from the types that read them.
//!
//! Guarantees:
//! - Schemas are structural: an API server takes them, prunes unknown fields and applies defaults.
//! - What a schema cannot say is a rule in CEL beside the type that it is about. Lists and texts have bounds, so that
//!   the rules are within the cost limits of an API server.
//! - The definitions are the same on every call: no time, no version of the program.
//!
//! Leaves to others: the types (`objects`), printing (`cli`).

mod field_table;
mod structural;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

pub use self::field_table::field_table;

use self::structural::structural;
use super::objects::{ApiVersions, ClientAuthPolicySpec, CommandSetSpec, DepartmentSpec, GrantSpec, ObjectKind};

/// What a definition says beside its schema.
struct CrdTraits {
    kind: ObjectKind,
    spec: Value,
    short_names: &'static [&'static str],
    /// Columns of `kubectl get`: name, type, and path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// Rules about the object as a whole.
    rules: Value,
    status: Value,
    /// How a policy is attached (GEP-713); `None` for what is no policy.
    policy: Option<&'static str>,
}

const ACCEPTED: (&str, &str, &str) = ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status");
const PROGRAMMED: (&str, &str, &str) = ("Programmed", "string", ".status.conditions[?(@.type==\"Programmed\")].status");
const AGE: (&str, &str, &str) = ("Age", "date", ".metadata.creationTimestamp");

/// The definitions as YAML, one document for each kind.
///
/// # Errors
/// Never for these values: they are plain.
pub fn yaml_text() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = "# Printed by `tallygate crds`.\n".to_owned();
    for definition in definitions() {
        text.push_str("---\n");
        text.push_str(serde_saphyr::to_string(&definition)?.trim_start_matches("---\n"));
    }
    Ok(text)
}

/// The definitions of all our own kinds.
pub fn definitions() -> Vec<Value> {
    kinds().iter().map(definition).collect()
}

fn kinds() -> [CrdTraits; 4] {
    [
        CrdTraits {
            kind: ObjectKind::Department,
            spec: schema_of::<DepartmentSpec>(),
            short_names: &["dept"],
            columns: &[
                ("Name", "string", ".spec.displayName"),
                ("Rate", "string", ".spec.limits.rate"),
                ("Quota", "integer", ".spec.quota.units"),
                ("Disabled", "boolean", ".spec.disabled"),
                ACCEPTED,
                PROGRAMMED,
                AGE,
            ],
            rules: json!([{
                "rule": "has(self.spec.id) || (self.metadata.name.size() <= 63 && !self.metadata.name.contains('.') && \
                         !(self.metadata.name in ['ingress', 'other', 'unknown']))",
                "message": "this name cannot be an id: write spec.id, with at most 63 characters and without a dot; \
                            ingress, other and unknown are taken",
            }]),
            status: conditions_status(),
            policy: None,
        },
        CrdTraits {
            kind: ObjectKind::CommandSet,
            spec: schema_of::<CommandSetSpec>(),
            short_names: &["cmdset"],
            columns: &[("Others", "string", ".spec.otherCommands"), ACCEPTED, AGE],
            rules: json!([]),
            status: conditions_status(),
            policy: None,
        },
        CrdTraits {
            kind: ObjectKind::Grant,
            spec: schema_of::<GrantSpec>(),
            short_names: &["tgrant"],
            columns: &[
                ("Departments", "string", ".spec.departments"),
                ("Commands", "string", ".spec.commands"),
                ACCEPTED,
                PROGRAMMED,
                AGE,
            ],
            rules: json!([]),
            status: conditions_status(),
            policy: None,
        },
        CrdTraits {
            kind: ObjectKind::ClientAuthPolicy,
            spec: schema_of::<ClientAuthPolicySpec>(),
            short_names: &["clientauth"],
            columns: &[
                ("Mode", "string", ".spec.mode"),
                ("Accepted", "string", ".status.ancestors[*].conditions[?(@.type==\"Accepted\")].status"),
                AGE,
            ],
            rules: json!([]),
            status: ancestors_status(),
            policy: Some("Inherited"),
        },
    ]
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    structural(settings.into_generator().into_root_schema_for::<T>().into())
}

fn definition(of: &CrdTraits) -> Value {
    let ApiVersions { group, kind, plural, versions, namespaced } = of.kind.api();
    let mut metadata = json!({ "name": format!("{plural}.{group}") });
    if let Some(attachment) = of.policy {
        metadata["labels"] = json!({ "gateway.networking.k8s.io/policy": attachment });
    }
    let columns: Vec<Value> =
        of.columns.iter().map(|(name, kind, path)| json!({ "name": name, "type": kind, "jsonPath": path })).collect();
    let mut schema = json!({
        "type": "object",
        "description": of.spec["description"],
        "required": ["spec"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": of.spec,
            "status": of.status,
        },
    });
    if of.rules.as_array().is_some_and(|rules| !rules.is_empty()) {
        schema["x-kubernetes-validations"] = of.rules.clone();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group,
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_ascii_lowercase(),
                "shortNames": of.short_names,
                "categories": ["tallygate"],
            },
            "versions": [{
                "name": versions[0],
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": schema },
            }],
        },
    })
}

fn conditions_status() -> Value {
    json!({
        "type": "object",
        "description": "What has become of the object.",
        "properties": { "conditions": conditions_schema() },
    })
}

/// Conditions as all of Kubernetes has them.
fn conditions_schema() -> Value {
    let text = |max: u64| json!({ "type": "string", "maxLength": max });
    json!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": text(316),
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "minLength": 1, "maxLength": 1024 },
                "message": text(32_768),
                "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
            },
        },
    })
}

/// The status of a policy (GEP-713): an entry for each target and controller.
fn ancestors_status() -> Value {
    let name = |max: u64| json!({ "type": "string", "maxLength": max });
    json!({
        "type": "object",
        "description": "What has become of the policy, for each target.",
        "properties": {
            "ancestors": {
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["ancestorRef", "controllerName", "conditions"],
                    "properties": {
                        "ancestorRef": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "group": name(253),
                                "kind": name(63),
                                "namespace": name(63),
                                "name": name(253),
                                "sectionName": name(253),
                                "port": { "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 },
                            },
                        },
                        "controllerName": name(253),
                        "conditions": conditions_schema(),
                    },
                },
            },
        },
    })
}

#[cfg(test)]
mod tests;

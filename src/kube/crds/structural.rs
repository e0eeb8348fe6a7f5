//! From a JSON Schema of types to a structural schema of Kubernetes.
//!
//! Guarantees: the result has none of what an API server refuses in a structural schema: `$ref`, `null`, `anyOf` with
//! types, and `additionalProperties` beside `properties`.
//!
//! Leaves to others: bounds and rules, which stand at the types (`objects`).

use serde_json::{Map, Value, json};

/// Keys of JSON Schema that a structural schema has not.
const FOREIGN: [&str; 4] = ["$schema", "title", "nullable", "additionalProperties"];

/// Makes a schema structural.
pub(super) fn structural(schema: Value) -> Value {
    match schema {
        Value::Object(keys) => Value::Object(structural_keys(keys)),
        other => other,
    }
}

fn structural_keys(mut keys: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Array(choices)) = keys.remove("anyOf") {
        keys = merged_choice(keys, choices);
    }
    for foreign in FOREIGN {
        keys.remove(foreign);
    }
    // A missing value is a missing field, not null or an empty list.
    if keys.get("default").is_some_and(|default| default.is_null() || *default == json!([])) {
        keys.remove("default");
    }
    if keys.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        keys.insert("format".to_owned(), json!("int64"));
    }
    if let Some(Value::Array(choices)) = keys.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if let Some(Value::Object(properties)) = keys.get_mut("properties") {
        properties.values_mut().for_each(|property| *property = structural(property.take()));
    }
    if let Some(items) = keys.get_mut("items") {
        *items = structural(items.take());
    }
    if let Some(Value::String(text)) = keys.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    keys
}

/// A value that may be missing is `anyOf` the value and null: the value, with what is said about the field.
fn merged_choice(outer: Map<String, Value>, choices: Vec<Value>) -> Map<String, Value> {
    let is_null = |choice: &Value| {
        choice["type"] == "null" || choice["enum"] == json!([null]) || choice.get("const").is_some_and(Value::is_null)
    };
    let inner = choices.into_iter().find(|choice| !is_null(choice));
    let Some(Value::Object(mut merged)) = inner else { return outer };
    merged.extend(outer);
    merged
}

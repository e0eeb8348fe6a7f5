//! The fields of our own kinds as Markdown, for docs/kubernetes-resources.md.
//!
//! Guarantees: every field of a specification has a row, with its type, its default, its bounds and its comment.
//!
//! Leaves to others: the text around the tables.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The tables of all kinds, each with a heading.
pub fn field_table() -> String {
    let mut text = String::new();
    for definition in super::definitions() {
        let spec = &definition["spec"];
        let version = &spec["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let (kind, scope) = (word(&spec["names"]["kind"]), word(&spec["scope"]).to_ascii_lowercase());
        let short = word(&spec["names"]["shortNames"][0]);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "### {kind}\n\n{}\n", word(&schema["description"]));
        let _ =
            writeln!(text, "`{}/{}`, {scope}, short name `{short}`.\n", word(&spec["group"]), word(&version["name"]));
        text.push_str("| field of `spec` | type | meaning |\n|---|---|---|\n");
        add_rows(&mut text, "", schema);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn add_rows(text: &mut String, path: &str, schema: &Value) {
    let none = Map::new();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().map(word).collect();
    for (name, field) in schema["properties"].as_object().unwrap_or(&none) {
        let is_list = field["type"] == "array";
        let place = format!("{path}{name}{}", if is_list { "[]" } else { "" });
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let meaning = cell(word(&field["description"]));
        let _ = writeln!(text, "| `{place}` | {}{needed} | {meaning} |", type_text(field));
        add_rows(text, &format!("{place}."), if is_list { &field["items"] } else { field });
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The type with its bounds and its default.
fn type_text(field: &Value) -> String {
    let mut parts = Vec::new();
    match (&field["enum"], word(&field["type"])) {
        (Value::Array(choices), _) if choices.iter().all(|choice| choice != "") => {
            let quoted = choices.iter().map(|choice| format!("`{}`", choice.to_string().trim_matches('"')));
            parts.push(quoted.collect::<Vec<_>>().join(" or "));
        }
        (_, "array") => parts.push(format!("list of {}", noun(word(&field["items"]["type"])))),
        (_, other) => parts.push(noun(other).to_owned()),
    }
    if let Some(max) = field["maxItems"].as_u64() {
        parts.push(format!("at most {max}"));
    }
    if let Some(default) = field.get("default").filter(|default| **default != "") {
        parts.push(format!("default `{}`", default.to_string().trim_matches('"')));
    }
    parts.join(", ")
}

fn noun(kind: &str) -> &str {
    match kind {
        "object" => "object",
        "integer" => "number",
        "boolean" => "true or false",
        _ => "text",
    }
}

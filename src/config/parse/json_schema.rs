//! The JSON Schema of a configuration, generated from the document's types, and the hints for misspelt keys.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::config::document::ConfigDocument;

/// The JSON Schema (draft 2020-12) of a configuration file, identical to `docs/config.schema.json`.
pub fn json_schema() -> Value {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<ConfigDocument>()
        .into()
}

/// The allowed keys of the object at `path`, a list of keys without the positions in lists.
pub(crate) fn known_keys(schema: &Value, path: &[String]) -> Vec<String> {
    let mut here = Some(schema);
    for key in path {
        here = here.and_then(schema_object).and_then(|properties| properties.get(key));
    }
    here.and_then(schema_object).map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// The properties of an object, of the items of a list, or of the part of an optional value that is not null.
fn schema_object(schema: &Value) -> Option<&serde_json::Map<String, Value>> {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        return Some(properties);
    }
    if let Some(items) = schema.get("items") {
        return schema_object(items);
    }
    schema.get("anyOf")?.as_array()?.iter().find_map(schema_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_schema_equals_that_of_the_types() {
        let published = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.schema.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&json_schema()).expect("a schema is plain JSON"));
        if std::env::var_os("TALLYGATE_WRITE_SCHEMA").is_some() {
            std::fs::write(published, &text).expect("docs/ can be written");
        }
        let current = std::fs::read_to_string(published).unwrap_or_default();
        assert!(
            current == text,
            "docs/config.schema.json is not current; run this test once with TALLYGATE_WRITE_SCHEMA=1"
        );
    }

    #[test]
    fn keys_are_found_through_lists_and_options() {
        let path = ["departments", "limits"].map(str::to_owned);
        let schema = json_schema();
        assert_eq!(known_keys(&schema, &path), ["burst", "concurrent", "rate"]);
        assert!(known_keys(&schema, &[]).contains(&"subsystems".to_owned()));
        assert!(known_keys(&schema, &["nowhere".to_owned()]).is_empty());
    }
}

//! The JSON Schema of a configuration, made from the document's types, and the hints it gives for misspelt keys.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::document::Document;

/// The JSON Schema (draft 2020-12) of a configuration file; `docs/config.schema.json` holds the same.
pub fn schema() -> Value {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Document>()
        .into()
}

/// The keys that may stand in the object at `path`, a list of keys in which list positions are left out.
pub(super) fn keys_in(schema: &Value, path: &[String]) -> Vec<String> {
    let mut here = Some(schema);
    for key in path {
        here = here.and_then(object_of).and_then(|properties| properties.get(key));
    }
    here.and_then(object_of).map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// The properties of an object, of the items of a list, or of the part of an optional value that is not null.
fn object_of(schema: &Value) -> Option<&serde_json::Map<String, Value>> {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        return Some(properties);
    }
    if let Some(items) = schema.get("items") {
        return object_of(items);
    }
    schema.get("anyOf")?.as_array()?.iter().find_map(object_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let published = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.schema.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&schema()).expect("a schema is plain JSON"));
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
        let schema = schema();
        assert_eq!(keys_in(&schema, &path), ["burst", "concurrent", "rate"]);
        assert!(keys_in(&schema, &[]).contains(&"subsystems".to_owned()));
        assert!(keys_in(&schema, &["nowhere".to_owned()]).is_empty());
    }
}

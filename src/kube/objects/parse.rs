//! From the JSON of an object to its type.
//!
//! Guarantees:
//! - An error has the path of the field from the root of the object: `spec.rules[0].matches[1].path.value`.
//! - `null` is a missing field.
//! - The text of an error is bounded and holds no value of a Secret.
//!
//! Leaves to others:
//! - the metadata: `index`.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kind::ObjectKind;

/// The longest text of an error, in bytes.
const WHY_BYTES_MAX: usize = 300;

/// The part of an object that a type describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectPart {
    /// The field `spec`.
    Spec,
    /// The whole object.
    Whole,
}

/// A type that can be read from an object.
pub trait KubeObject: DeserializeOwned + PartialEq + fmt::Debug {
    /// The kind of the object.
    const KIND: ObjectKind;
    /// The part of the object that the type describes.
    const PART: ObjectPart;

    /// Checks what the type alone cannot say, and drops what is not needed.
    ///
    /// # Errors
    ///
    /// The place of the fault.
    fn finish(&mut self) -> Result<(), ObjectFault> {
        Ok(())
    }
}

/// Why an object could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectFault {
    /// The path of the field from the root of the object.
    pub path: String,
    /// What was expected, and what is there.
    pub why: String,
}

impl fmt::Display for ObjectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

/// Reads the part of `object` that `T` describes.
///
/// # Errors
///
/// The path of the first field that has another form than the API says.
pub(crate) fn parse_object<T: KubeObject>(mut object: Value) -> Result<T, ObjectFault> {
    let (mut part, prefix) = match T::PART {
        ObjectPart::Whole => (object, ""),
        ObjectPart::Spec => (object.get_mut("spec").map(Value::take).unwrap_or_default(), "spec"),
    };
    if part.is_null() {
        part = Value::Object(serde_json::Map::new());
    }
    let part = without_nulls(part);
    let mut parsed: T = serde_path_to_error::deserialize(part).map_err(|error| fault(prefix, &error))?;
    parsed.finish()?;
    Ok(parsed)
}

/// Removes fields that are `null`: Kubernetes writes `null` for a list that is empty.
pub(crate) fn without_nulls(mut value: Value) -> Value {
    drop_nulls(&mut value);
    value
}

/// The depth is bounded: the parser of JSON refuses more than 128 levels.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn fault(prefix: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> ObjectFault {
    let path = error.path().to_string();
    let path = match (prefix, path.as_str()) {
        ("", ".") => "the object".to_owned(),
        ("", _) => path,
        (_, ".") => prefix.to_owned(),
        _ => format!("{prefix}.{path}"),
    };
    ObjectFault { path, why: bounded(error.inner().to_string()) }
}

fn bounded(mut why: String) -> String {
    let end = why.floor_char_boundary(WHY_BYTES_MAX);
    if end < why.len() {
        why.truncate(end);
        why.push_str("...");
    }
    why
}

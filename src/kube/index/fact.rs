//! What is known about one object.
//!
//! Guarantees:
//! - The metadata of a malformed object is there, so that its condition can be written.
//! - The shown status is kept as compact text: a tenth of the memory of parsed JSON.
//!
//! Leaves to others:
//! - the comparison of wanted and shown status: `status`.

use serde_json::Value;

use crate::kube::objects::{KubeObject, Metadata, ObjectFault, parse_object, without_nulls};

/// One object: what it says, or why that could not be read.
#[derive(Clone, Debug)]
pub struct Fact<T> {
    /// The metadata.
    pub meta: Metadata,
    /// The specification, or the place of its fault.
    pub parsed: Result<T, ObjectFault>,
    /// The status as the server last showed it; missing for kinds whose status we do not write.
    pub shown: ShownStatus,
}

/// The status of an object as the server last showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownStatus(Option<Box<str>>);

impl ShownStatus {
    /// Keeps a status. `null` and a missing status are the same.
    pub fn new(status: &Value) -> Self {
        Self((!status.is_null()).then(|| status.to_string().into_boxed_str()))
    }

    /// The status as JSON; `null` if the object has none.
    pub fn parsed(&self) -> Value {
        self.0.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

impl<T: KubeObject> Fact<T> {
    /// Whether a translation would see no difference.
    pub(in crate::kube) fn means_the_same(&self, other: &Self) -> bool {
        self.meta.means_the_same(&other.meta) && self.parsed == other.parsed
    }

    /// Reads an object. Returns `None` if it has no name.
    pub(super) fn read(mut object: Value) -> Option<Self> {
        let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_default();
        let status = if T::KIND.has_status() { object.get("status") } else { None };
        let shown = status.map(ShownStatus::new).unwrap_or_default();
        let (mut meta, fault) = read_metadata(metadata)?;
        meta.reduce(T::KIND.keeps_annotations());
        let parsed = fault.map_or_else(|| parse_object(object), Err);
        Some(Self { meta, parsed, shown })
    }

    /// The specification, if it could be read.
    pub fn valid(&self) -> Option<&T> {
        self.parsed.as_ref().ok()
    }

    /// Whether the server shows the same: then a write that was based on the other is based on this one too.
    pub(super) fn shows_the_same(&self, other: &Self) -> bool {
        self.shown == other.shown && self.meta.resource_version == other.meta.resource_version
    }
}

/// Reads the metadata. Of malformed metadata the name is kept, if there is one.
fn read_metadata(metadata: Value) -> Option<(Metadata, Option<ObjectFault>)> {
    let metadata = without_nulls(metadata);
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default().into();
    let least = Metadata { namespace: text("namespace"), name: text("name"), ..Metadata::default() };
    let (meta, fault) = match serde_path_to_error::deserialize(&metadata) {
        Ok(meta) => (meta, None),
        Err(error) => {
            let path = format!("metadata.{}", error.path());
            (least, Some(ObjectFault { path, why: error.inner().to_string() }))
        }
    };
    (!meta.name.is_empty()).then_some((meta, fault))
}

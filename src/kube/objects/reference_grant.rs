//! ReferenceGrant: which objects of other namespaces may refer to objects of this one.
//!
//! Guarantees: as the room says.
//!
//! Leaves to others: asking for each reference: `translate`.

use serde::Deserialize;

use super::kind::ObjectKind;
use super::parse::{KubeObject, ObjectPart};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReferenceGrant {
    pub from: Vec<GrantFrom>,
    pub to: Vec<GrantTo>,
}

impl KubeObject for ReferenceGrant {
    const KIND: ObjectKind = ObjectKind::ReferenceGrant;
    const PART: ObjectPart = ObjectPart::Spec;
}

impl ReferenceGrant {
    /// Whether this grant permits a reference of `from` to an object of `group` and `kind` with `name`.
    pub fn permits(&self, from: &GrantFrom, (group, kind, name): (&str, &str, &str)) -> bool {
        let to = |to: &GrantTo| {
            &*to.group == group && &*to.kind == kind && to.name.as_deref().is_none_or(|named| named == name)
        };
        self.from.contains(from) && self.to.iter().any(to)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GrantFrom {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    pub namespace: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct GrantTo {
    #[serde(default)]
    pub group: Box<str>,
    pub kind: Box<str>,
    /// Missing: all objects of this kind.
    #[serde(default)]
    pub name: Option<Box<str>>,
}

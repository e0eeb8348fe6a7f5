//! Selection of objects by their labels.
//!
//! Guarantees:
//! - The rules are those of the API: all conditions hold; no condition selects everything; an unknown operator selects
//!   nothing.
//!
//! Leaves to others:
//! - whose labels: the caller.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A choice by labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must have these values.
    pub match_labels: BTreeMap<Box<str>, Box<str>>,
    /// Further conditions.
    pub match_expressions: Vec<LabelExpression>,
}

/// A condition on one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelExpression {
    /// The label.
    pub key: Box<str>,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Box<str>,
    /// Values for `In` and `NotIn`.
    pub values: Vec<Box<str>>,
}

impl LabelSelector {
    /// Whether `labels` fulfil all conditions.
    pub fn matches(&self, labels: &BTreeMap<Box<str>, Box<str>>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.matches(labels))
    }
}

impl LabelExpression {
    fn matches(&self, labels: &BTreeMap<Box<str>, Box<str>>) -> bool {
        let value = labels.get(&self.key);
        match &*self.operator {
            "In" => value.is_some_and(|value| self.values.contains(value)),
            "NotIn" => value.is_none_or(|value| !self.values.contains(value)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    }
}

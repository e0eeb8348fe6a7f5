//! Annotations as they are read, and what becomes of each.
//!
//! Guarantees: an annotation has one finding. One that refuses the Ingress replaces another one.
//!
//! Leaves to others: the meaning of each annotation.

use std::collections::BTreeMap;

use super::values::parse_switch;

/// The prefix of the annotations.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// The annotations of an Ingress, by their whole names.
pub type AnnotationMap = BTreeMap<Box<str>, Box<str>>;

/// What becomes of an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingVerdict {
    /// It has the same effect.
    Taken,
    /// It has an effect, but not quite the same one.
    Differs,
    /// It has no effect, or the Ingress is refused because of it.
    Lost,
}

impl FindingVerdict {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Differs => "differs",
            Self::Lost => "lost",
        }
    }
}

/// The sentence about an annotation of which nothing is known begins so.
pub(super) const UNKNOWN_ANNOTATION: &str = "this annotation is unknown";

/// What becomes of one annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NginxFinding {
    /// Its name, without the prefix.
    pub annotation: String,
    /// Its value as written.
    pub value: String,
    /// What becomes of it.
    pub verdict: FindingVerdict,
    /// Whether the Ingress is refused because of it.
    pub refuses: bool,
    /// How and why, in one sentence.
    pub sentence: String,
}

/// How many annotations there are, by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnotationCounts {
    /// The same effect.
    pub taken: u64,
    /// A similar effect.
    pub differs: u64,
    /// Known, and without an effect.
    pub lost: u64,
    /// Not known.
    pub unknown: u64,
}

impl AnnotationCounts {
    /// Counts findings.
    pub(in crate::kube::translate) fn of(findings: &[NginxFinding]) -> Self {
        let mut counts = Self::default();
        for finding in findings {
            *match finding.verdict {
                _ if finding.is_unknown() => &mut counts.unknown,
                FindingVerdict::Taken => &mut counts.taken,
                FindingVerdict::Differs => &mut counts.differs,
                FindingVerdict::Lost => &mut counts.lost,
            } += 1;
        }
        counts
    }

    /// Adds other counts.
    pub(crate) fn add(&mut self, other: Self) {
        self.taken += other.taken;
        self.differs += other.differs;
        self.lost += other.lost;
        self.unknown += other.unknown;
    }
}

impl NginxFinding {
    /// Whether nothing is known about the annotation.
    fn is_unknown(&self) -> bool {
        self.sentence.starts_with(UNKNOWN_ANNOTATION)
    }
}

/// Reads annotations and notes what becomes of them.
pub(super) struct AnnotationReader<'a> {
    pub(super) namespace: &'a str,
    pub(super) annotations: &'a AnnotationMap,
    pub(super) findings: Vec<NginxFinding>,
}

impl<'a> AnnotationReader<'a> {
    /// The value of an annotation, without spaces around it; `None` if it is missing.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.annotations.get(format!("{PREFIX}{name}").as_str()).map(|value| value.trim())
    }

    /// A switch. What is neither on nor off has no effect, as in ingress-nginx.
    pub(super) fn switch(&mut self, name: &str) -> Option<bool> {
        let value = self.value(name)?;
        let read = parse_switch(value);
        if read.is_none() {
            self.lost(name, "the value is neither true nor false; ingress-nginx ignores it as well");
        }
        read
    }

    /// A value that `parse` reads. Another one has no effect, as in ingress-nginx.
    pub(super) fn parsed<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let read = parse(self.value(name)?);
        if read.is_none() {
            self.lost(name, &format!("the value is not {expected}"));
        }
        read
    }

    /// The name of an object that is written as `name` or `namespace/name`. Objects of other namespaces are refused.
    pub(super) fn own_object(&mut self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        let (namespace, object) = value.split_once('/').unwrap_or((self.namespace, value));
        if namespace != self.namespace || object.is_empty() || object.contains('/') {
            self.refused(name, "the object has to be in the namespace of the Ingress, written as NAMESPACE/NAME");
            return None;
        }
        Some(object.to_owned())
    }

    pub(super) fn taken(&mut self, name: &str, sentence: &str) {
        self.note(name, FindingVerdict::Taken, false, sentence.to_owned());
    }

    pub(super) fn differs(&mut self, name: &str, sentence: &str) {
        self.note(name, FindingVerdict::Differs, false, sentence.to_owned());
    }

    pub(super) fn lost(&mut self, name: &str, sentence: &str) {
        self.note(name, FindingVerdict::Lost, false, sentence.to_owned());
    }

    /// Lost, and the Ingress is refused.
    pub(super) fn refused(&mut self, name: &str, sentence: &str) {
        self.note(name, FindingVerdict::Lost, true, format!("{sentence}; the Ingress is refused"));
    }

    /// Notes what becomes of an annotation that is there. The first finding stays, unless the later one refuses.
    fn note(&mut self, name: &str, verdict: FindingVerdict, refuses: bool, sentence: String) {
        let Some(value) = self.annotations.get(format!("{PREFIX}{name}").as_str()) else { return };
        let known = self.findings.iter().position(|finding| finding.annotation == name);
        let annotation = name.to_owned();
        let finding = NginxFinding { annotation, value: value.to_string(), verdict, refuses, sentence };
        match known {
            Some(known) if refuses => self.findings[known] = finding,
            Some(_) => {}
            None => self.findings.push(finding),
        }
    }
}

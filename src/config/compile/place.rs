//! Where we are in the document, and what was found there.

use std::cell::RefCell;
use std::fmt::Display;

use crate::config::problem::Problem;
use crate::model::Name;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(RefCell<Vec<Problem>>);

/// A place in the document.
#[derive(Debug)]
pub(super) struct Place<'a> {
    findings: &'a Findings,
    path: String,
}

impl Findings {
    /// The document as a whole.
    pub(super) fn root(&self) -> Place<'_> {
        Place { findings: self, path: String::new() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

impl<'a> Place<'a> {
    /// The value of a key here.
    pub(super) fn key(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { findings: self.findings, path: format!("{}{dot}{key}", self.path) }
    }

    /// An item of the list here.
    pub(super) fn item(&self, index: usize) -> Self {
        Self { findings: self.findings, path: format!("{}[{index}]", self.path) }
    }

    /// Notes a problem here.
    pub(super) fn problem(&self, message: impl Display) {
        self.note(message.to_string(), None);
    }

    /// Notes a problem here, with what to do about it.
    pub(super) fn problem_with_hint(&self, message: impl Display, hint: impl Display) {
        self.note(message.to_string(), Some(hint.to_string()));
    }

    /// Notes that something is missing here, and gives nothing.
    pub(super) fn absent<T>(&self, message: impl Display) -> Option<T> {
        self.problem(message);
        None
    }

    /// What was read here, or a noted problem.
    pub(super) fn read<T, E: Display>(&self, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.problem(error)).ok()
    }

    /// A name that the house does not use itself.
    pub(super) fn name(&self, text: &str) -> Name {
        let Some(name) = self.read(Name::parse(text)) else { return Name::unknown() };
        if name.is_reserved() {
            self.problem_with_hint(format!("{text:?} is a name that Tallygate itself uses"), "choose another");
        }
        name
    }

    fn note(&self, message: String, hint: Option<String>) {
        self.findings.0.borrow_mut().push(Problem { path: self.path.clone(), message, hint });
    }
}

//! Where we are in the document, and what was found there.

use std::cell::{Cell, RefCell};
use std::fmt::Display;

use crate::config::problem::{PROBLEMS_MAX, Problem, Reference};
use crate::model::Name;

/// Problems up to which a misspelt name is compared with all that there are: with 30,000 departments that takes milliseconds.
const COMPARED_MAX: usize = 50;

/// The problems found so far: at most [`PROBLEMS_MAX`], and how many there were.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: RefCell<Vec<Problem>>,
    count: Cell<usize>,
}

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
        let mut problems = self.problems.into_inner();
        let beyond = self.count.get() - problems.len();
        if beyond > 0 {
            problems.push(Problem::new("", format!("{beyond} more problems are not listed")));
        }
        problems
    }

    fn add(&self, problem: Problem) {
        self.count.set(self.count.get() + 1);
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        }
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

    /// Notes a problem that this place has with another one.
    pub(super) fn problem_beside(&self, message: impl Display, other: &Self) {
        let also = Some(Reference { path: other.path.clone(), site: None });
        self.findings.add(Problem { also, ..Problem::new(self.path.clone(), message.to_string()) });
    }

    /// Whether there are still so few problems that looking for a similar name is worth its time.
    pub(super) fn may_compare(&self) -> bool {
        self.findings.count.get() < COMPARED_MAX
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
        self.findings.add(Problem { hint, ..Problem::new(self.path.clone(), message) });
    }
}

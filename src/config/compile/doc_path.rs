//! Where we are in the document, and what was found there.

use std::cell::{Cell, RefCell};
use std::fmt::Display;

use crate::config::parse::problem::{ConfigProblem, PROBLEMS_MAX, RelatedPath};
use crate::model::Name;

/// Problems up to which a misspelt name is compared with all that there are: with 30,000 departments that takes milliseconds.
const COMPARED_PROBLEMS_MAX: usize = 50;

/// The problems found so far: at most [`PROBLEMS_MAX`], and how many there were.
#[derive(Debug, Default)]
pub(crate) struct ProblemList {
    problems: RefCell<Vec<ConfigProblem>>,
    count: Cell<usize>,
}

/// A place in the document.
#[derive(Debug)]
pub(crate) struct DocPath<'a> {
    findings: &'a ProblemList,
    path: String,
}

impl ProblemList {
    /// The document as a whole.
    pub(crate) fn root(&self) -> DocPath<'_> {
        DocPath { findings: self, path: String::new() }
    }

    pub(crate) fn into_problems(self) -> Vec<ConfigProblem> {
        let mut problems = self.problems.into_inner();
        let beyond = self.count.get() - problems.len();
        if beyond > 0 {
            problems.push(ConfigProblem::new("", format!("{beyond} more problems are not listed")));
        }
        problems
    }

    fn add_problem(&self, problem: ConfigProblem) {
        self.count.set(self.count.get() + 1);
        let mut problems = self.problems.borrow_mut();
        if problems.len() < PROBLEMS_MAX {
            problems.push(problem);
        }
    }
}

impl<'a> DocPath<'a> {
    /// The value of a key here.
    pub(crate) fn key(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { findings: self.findings, path: format!("{}{dot}{key}", self.path) }
    }

    /// An item of the list here.
    pub(crate) fn item(&self, index: usize) -> Self {
        Self { findings: self.findings, path: format!("{}[{index}]", self.path) }
    }

    /// Notes a problem here.
    pub(crate) fn problem(&self, message: impl Display) {
        self.add_problem(message.to_string(), None);
    }

    /// Notes a problem here, with what to do about it.
    pub(crate) fn problem_with_hint(&self, message: impl Display, hint: impl Display) {
        self.add_problem(message.to_string(), Some(hint.to_string()));
    }

    /// Notes a problem that this place has with another one.
    pub(crate) fn problem_beside(&self, message: impl Display, other: &Self) {
        let also = Some(RelatedPath { path: other.path.clone(), site: None });
        self.findings.add_problem(ConfigProblem { also, ..ConfigProblem::new(self.path.clone(), message.to_string()) });
    }

    /// Whether there are still so few problems that looking for a similar name is worth its time.
    pub(crate) fn may_compare(&self) -> bool {
        self.findings.count.get() < COMPARED_PROBLEMS_MAX
    }

    /// Notes that something is missing here, and gives nothing.
    pub(crate) fn missing<T>(&self, message: impl Display) -> Option<T> {
        self.problem(message);
        None
    }

    /// What was read here, or a noted problem.
    pub(crate) fn value_or_problem<T, E: Display>(&self, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.problem(error)).ok()
    }

    /// A name that the house does not use itself.
    pub(crate) fn parse_name(&self, text: &str) -> Name {
        let Some(name) = self.value_or_problem(Name::parse(text)) else { return Name::unknown() };
        if name.is_reserved() {
            self.problem_with_hint(format!("{text:?} is a name that Tallygate itself uses"), "choose another");
        }
        name
    }

    fn add_problem(&self, message: String, hint: Option<String>) {
        self.findings.add_problem(ConfigProblem { hint, ..ConfigProblem::new(self.path.clone(), message) });
    }
}

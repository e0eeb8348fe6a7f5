//! A path in the document, and the list of problems found there.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Display, Formatter};

use crate::config::parse::problem::{ConfigProblem, PROBLEMS_MAX, RelatedPath};
use crate::model::Name;

/// The number of problems up to which a misspelt name is compared with all known names. With 30,000 departments one
/// comparison takes milliseconds.
const COMPARED_PROBLEMS_MAX: usize = 50;

/// The problems found so far: at most [`PROBLEMS_MAX`] are kept, with a count of all.
#[derive(Debug, Default)]
pub(crate) struct ProblemList {
    problems: RefCell<Vec<ConfigProblem>>,
    count: Cell<usize>,
}

/// A path in the document.
#[derive(Debug)]
pub(crate) struct DocPath<'a> {
    findings: &'a ProblemList,
    path: String,
}

impl ProblemList {
    /// The path of the whole document.
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

impl Display for DocPath<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl<'a> DocPath<'a> {
    /// The path of a key below this path.
    pub(crate) fn key(&self, key: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { findings: self.findings, path: format!("{}{dot}{key}", self.path) }
    }

    /// The path of a list item below this path.
    pub(crate) fn item(&self, index: usize) -> Self {
        Self { findings: self.findings, path: format!("{}[{index}]", self.path) }
    }

    /// Records a problem at this path.
    pub(crate) fn problem(&self, message: impl Display) {
        self.add_problem(message.to_string(), None);
    }

    /// Records a problem at this path, with a hint how to solve it.
    pub(crate) fn problem_with_hint(&self, message: impl Display, hint: impl Display) {
        self.add_problem(message.to_string(), Some(hint.to_string()));
    }

    /// Records a conflict between this path and another one.
    pub(crate) fn problem_beside(&self, message: impl Display, other: &Self) {
        let also = Some(RelatedPath { path: other.path.clone(), site: None });
        self.findings.add_problem(ConfigProblem { also, ..ConfigProblem::new(self.path.clone(), message.to_string()) });
    }

    /// Whether the number of problems is low enough to afford a search for similar names.
    pub(crate) fn may_compare(&self) -> bool {
        self.findings.count.get() < COMPARED_PROBLEMS_MAX
    }

    /// Records that something is missing at this path; returns `None`.
    pub(crate) fn missing<T>(&self, message: impl Display) -> Option<T> {
        self.problem(message);
        None
    }

    /// Returns the parsed value, or records the error as a problem.
    pub(crate) fn value_or_problem<T, E: Display>(&self, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.problem(error)).ok()
    }

    /// Parses a name that is not reserved by the gateway.
    pub(crate) fn parse_name(&self, text: &str) -> Name {
        let Some(name) = self.value_or_problem(Name::parse(text)) else { return Name::unknown() };
        if name.is_reserved() {
            self.problem_with_hint(format!("{text:?} is reserved for Tallygate"), "choose another");
        }
        name
    }

    fn add_problem(&self, message: String, hint: Option<String>) {
        self.findings.add_problem(ConfigProblem { hint, ..ConfigProblem::new(self.path.clone(), message) });
    }
}

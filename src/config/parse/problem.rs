//! The problems of a configuration: all of one run, each with file, line, path and a hint.

use std::fmt;

/// The most problems that are listed; the number of further problems is given. A file of the wrong kind can have one
/// problem per line.
pub(crate) const PROBLEMS_MAX: usize = 1000;

/// One problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConfigProblem {
    /// The path in its file: `departments[3].limits.rate`; empty for the file as a whole.
    pub path: String,
    /// The value found and the value expected.
    pub message: String,
    /// The advice how to correct the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// File, line and id; `None` for a problem that was not read from a file.
    #[serde(flatten)]
    pub site: Option<ProblemSite>,
    /// The other place that the message refers to, such as the first use of an id that two departments have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub also: Option<RelatedPath>,
}

/// The place where a path is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ProblemSite {
    /// The file as it was opened; empty for a text without a file.
    pub file: String,
    /// The line, from 1; `None` for the file as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The id of the department, subsystem or command at that place: `fire`, `cameras`, `cameras/snapshot.read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The path with ids beside the positions: `departments[3] (fire).limits.rate`.
    #[serde(skip)]
    pub(crate) shown: String,
}

/// A second place in the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct RelatedPath {
    /// The path in its file.
    pub path: String,
    /// File, line and id.
    #[serde(flatten)]
    pub site: Option<ProblemSite>,
}

impl ConfigProblem {
    /// A problem at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), ..Self::default() }
    }

    /// Adds the advice how to correct the problem.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = location_text(&self.path, self.site.as_ref());
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        match &self.also {
            Some(other) => write!(f, "; see also {}", related_location(other)),
            None => Ok(()),
        }
    }
}

fn related_location(other: &RelatedPath) -> String {
    location_text(&other.path, other.site.as_ref())
}

/// `FILE:LINE: PATH`, as far as known.
fn location_text(path: &str, site: Option<&ProblemSite>) -> String {
    let Some(site) = site.filter(|site| !site.file.is_empty()) else { return path.to_owned() };
    let line = site.line.map(|line| format!(":{line}")).unwrap_or_default();
    let shown = if site.shown.is_empty() { path } else { &site.shown };
    let colon = if shown.is_empty() { "" } else { ": " };
    format!("{}{line}{colon}{shown}", site.file)
}

/// All problems of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigProblems(pub Vec<ConfigProblem>);

impl ConfigProblems {
    /// One problem of the configuration as a whole.
    pub fn of_whole_file(message: impl Into<String>) -> Self {
        Self(vec![ConfigProblem::new("", message)])
    }

    /// At most [`PROBLEMS_MAX`] problems; one more gives the number of the others.
    pub(crate) fn limited(mut problems: Vec<ConfigProblem>) -> Self {
        let beyond = problems.len().saturating_sub(PROBLEMS_MAX);
        if beyond > 0 {
            problems.truncate(PROBLEMS_MAX);
            problems.push(ConfigProblem::new("", format!("{beyond} more problems are not listed")));
        }
        Self(problems)
    }
}

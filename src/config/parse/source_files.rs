//! The files of a configuration, and the mapping from list items to files.
//!
//! While a configuration is compiled, the lists of all files form one list, and positions count across all files.
//! Messages count positions within one file. [`SourceFiles::file_and_path`] converts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::config::document::ListCounts;

use super::line_locator::LocatedPaths;
use super::problem::{ConfigProblem, ProblemSite};
use super::syntax_errors::position_suffix;

/// The lists that may be spread over several files.
const SPREAD_LISTS: [&str; 5] = ["listeners", "departments", "subsystems", "backends", "grants"];
const LISTENERS_LIST: usize = 0;
const SUBSYSTEMS_LIST: usize = 2;
const BACKENDS_LIST: usize = 3;

/// The files of a configuration, with the positions of their items in the combined lists.
#[derive(Clone, Debug, Default)]
pub struct SourceFiles {
    pages: Vec<FilePage>,
}

/// Files that follow each other.
#[derive(Clone, Debug)]
struct FilePage {
    files: Arc<[SourceFile]>,
    /// The number of files before it.
    first: usize,
    /// The position of its first item in each combined list.
    starts: ListCounts,
}

/// A file of a page.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: Arc<Path>,
    /// The position of its first item in each list of the page.
    pub(crate) starts: ListCounts,
}

impl SourceFiles {
    /// The main file alone. It has every item that belongs to no other file.
    pub(crate) fn new(path: &Path) -> Self {
        let mut files = Self::default();
        let main = SourceFile { path: path.into(), starts: ListCounts::default() };
        files.add_page([main].into(), ListCounts::default());
        files
    }

    /// Adds files whose items follow `starts` items of earlier files.
    pub(crate) fn add_page(&mut self, files: Arc<[SourceFile]>, starts: ListCounts) {
        if !files.is_empty() {
            let first = self.pages.last().map_or(0, |page| page.first + page.files.len());
            self.pages.push(FilePage { files, first, starts });
        }
    }

    fn file(&self, position: usize) -> Option<&SourceFile> {
        let page = self.pages.partition_point(|page| page.first <= position).checked_sub(1)?;
        self.pages[page].files.get(position - self.pages[page].first)
    }

    /// The path of the main file.
    pub(crate) fn main_file(&self) -> &Path {
        self.file(0).map_or(Path::new(""), |file| &file.path)
    }

    /// The folder of the main file.
    pub(crate) fn folder(&self) -> &Path {
        self.file(0).map_or(Path::new(""), SourceFile::folder)
    }

    /// The folder of the file that contains a listener.
    pub(crate) fn folder_of_listener(&self, position: usize) -> &Path {
        self.folder_of_item(LISTENERS_LIST, position)
    }

    /// The folder of the file that contains a subsystem.
    pub(crate) fn folder_of_subsystem(&self, position: usize) -> &Path {
        self.folder_of_item(SUBSYSTEMS_LIST, position)
    }

    fn folder_of_item(&self, list: usize, position: usize) -> &Path {
        self.file(self.file_of_item(list, position).0).map_or(Path::new(""), SourceFile::folder)
    }

    /// The position of the file of a path; 0 for the main file.
    pub(crate) fn file_of_path(&self, path: &str) -> usize {
        self.file_and_path(path).0
    }

    /// The folder of the file that contains a backend.
    pub(crate) fn folder_of_backend(&self, position: usize) -> &Path {
        self.folder_of_item(BACKENDS_LIST, position)
    }

    /// The path within its file, with the file's name if it is not the main file: `fire.yaml: grants[0]`.
    pub fn path_in_file(&self, path: &str) -> String {
        match self.file_and_path(path) {
            (0, path) => path,
            (file, path) => {
                format!("{}: {path}", self.file(file).map_or(Path::new(""), |file| &file.path).display())
            }
        }
    }

    /// The file of a path, and the path within it.
    fn file_and_path(&self, path: &str) -> (usize, String) {
        let whole = || (0, path.to_owned());
        let Some((list, rest)) = path.split_once('[') else { return whole() };
        let Some(list) = SPREAD_LISTS.iter().position(|known| *known == list) else { return whole() };
        let Some((position, below)) = rest.split_once(']') else { return whole() };
        let Ok(position) = position.parse::<usize>() else { return whole() };
        let (holder, start) = self.file_of_item(list, position);
        (holder, format!("{}[{}]{below}", SPREAD_LISTS[list], position - start))
    }

    /// The last file whose items begin at or before this position, and the position where they begin.
    fn file_of_item(&self, list: usize, position: usize) -> (usize, usize) {
        let after = self.pages.partition_point(|page| page.starts[list] <= position);
        let Some(page) = after.checked_sub(1).map(|page| &self.pages[page]) else { return (0, 0) };
        let start = |file: &SourceFile| page.starts[list] + file.starts[list];
        let last = page.files.partition_point(|file| start(file) <= position).saturating_sub(1);
        (page.first + last, start(&page.files[last]))
    }

    /// Adds file, line and ids to each problem. `texts` are the texts of the files, in their order.
    pub(crate) fn locate_problems(&self, problems: &mut [ConfigProblem], texts: &[&str]) {
        let mut wanted: HashMap<usize, Vec<String>> = HashMap::new();
        for problem in problems.iter() {
            for path in std::iter::once(&problem.path).chain(problem.also.as_ref().map(|also| &also.path)) {
                let (file, path) = self.file_and_path(path);
                wanted.entry(file).or_default().push(path);
            }
        }
        let located: HashMap<usize, LocatedPaths> = wanted
            .into_iter()
            .filter_map(|(file, paths)| {
                Some((file, LocatedPaths::locate(texts.get(file)?, paths.iter().map(String::as_str))))
            })
            .collect();
        for problem in problems {
            self.locate_path(&mut problem.path, &mut problem.site, &located);
            if let Some(also) = &mut problem.also {
                self.locate_path(&mut also.path, &mut also.site, &located);
            }
            strip_position(problem);
        }
    }

    fn locate_path(&self, path: &mut String, site: &mut Option<ProblemSite>, located: &HashMap<usize, LocatedPaths>) {
        let (file, home) = self.file_and_path(path);
        let known = site.take().unwrap_or_default(); // the position of the parser is more precise
        if home.is_empty() && known.line.is_none() {
            return; // a problem of the file as a whole
        }
        let (Some(source), Some(located)) = (self.file(file), located.get(&file)) else { return };
        *site = Some(site_of(&source.path, &home, known, located));
        *path = home;
    }
}

impl SourceFile {
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Adds file, line and ids to the problems of one file, whose paths count within that file.
pub(crate) fn locate_problems(file: &Path, text: &str, problems: &mut [ConfigProblem]) {
    let located = LocatedPaths::locate(text, problems.iter().map(|problem| problem.path.as_str()));
    for problem in problems {
        let known = problem.site.take().unwrap_or_default();
        problem.site = Some(site_of(file, &problem.path, known, &located));
        strip_position(problem);
    }
}

fn site_of(file: &Path, path: &str, known: ProblemSite, located: &LocatedPaths) -> ProblemSite {
    let found = located.position_of_path(path);
    let ids: Vec<_> = located.ids_on_path(path).collect();
    ProblemSite {
        file: file.display().to_string(),
        line: known.line.or(found.as_ref().map(|found| found.line)),
        column: known.column.or(found.as_ref().map(|found| found.column)),
        id: (!ids.is_empty()).then(|| ids.iter().map(|(_, id)| *id).collect::<Vec<_>>().join("/")),
        shown: path_with_ids(path, &ids),
    }
}

/// The path with each id beside its position.
fn path_with_ids(path: &str, ids: &[(&str, &str)]) -> String {
    let mut shown = path.to_owned();
    for (item, id) in ids.iter().rev() {
        shown.insert_str(item.len(), &format!(" ({id})"));
    }
    shown
}

/// Removes the position at the end of the message, because the location is printed before the message.
fn strip_position(problem: &mut ConfigProblem) {
    let Some(ProblemSite { line: Some(line), column: Some(column), .. }) = problem.site else { return };
    if let Some(message) = problem.message.strip_suffix(&position_suffix(line, column)) {
        problem.message = message.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_files() -> SourceFiles {
        let mut sources = SourceFiles::new(Path::new("etc/gateway.yaml"));
        sources.add_page(
            [file("etc/d/a.yaml", [0, 0, 0, 0, 0]), file("etc/d/b.yaml", [1, 0, 1, 3, 0])].into(),
            [0, 2, 0, 0, 1],
        );
        sources
    }

    fn file(path: &str, starts: ListCounts) -> SourceFile {
        SourceFile { path: Path::new(path).into(), starts }
    }

    #[test]
    fn pages_are_divided_anywhere() {
        let mut sources = SourceFiles::new(Path::new("etc/gateway.yaml"));
        sources.add_page([].into(), [0, 2, 0, 0, 1]);
        sources.add_page([file("etc/d/a.yaml", [0; 5])].into(), [0, 2, 0, 0, 1]);
        sources.add_page([file("etc/d/b.yaml", [0; 5])].into(), [1, 2, 1, 3, 1]);
        let whole = three_files();
        for list in SPREAD_LISTS {
            for position in 0..6 {
                let path = format!("{list}[{position}].id");
                assert_eq!(sources.file_and_path(&path), whole.file_and_path(&path), "{path}");
            }
        }
    }

    #[test]
    fn positions_are_relative_to_their_file() {
        let sources = three_files();
        for (path, expected) in [
            ("departments[1].id", (0, "departments[1].id")),
            ("departments[2].id", (2, "departments[0].id")),
            ("subsystems[0].tls", (1, "subsystems[0].tls")),
            ("subsystems[4].tls", (2, "subsystems[3].tls")),
            ("backends[2]", (1, "backends[2]")),
            ("backends[3].tls", (2, "backends[0].tls")),
            ("grants[0]", (0, "grants[0]")),
            ("listeners[0].tls", (1, "listeners[0].tls")),
            ("listeners[3].tls", (2, "listeners[2].tls")),
            ("ledger.path", (0, "ledger.path")),
            ("", (0, "")),
        ] {
            assert_eq!(sources.file_and_path(path), (expected.0, expected.1.to_owned()), "{path}");
        }
        assert_eq!(sources.path_in_file("grants[3]"), "etc/d/b.yaml: grants[2]");
        assert_eq!(sources.path_in_file("grants[0]"), "grants[0]");
        assert_eq!(sources.folder_of_subsystem(0), Path::new("etc/d"));
        assert_eq!(sources.folder_of_backend(3), Path::new("etc/d"));
        assert_eq!(sources.folder(), Path::new("etc"));
    }
}

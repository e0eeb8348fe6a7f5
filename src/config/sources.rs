//! The files of a configuration: which of the items of its lists stands in which file.
//!
//! While a configuration is compiled, the lists of all files are one, and positions count through all of them. What people
//! are shown counts within one file: [`Sources::home`] translates.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::locate::Located;
use super::misread::beside;
use super::problem::{Problem, Site};

/// The lists that may be spread over files.
const LISTS: [&str; 3] = ["departments", "subsystems", "grants"];
const SUBSYSTEMS: usize = 1;

/// How many items a file adds to each of [`LISTS`].
pub(super) type Counts = [usize; 3];

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
}

#[derive(Clone, Debug)]
struct SourceFile {
    path: PathBuf,
    /// The position of its first item in each list.
    starts: Counts,
}

impl Sources {
    /// The main file alone; it has all that is not in another.
    pub(super) fn of_main(path: &Path) -> Self {
        Self { files: vec![SourceFile { path: path.to_path_buf(), starts: Counts::default() }] }
    }

    /// Adds a file whose items come after `starts` others.
    pub(super) fn add(&mut self, path: &Path, starts: Counts) {
        self.files.push(SourceFile { path: path.to_path_buf(), starts });
    }

    /// The folder of the main file.
    pub(super) fn folder(&self) -> &Path {
        self.files.first().map_or(Path::new(""), SourceFile::folder)
    }

    /// The folder of the file that a subsystem stands in.
    pub(super) fn folder_of_subsystem(&self, position: usize) -> &Path {
        self.files.get(self.holder(SUBSYSTEMS, position)).map_or(Path::new(""), SourceFile::folder)
    }

    /// A path as it reads within its file, with the file where that is not the main one: `fire.yaml: grants[0]`.
    pub fn written(&self, path: &str) -> String {
        match self.home(path) {
            (0, path) => path,
            (file, path) => format!("{}: {path}", self.files[file].path.display()),
        }
    }

    /// The file of a path, and the path within it.
    fn home(&self, path: &str) -> (usize, String) {
        let whole = || (0, path.to_owned());
        let Some((list, rest)) = path.split_once('[') else { return whole() };
        let Some(list) = LISTS.iter().position(|known| *known == list) else { return whole() };
        let Some((position, below)) = rest.split_once(']') else { return whole() };
        let Ok(position) = position.parse::<usize>() else { return whole() };
        let holder = self.holder(list, position);
        let start = self.files.get(holder).map_or(0, |file| file.starts[list]);
        (holder, format!("{}[{}]{below}", LISTS[list], position - start))
    }

    /// The last file whose items begin at this position or before.
    fn holder(&self, list: usize, position: usize) -> usize {
        self.files.partition_point(|file| file.starts[list] <= position).saturating_sub(1)
    }

    /// Gives each problem its file, line and ids. `texts` are those of the files, in their order.
    pub(super) fn locate(&self, problems: &mut [Problem], texts: &[&str]) {
        let mut wanted: HashMap<usize, Vec<String>> = HashMap::new();
        for problem in problems.iter() {
            for path in std::iter::once(&problem.path).chain(problem.also.as_ref().map(|also| &also.path)) {
                let (file, path) = self.home(path);
                wanted.entry(file).or_default().push(path);
            }
        }
        let located: HashMap<usize, Located> = wanted
            .into_iter()
            .filter_map(|(file, paths)| {
                Some((file, Located::paths(texts.get(file)?, paths.iter().map(String::as_str))))
            })
            .collect();
        for problem in problems {
            self.name(&mut problem.path, &mut problem.site, &located);
            if let Some(also) = &mut problem.also {
                self.name(&mut also.path, &mut also.site, &located);
            }
            strip_place(problem);
        }
    }

    fn name(&self, path: &mut String, site: &mut Option<Site>, located: &HashMap<usize, Located>) {
        let (file, home) = self.home(path);
        let known = site.take().unwrap_or_default(); // the reader knows better where it stopped
        if home.is_empty() && known.line.is_none() {
            return; // about all of it
        }
        let (Some(source), Some(located)) = (self.files.get(file), located.get(&file)) else { return };
        *site = Some(site_of(&source.path, &home, known, located));
        *path = home;
    }
}

impl SourceFile {
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// Gives the problems of one file, whose paths count within it, that file, lines and ids.
pub(super) fn locate_in(file: &Path, text: &str, problems: &mut [Problem]) {
    let located = Located::paths(text, problems.iter().map(|problem| problem.path.as_str()));
    for problem in problems {
        let known = problem.site.take().unwrap_or_default();
        problem.site = Some(site_of(file, &problem.path, known, &located));
        strip_place(problem);
    }
}

fn site_of(file: &Path, path: &str, known: Site, located: &Located) -> Site {
    let found = located.find(path);
    let ids: Vec<_> = located.ids(path).collect();
    Site {
        file: file.display().to_string(),
        line: known.line.or(found.as_ref().map(|found| found.line)),
        column: known.column.or(found.as_ref().map(|found| found.column)),
        id: (!ids.is_empty()).then(|| ids.iter().map(|(_, id)| *id).collect::<Vec<_>>().join("/")),
        shown: shown(path, &ids),
    }
}

/// The path with each id beside its position.
fn shown(path: &str, ids: &[(&str, &str)]) -> String {
    let mut shown = path.to_owned();
    for (item, id) in ids.iter().rev() {
        shown.insert_str(item.len(), &format!(" ({id})"));
    }
    shown
}

/// The place stands before the message now, so not at its end as well.
fn strip_place(problem: &mut Problem) {
    let Some(Site { line: Some(line), column: Some(column), .. }) = problem.site else { return };
    if let Some(message) = problem.message.strip_suffix(&beside(line, column)) {
        problem.message = message.to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_files() -> Sources {
        let mut sources = Sources::of_main(Path::new("etc/gateway.yaml"));
        sources.add(Path::new("etc/d/a.yaml"), [2, 0, 1]);
        sources.add(Path::new("etc/d/b.yaml"), [2, 1, 1]);
        sources
    }

    #[test]
    fn a_position_counts_within_its_file() {
        let sources = three_files();
        for (path, expected) in [
            ("departments[1].id", (0, "departments[1].id")),
            ("departments[2].id", (2, "departments[0].id")),
            ("subsystems[0].tls", (1, "subsystems[0].tls")),
            ("subsystems[4].tls", (2, "subsystems[3].tls")),
            ("grants[0]", (0, "grants[0]")),
            ("listeners[3].tls", (0, "listeners[3].tls")),
            ("ledger.path", (0, "ledger.path")),
            ("", (0, "")),
        ] {
            assert_eq!(sources.home(path), (expected.0, expected.1.to_owned()), "{path}");
        }
        assert_eq!(sources.written("grants[3]"), "etc/d/b.yaml: grants[2]");
        assert_eq!(sources.written("grants[0]"), "grants[0]");
        assert_eq!(sources.folder_of_subsystem(0), Path::new("etc/d"));
        assert_eq!(sources.folder(), Path::new("etc"));
    }
}

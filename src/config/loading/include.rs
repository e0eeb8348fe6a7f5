//! `include`: the list of files that make up a configuration.
//!
//! Guarantees:
//! - The files are in the order of the patterns; the files of one pattern are in the byte order of their paths.
//! - No file is listed twice, and the main file never.
//! - The number of files and of folder entries is bounded.
//!
//! Leaves to the loader: reading the files.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use crate::config::parse::problem::ConfigProblem;

/// The most included files. Their metadata are polled once per second.
pub(crate) const INCLUDED_FILES_MAX: usize = 4096;
/// The most entries of one folder that are compared with a pattern.
const FOLDER_ENTRIES_MAX: usize = 65_536;

/// The patterns of `include`, and the main file that contains them.
#[derive(Clone, Debug)]
pub(crate) struct IncludePatterns {
    /// The patterns of `include`, then those of `includeIsolated`.
    patterns: Vec<String>,
    /// The number of patterns of `include`.
    strict: usize,
    main: PathBuf,
}

/// The files that the patterns match at present.
#[derive(Debug, Default)]
pub(crate) struct IncludeListing {
    /// The files, each with the position of its pattern.
    pub(crate) files: Vec<(PathBuf, usize)>,
    /// The problems of the patterns.
    pub(crate) problems: Vec<ConfigProblem>,
}

impl IncludePatterns {
    /// The patterns of `include` and `includeIsolated`, relative to the folder of the main file.
    pub(crate) fn new(include: &[String], isolated: &[String], main: &Path) -> Self {
        Self { patterns: [include, isolated].concat(), strict: include.len(), main: main.to_path_buf() }
    }

    /// Whether the files of the pattern at this position fail alone. A file that both keys name does not.
    pub(crate) fn is_isolated(&self, position: usize) -> bool {
        position >= self.strict
    }

    /// The path of a pattern in the configuration.
    pub(crate) fn place(&self, position: usize) -> String {
        match position.checked_sub(self.strict) {
            Some(isolated) => format!("includeIsolated[{isolated}]"),
            None => format!("include[{position}]"),
        }
    }

    /// Lists the matching files on disk.
    pub(crate) fn list_files(&self) -> IncludeListing {
        let mut listing = IncludeListing::default();
        let mut seen = HashSet::new();
        let main = file_identity(&self.main);
        for (position, pattern) in self.patterns.iter().enumerate() {
            let place = self.place(position);
            match matching_files(pattern, self.main.parent().unwrap_or(Path::new(""))) {
                Ok(files) => {
                    let others = files.into_iter().filter(|file| main.is_none() || file_identity(file) != main);
                    listing.files.extend(others.filter(|file| seen.insert(file.clone())).map(|file| (file, position)));
                }
                Err(message) => listing.problems.push(ConfigProblem::new(place, message)),
            }
        }
        if listing.files.len() > INCLUDED_FILES_MAX {
            let message = format!("{} files are included; the limit is {INCLUDED_FILES_MAX}", listing.files.len());
            listing
                .problems
                .push(ConfigProblem::new("include", message).with_hint("put more departments into each file"));
            listing.files.truncate(INCLUDED_FILES_MAX);
        }
        listing
    }
}

/// The identity of a file (device and inode): equal if two paths lead to one file.
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The files of one pattern, sorted. A path without wildcards is its own match, whether it exists or not.
fn matching_files(pattern: &str, folder: &Path) -> Result<Vec<PathBuf>, String> {
    if pattern.is_empty() {
        return Err("a path is missing; write one such as departments.d/*.yaml".to_owned());
    }
    let mut found = vec![folder.to_path_buf()];
    let is_glob = has_wildcard(pattern);
    for component in Path::new(pattern).components() {
        found = match component {
            Component::Normal(name) if name.to_str().is_some_and(has_wildcard) => {
                let matcher = compile_pattern(name.to_str().unwrap_or_default())?;
                found.iter().flat_map(|folder| folder_entries(folder, &matcher)).collect()
            }
            literal => found.iter().map(|folder| folder.join(literal)).collect(),
        };
    }
    if is_glob {
        found.retain(|path| path.is_file());
        found.sort();
    }
    Ok(found)
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn compile_pattern(component: &str) -> Result<NamePattern, String> {
    if component.contains("**") {
        return Err(format!("{component:?}: ** is not supported; name each folder, as in departments.d/*/*.yaml"));
    }
    let glob = GlobBuilder::new(component).literal_separator(true).build();
    let glob = glob.map_err(|error| format!("{component:?} is not a pattern: {}", error.kind()))?;
    Ok(NamePattern { glob: glob.compile_matcher(), hidden: component.starts_with('.') })
}

/// A pattern on names. As in a shell, names with a leading dot match only a pattern with a leading dot: editors and
/// Kubernetes (`..data`) keep such entries beside the files.
struct NamePattern {
    glob: GlobMatcher,
    hidden: bool,
}

fn folder_entries(folder: &Path, named: &NamePattern) -> Vec<PathBuf> {
    let opened = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(listed) = std::fs::read_dir(opened) else { return Vec::new() };
    let names = listed.take(FOLDER_ENTRIES_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let matches = |name: &String| (named.hidden || !name.starts_with('.')) && named.glob.is_match(name);
    names.filter(matches).map(|name| folder.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn listed(folder: &Path, patterns: &[&str]) -> (Vec<String>, Vec<String>) {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let listing = IncludePatterns::new(&patterns, &[], &folder.join("gateway.yaml")).list_files();
        let below = |path: &Path| path.strip_prefix(folder).expect("below the folder").display().to_string();
        let files = listing.files.iter().map(|(path, _)| below(path)).collect();
        (files, listing.problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn files_are_sorted_and_unique_without_hidden_ones_folders_and_the_main_file() {
        let folder = tempfile::tempdir().expect("a folder");
        for below in ["departments.d/b", "departments.d/folder.yaml", "more/x", "more/y"] {
            fs::create_dir_all(folder.path().join(below)).expect("a folder");
        }
        for file in ["gateway.yaml", "departments.d/b.yaml", "departments.d/a.yaml", "departments.d/.a.yaml.swp.yaml"] {
            fs::write(folder.path().join(file), "").expect("a file");
        }
        for file in ["departments.d/a.yaml~", "more/y/1.yaml", "more/x/2.yaml"] {
            fs::write(folder.path().join(file), "").expect("a file");
        }
        let d = ["departments.d/a.yaml", "departments.d/b.yaml"];
        for (patterns, expected) in [
            (&["departments.d/*.yaml"][..], vec![d[0], d[1]]),
            (&["departments.d/b.yaml", "departments.d/*.yaml"], vec![d[1], d[0]]),
            (&["departments.d/{a,b}.yaml"], vec![d[0], d[1]]),
            (&["departments.d/[!a].yaml"], vec![d[1]]),
            (&["more/*/?.yaml"], vec!["more/x/2.yaml", "more/y/1.yaml"]),
            (&["*.yaml"], vec![]),
            (&["nowhere/*.yaml"], vec![]),
            (&["nowhere/a.yaml"], vec!["nowhere/a.yaml"]),
        ] {
            assert_eq!(listed(folder.path(), patterns).0, expected, "{patterns:?}");
        }
    }

    #[test]
    fn invalid_patterns_are_problems_with_their_path() {
        let folder = tempfile::tempdir().expect("a folder");
        for (pattern, reason) in
            [("", "a path is missing"), ("a/**/b.yaml", "** is not supported"), ("a/[.yaml", "not a pattern")]
        {
            let (_, problems) = listed(folder.path(), &["ok.yaml", pattern]);
            assert!(problems[0].starts_with("include[1]: ") && problems[0].contains(reason), "{problems:?}");
        }
    }

    #[test]
    fn number_of_included_files_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..=INCLUDED_FILES_MAX {
            fs::write(folder.path().join(format!("{number}.part")), "").expect("a file");
        }
        let (files, problems) = listed(folder.path(), &["*.part"]);
        assert_eq!(files.len(), INCLUDED_FILES_MAX);
        assert!(problems[0].contains("4097 files are included; the limit is 4096"), "{problems:?}");
    }
}

//! All files of a crate, and the imports between them.
//!
//! Guarantees:
//! - A re-export is followed to the file that defines the item.
//! - A path that leaves the crate is no import.
//!
//! Leaves to `rules`: which imports are permitted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::source::{Binding, Import, Source};

type Module = Vec<String>;

/// An import of one file by another, with the line and the written path.
#[derive(Clone, Debug)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub line: usize,
    pub path: String,
}

/// The production files of a crate.
#[derive(Debug)]
pub struct Tree {
    pub sources: Vec<Source>,
    /// The file of each module, inline modules included.
    modules: BTreeMap<Module, usize>,
}

/// A module, or an item in it.
type Target<'a> = (Module, Option<&'a str>);

impl Tree {
    /// Reads the files below `folder`.
    pub fn read(folder: &Path) -> Self {
        let mut files = Vec::new();
        collect(folder, folder, &mut files);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        Self::parse(&files)
    }

    /// Parses files given as (path relative to `src`, text).
    pub fn parse(files: &[(&str, &str)]) -> Self {
        let mut sources: Vec<Source> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
        let tests: Vec<Module> = sources.iter().flat_map(test_modules).collect();
        sources.retain(|source| !is_test(source, &tests));
        let mut modules = BTreeMap::new();
        for (index, source) in sources.iter().enumerate() {
            let module = module_of(&source.path);
            for item in &source.items {
                let inline = (0..item.len()).map(|depth| [&module[..], &item[..depth]].concat());
                modules.extend(inline.map(|module| (module, index)));
            }
        }
        modules.extend(sources.iter().enumerate().map(|(index, source)| (module_of(&source.path), index)));
        Self { sources, modules }
    }

    /// Returns the imports between files: for each pair of files the first import.
    pub fn edges(&self) -> Vec<Edge> {
        let mut found = BTreeMap::new();
        for (from, source) in self.sources.iter().enumerate() {
            for import in &source.imports {
                let to = self.target(from, import).filter(|to| *to != from);
                if let Some(to) = to {
                    found.entry((from, to)).or_insert_with(|| (import.line, import.path.join("::")));
                }
            }
        }
        found.into_iter().map(|((from, to), (line, path))| Edge { from, to, line, path }).collect()
    }

    fn target(&self, from: usize, import: &Import) -> Option<usize> {
        let module = [module_of(&self.sources[from].path), import.scope.clone()].concat();
        let (module, _) = self.find(&module, &import.path, &mut BTreeSet::new())?;
        self.modules.get(&module).copied()
    }

    /// Resolves `path` as written in `module`.
    fn find<'a>(&self, module: &[String], path: &'a [String], seen: &mut BTreeSet<Module>) -> Option<Target<'a>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.walk(&[], rest, seen),
            "self" => self.walk(module, rest, seen),
            "super" => self.walk(&module[..module.len().checked_sub(1)?], rest, seen),
            _ => self.walk(module, path, seen),
        }
    }

    /// Walks down from `module` along `path`, through modules and re-exports.
    fn walk<'a>(&self, module: &[String], path: &'a [String], seen: &mut BTreeSet<Module>) -> Option<Target<'a>> {
        let Some((first, rest)) = path.split_first() else { return Some((module.to_vec(), None)) };
        if first == "super" {
            return self.walk(&module[..module.len().checked_sub(1)?], rest, seen);
        }
        let inner = [module, std::slice::from_ref(first)].concat();
        let is_item = self.has_item(module, first);
        if self.modules.contains_key(&inner) && !(is_item && rest.is_empty()) {
            return self.walk(&inner, rest, seen);
        }
        if is_item {
            return Some((module.to_vec(), Some(first)));
        }
        seen.insert(inner).then(|| self.through_uses(module, path, seen))?
    }

    /// Follows a `use` of `module` that binds the first name of `path`.
    fn through_uses<'a>(
        &self,
        module: &[String],
        path: &'a [String],
        seen: &mut BTreeSet<Module>,
    ) -> Option<Target<'a>> {
        let source = &self.sources[*self.modules.get(module)?];
        let scope = &module[module_of(&source.path).len()..];
        let here = source.imports.iter().filter(|import| import.scope == scope);
        let (named, globs): (Vec<_>, Vec<_>) = here.partition(|import| import.binding != Binding::Glob);
        let binds = |import: &&&Import| {
            matches!(&import.binding, Binding::Name(name) if *name == path[0]) && import.path != path[..1]
        };
        for import in named.iter().filter(binds) {
            match self.find(module, &import.path, seen) {
                Some((module, None)) => return self.walk(&module, &path[1..], seen),
                Some((module, Some(_))) => return Some((module, Some(&path[0]))),
                None => {}
            }
        }
        globs.iter().find_map(|import| {
            let (inner, item) = self.find(module, &import.path, seen)?;
            (item.is_none() && inner != module).then(|| self.walk(&inner, path, seen))?
        })
    }

    fn has_item(&self, module: &[String], name: &str) -> bool {
        let Some(source) = self.modules.get(module).map(|index| &self.sources[*index]) else { return false };
        let mut item = module[module_of(&source.path).len()..].to_vec();
        item.push(name.to_owned());
        source.items.contains(&item)
    }
}

/// Maps a file to its module: `proxy/io/mod.rs` is the module `proxy::io`.
fn module_of(path: &str) -> Module {
    let mut parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    if matches!(parts[..], ["lib" | "main"]) || parts.last() == Some(&"mod") {
        parts.pop();
    }
    parts.into_iter().map(str::to_owned).collect()
}

fn test_modules(source: &Source) -> Vec<Module> {
    let module = module_of(&source.path);
    source.test_modules.iter().map(|name| [&module[..], std::slice::from_ref(name)].concat()).collect()
}

fn is_test(source: &Source, tests: &[Module]) -> bool {
    let module = module_of(&source.path);
    module.iter().any(|part| part == "tests") || tests.iter().any(|test| module.starts_with(test))
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

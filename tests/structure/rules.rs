//! The rules of the structure. Each rule returns its violations as texts: the place, the fault, and the remedy.

use std::collections::{BTreeMap, BTreeSet};

use super::source::COMMENT_WIDTH;
use super::tree::{Edge, Tree};

/// The order of the parts of one folder, from the top. Names in one text, separated by spaces, share a floor.
#[derive(Clone, Copy, Debug)]
pub struct FolderOrder {
    /// The path relative to `src`; empty for `src` itself.
    pub folder: &'static str,
    pub floors: &'static [&'static str],
    /// Permitted imports inside one floor: (importer, imported).
    pub sideways: &'static [(&'static str, &'static str)],
}

impl FolderOrder {
    /// Returns the floor of a sub-folder or file. The `mod.rs` of a folder stands above all floors. A part that the
    /// order does not name has no floor.
    fn floor(&self, part: &str) -> Option<usize> {
        let floor = self.floors.iter().position(|floor| floor.split(' ').any(|name| name == part));
        floor.map(|floor| floor + 1).or_else(|| is_face(part).then_some(0))
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.floors.iter().flat_map(|floor| floor.split(' '))
    }

    /// Returns the order in the notation of ARCHITECTURE.md: `a` > `b` `c` > `d`.
    pub fn as_text(&self) -> String {
        let floors = self.floors.iter().map(|floor| format!("`{}`", floor.replace(' ', "` `")));
        floors.collect::<Vec<_>>().join(" > ")
    }
}

fn is_face(part: &str) -> bool {
    matches!(part, "mod" | "lib" | "main")
}

/// Returns the sub-folder or file of `folder` that contains `path`.
fn part_of<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    let rest = if folder.is_empty() { path } else { path.strip_prefix(folder)?.strip_prefix('/')? };
    rest.split('/').next().map(|part| part.trim_end_matches(".rs"))
}

/// Returns all folders with the names of their sub-folders and of their files.
fn folders(tree: &Tree) -> BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> {
    let mut found: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for source in &tree.sources {
        let (mut folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
        found.entry(folder).or_default().1.insert(file.trim_end_matches(".rs"));
        while !folder.is_empty() {
            let (above, name) = folder.rsplit_once('/').unwrap_or(("", folder));
            found.entry(above).or_default().0.insert(name);
            folder = above;
        }
    }
    found
}

/// Returns the imports that go up, or sideways inside a floor.
pub fn upward_imports(tree: &Tree, orders: &[FolderOrder]) -> Vec<String> {
    let edges = tree.edges();
    orders.iter().flat_map(|order| edges.iter().filter_map(|edge| upward(tree, order, edge))).collect()
}

fn upward(tree: &Tree, order: &FolderOrder, edge: &Edge) -> Option<String> {
    let (from, to) = (&tree.sources[edge.from].path, &tree.sources[edge.to].path);
    let (importer, imported) = (part_of(order.folder, from)?, part_of(order.folder, to)?);
    let (below, above) = (order.floor(importer)?, order.floor(imported)?);
    let goes_down = below < above || importer == imported;
    if goes_down || (below == above && order.sideways.contains(&(importer, imported))) {
        return None;
    }
    let place = if order.folder.is_empty() { "src" } else { order.folder };
    let relation = if below == above { "stands beside" } else { "stands below" };
    Some(format!(
        "src/{from}:{}: `{}` leads to src/{to}, but in {place} `{importer}` {relation} `{imported}`. Imports go down: \
         move what both need into `{importer}` or below it, or pass it in from above (a value, a closure, a trait of \
         `{importer}`). The order is in tests/structure/mod.rs and ARCHITECTURE.md.",
        edge.line, edge.path
    ))
}

/// Returns sub-folders that no order names, and names in orders that no longer exist.
pub fn orders_out_of_date(tree: &Tree, orders: &[FolderOrder]) -> Vec<String> {
    let folders = folders(tree);
    let mut found = Vec::new();
    for (folder, (inner, _)) in folders.iter().filter(|(_, (inner, _))| inner.len() > 1) {
        let order = orders.iter().find(|order| order.folder == *folder);
        let missing = inner.iter().filter(|name| order.is_none_or(|order| order.floor(name).is_none()));
        found.extend(missing.map(|name| {
            format!("src/{folder}: `{name}` has no place in the order: add it to ORDERS in tests/structure/mod.rs.")
        }));
    }
    for order in orders {
        let there = folders.get(order.folder);
        let gone = order
            .names()
            .filter(|name| there.is_none_or(|(inner, files)| !inner.contains(name) && !files.contains(name)));
        found.extend(gone.map(|name| {
            format!(
                "ORDERS in tests/structure/mod.rs names `{name}` in src/{}, and there is none: remove it",
                order.folder
            )
        }));
    }
    found
}

/// Returns the import circles of more than `most` files.
pub fn circles_of_files(tree: &Tree, most: usize) -> Vec<String> {
    let edges = tree.edges();
    let names = edges.iter().map(|edge| (tree.sources[edge.from].path.as_str(), tree.sources[edge.to].path.as_str()));
    let large = circles(names).into_iter().filter(|circle| circle.len() > most);
    large
        .map(|circle| {
            let closing = closing_imports(tree, &edges, &circle);
            format!(
                "{} files import each other in a circle, and at most {most} may: {}. Move what two of them share into \
                 a file that both import. Imports in it:{closing}",
                circle.len(),
                circle.join(", ")
            )
        })
        .collect()
}

fn closing_imports(tree: &Tree, edges: &[Edge], circle: &[&str]) -> String {
    let inside = |index: usize| circle.contains(&tree.sources[index].path.as_str());
    let lines = edges.iter().filter(|edge| inside(edge.from) && inside(edge.to)).map(|edge| {
        let (from, to) = (&tree.sources[edge.from].path, &tree.sources[edge.to].path);
        format!("\n    src/{from}:{} `{}` -> src/{to}", edge.line, edge.path)
    });
    lines.take(CLOSING_SHOWN).collect()
}

/// The number of imports that a message about a circle shows.
const CLOSING_SHOWN: usize = 40;

/// Returns the circles between the parts of one folder, if at least one part is a sub-folder. The folder's `mod.rs` is
/// left out.
pub fn circles_of_folders(tree: &Tree) -> Vec<String> {
    let edges = tree.edges();
    let mut found = Vec::new();
    for (folder, (inner, _)) in folders(tree) {
        let parts = edges.iter().filter_map(|edge| {
            let from = part_of(folder, &tree.sources[edge.from].path)?;
            let to = part_of(folder, &tree.sources[edge.to].path)?;
            (from != to && !is_face(from) && !is_face(to)).then_some((from, to))
        });
        let circles = circles(parts).into_iter().filter(|circle| circle.iter().any(|part| inner.contains(part)));
        found.extend(circles.map(|circle| {
            format!(
                "src/{folder}: {} import each other in a circle. Decide which is lower, and move what it needs down.",
                circle.join(", ")
            )
        }));
    }
    found
}

/// Returns the groups of at least two names that reach each other.
fn circles<'a>(edges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<&'a str>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in edges {
        next.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next.keys().map(|name| (*name, reach(&next, name))).collect();
    let mut found: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (name, others) in &reached {
        let back = |other: &&&str| reached.get(**other).is_some_and(|others| others.contains(name));
        let circle: Vec<&str> = others.iter().filter(back).copied().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

fn reach<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        for other in next.get(name).into_iter().flatten() {
            if found.insert(*other) {
                open.push(other);
            }
        }
    }
    found
}

/// Returns the folders of more than `most` modules, except `exceptions`.
pub fn crowded_folders(tree: &Tree, most: usize, exceptions: &[&str]) -> Vec<String> {
    let crowded = folders(tree).into_iter().filter_map(|(folder, (inner, files))| {
        let modules = inner.union(&files).filter(|name| !is_face(name)).count();
        (modules > most && !exceptions.contains(&folder)).then(|| {
            format!(
                "src/{folder} has {modules} modules, at most {most} are found at a glance: group them in sub-folders."
            )
        })
    });
    crowded.collect()
}

/// Returns the files with comments that are wider than the code width.
pub fn wide_comments(tree: &Tree) -> Vec<String> {
    let wide = tree.sources.iter().filter(|source| !source.wide_comments.is_empty());
    wide.map(|source| {
        let lines: Vec<String> = source.wide_comments.iter().map(ToString::to_string).collect();
        format!("src/{}: comments wider than {COMMENT_WIDTH} columns: wrap lines {}.", source.path, lines.join(", "))
    })
    .collect()
}

/// Returns the names that several types share. A type in a folder of `mirrors` may share the name of the type that it
/// mirrors.
pub fn shared_type_names(tree: &Tree, mirrors: &[&str]) -> Vec<String> {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let others = tree.sources.iter().filter(|source| !mirrors.iter().any(|mirror| source.path.starts_with(mirror)));
    for source in others {
        for (name, line) in source.types.iter().filter(|(name, _)| name.len() > 1) {
            places.entry(name).or_default().push(format!("src/{}:{line}", source.path));
        }
    }
    let shared = places.into_iter().filter(|(_, places)| places.len() > 1);
    shared
        .map(|(name, places)| {
            format!("`{name}` names {} types ({}): a name has one meaning.", places.len(), places.join(", "))
        })
        .collect()
}

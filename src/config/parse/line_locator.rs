//! Finds the line of a problem from its path. The text is parsed a second time, only if there are problems, so that a
//! valid configuration loads without the cost of tracking lines.
//!
//! Guarantees:
//! - One pass over the text finds all paths. Parts without a wanted path are skipped.
//! - A path that is not written (a missing key, a value behind an alias) is found at its nearest parent.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Options, Parser, Span, options};

/// The position of a path in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinePosition {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
}

/// The lines of paths, and the ids of the items on the way to them.
#[derive(Debug, Default)]
pub(crate) struct LocatedPaths {
    found: HashMap<String, Option<LinePosition>>,
    ids: HashMap<String, String>,
}

impl LocatedPaths {
    /// Finds `paths` in a text. A malformed text is parsed up to the error.
    pub(crate) fn locate<'p>(text: &str, paths: impl IntoIterator<Item = &'p str>) -> Self {
        let wanted = paths.into_iter().flat_map(|path| parent_paths(path).chain([path]));
        let mut walk = YamlWalk { located: Self::default(), path: String::new(), stack: Vec::new() };
        walk.located.found = wanted.map(|path| (path.to_owned(), None)).collect();
        if walk.located.found.is_empty() {
            return walk.located; // a valid configuration is parsed only once
        }
        let options: Options = options! { emit_comments: false };
        for next in Parser::new_from_str_with_options(text, options) {
            let Ok((event, span)) = next else { break };
            walk.visit(&event, &span);
        }
        walk.located
    }

    /// The position of a path, or of its nearest written parent.
    pub(crate) fn position_of_path(&self, path: &str) -> Option<LinePosition> {
        let at = |path: &str| self.found.get(path).cloned().flatten();
        at(path).or_else(|| parent_paths(path).filter_map(at).last())
    }

    /// The ids on the way to a path, outermost first, each with the path of its item.
    pub(crate) fn ids_on_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        parent_paths(path).chain([path]).filter_map(|item| Some((item, self.ids.get(item)?.as_str())))
    }
}

/// `a`, `a[0]`, `a[0].b` for `a[0].b.c`.
fn parent_paths(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.char_indices().filter(|(at, c)| *at > 0 && matches!(c, '.' | '['));
    cuts.map(|(at, _)| &path[..at])
}

struct YamlWalk {
    located: LocatedPaths,
    /// The path of the current node.
    path: String,
    stack: Vec<OpenCollection>,
}

/// An open collection; `length` is the length of its own path.
enum OpenCollection {
    Map {
        length: usize,
        key: Option<PendingKey>,
    },
    List {
        length: usize,
        next: usize,
    },
    /// A collection without a wanted path, or a key that is a collection.
    Skipped {
        is_key: bool,
    },
}

struct PendingKey {
    text: String,
    at: LinePosition,
}

impl YamlWalk {
    fn visit(&mut self, event: &Event<'_>, span: &Span) {
        match event {
            Event::Scalar(text, ..) => self.visit_scalar(text, position_of(span)),
            Event::Alias(_) => self.visit_scalar("", position_of(span)),
            Event::MappingStart(..) => {
                let open = |length| OpenCollection::Map { length, key: None };
                self.open_collection(position_of(span), open);
            }
            Event::SequenceStart(..) => {
                self.open_collection(position_of(span), |length| OpenCollection::List { length, next: 0 })
            }
            Event::MappingEnd | Event::SequenceEnd => self.close_collection(),
            _ => {}
        }
    }

    fn visit_scalar(&mut self, text: &str, at: LinePosition) {
        match self.stack.last_mut() {
            Some(OpenCollection::Skipped { .. }) => {}
            Some(OpenCollection::Map { key: key @ None, .. }) => *key = Some(PendingKey { text: text.to_owned(), at }),
            _ => {
                self.record_id(text);
                self.push_path();
                self.record_position(at);
                self.pop_path();
            }
        }
    }

    fn open_collection(&mut self, at: LinePosition, frame: impl Fn(usize) -> OpenCollection) {
        let is_key = matches!(self.stack.last(), Some(OpenCollection::Map { key: None, .. }));
        if is_key || matches!(self.stack.last(), Some(OpenCollection::Skipped { .. })) {
            return self.stack.push(OpenCollection::Skipped { is_key });
        }
        let key_at = match self.stack.last() {
            Some(OpenCollection::Map { key: Some(key), .. }) => Some(key.at.clone()),
            _ => None,
        };
        self.push_path();
        if self.path.is_empty() || self.located.found.contains_key(&self.path) {
            self.record_position(key_at.unwrap_or(at));
            self.stack.push(frame(self.path.len()));
        } else {
            self.stack.push(OpenCollection::Skipped { is_key: false });
        }
    }

    fn close_collection(&mut self) {
        match self.stack.pop() {
            Some(OpenCollection::Skipped { is_key: true }) => {
                if let Some(OpenCollection::Map { key, .. }) = self.stack.last_mut() {
                    *key = Some(PendingKey { text: String::new(), at: LinePosition::default() });
                }
            }
            Some(_) if !matches!(self.stack.last(), Some(OpenCollection::Skipped { .. })) => self.pop_path(),
            _ => {}
        }
    }

    /// Appends the step to the beginning node.
    fn push_path(&mut self) {
        match self.stack.last_mut() {
            Some(OpenCollection::Map { length, key: Some(key) }) => {
                self.path.truncate(*length);
                if !self.path.is_empty() {
                    self.path.push('.');
                }
                self.path.push_str(&key.text);
            }
            Some(OpenCollection::List { length, next }) => {
                self.path.truncate(*length);
                self.path.push_str(&format!("[{next}]"));
                *next += 1;
            }
            _ => self.path.clear(),
        }
    }

    /// Ends the node; its collection continues with the next one.
    fn pop_path(&mut self) {
        match self.stack.last_mut() {
            Some(OpenCollection::Map { length, key }) => {
                *key = None;
                self.path.truncate(*length);
            }
            Some(OpenCollection::List { length, .. }) => self.path.truncate(*length),
            _ => {}
        }
    }

    fn record_position(&mut self, at: LinePosition) {
        if let Some(found) = self.located.found.get_mut(&self.path) {
            found.get_or_insert(at);
        }
    }

    /// Records the id of an item.
    fn record_id(&mut self, text: &str) {
        let Some(OpenCollection::Map { length, key: Some(key) }) = self.stack.last() else { return };
        let item = &self.path[..*length];
        if key.text == "id" && item.ends_with(']') && !text.is_empty() {
            self.located.ids.insert(item.to_owned(), text.to_owned());
        }
    }
}

fn position_of(span: &Span) -> LinePosition {
    LinePosition { line: span.start.line(), column: span.start.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
ledger: { path: a.db }
departments:
  - id: fire
    callers:
      - uri: spiffe://a
      - dns: fire.example
    limits: { rate: fast,
              burst: 3 }
  - &police
    id: police
    quota: &q
      per: month
  - *police
? [complex, key]
: value
subsystems:
  - id: cameras
    commands:
      - id: read
        match: { path: / }
";

    #[test]
    fn paths_are_located_at_their_value_or_nearest_parent() {
        let cases = [
            ("ledger", (1, 1)),
            ("ledger.path", (1, 17)),
            ("departments[0]", (3, 5)),
            ("departments[0].callers[1].dns", (6, 14)),
            ("departments[0].limits.rate", (7, 21)),
            ("departments[0].limits.burst", (8, 22)),
            ("departments[0].limits.concurrent", (7, 5)),
            ("departments[1].quota", (11, 5)),
            ("departments[1].quota.per", (12, 12)),
            ("departments[2].quota.per", (13, 5)),
            ("subsystems[0].commands[0].match.method", (20, 9)),
        ];
        let located = LocatedPaths::locate(TEXT, cases.iter().map(|(path, _)| *path));
        for (path, (line, column)) in cases {
            assert_eq!(located.position_of_path(path), Some(LinePosition { line, column }), "{path}");
        }
        assert_eq!(located.position_of_path("listeners"), None);
    }

    #[test]
    fn ids_are_found_beside_their_items() {
        let path = "subsystems[0].commands[0].match.path";
        let located = LocatedPaths::locate(TEXT, [path]);
        let ids: Vec<_> = located.ids_on_path(path).collect();
        assert_eq!(ids, [("subsystems[0]", "cameras"), ("subsystems[0].commands[0]", "read")]);
    }

    #[test]
    fn invalid_text_is_located_up_to_its_error() {
        let located = LocatedPaths::locate("a: 1\nb: \"\n", ["a", "b"]);
        assert_eq!(located.position_of_path("a"), Some(LinePosition { line: 1, column: 4 }));
        assert_eq!(located.position_of_path("b"), None);
    }
}

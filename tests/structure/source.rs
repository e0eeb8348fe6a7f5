//! One Rust source file as the rules need it: imports, items, types and comments, without test code.
//!
//! Guarantees:
//! - Valid Rust is parsed without a panic.
//! - Strings, comments and lifetimes are never taken for code.
//!
//! Leaves to `tree`: the resolution of paths.

use std::collections::BTreeSet;

/// The maximum width of a comment, equal to the maximum width of code.
pub const COMMENT_WIDTH: usize = 120;
const TYPE_WORDS: [&str; 5] = ["struct", "enum", "union", "trait", "type"];
const VALUE_WORDS: [&str; 3] = ["fn", "const", "static"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Sign,
    Literal,
    Comment,
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    line: usize,
}

/// The name that an import binds in its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// `use a::b;` or `use a::c as b;`
    Name(String),
    /// `use a::*;`
    Glob,
    /// A path in an expression or a type.
    None,
}

/// A path that may lead to another file.
#[derive(Clone, Debug)]
pub struct Import {
    /// The inline modules around the import.
    pub scope: Vec<String>,
    pub path: Vec<String>,
    pub binding: Binding,
    pub line: usize,
}

/// One source file. Paths are relative to `src`.
#[derive(Debug, Default)]
pub struct Source {
    pub path: String,
    pub imports: Vec<Import>,
    /// Items outside functions and impls: the inline modules around the item, and its name.
    pub items: BTreeSet<Vec<String>>,
    pub types: Vec<(String, usize)>,
    /// Modules that exist only in tests.
    pub test_modules: Vec<String>,
    pub wide_comments: Vec<usize>,
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Self {
        let tokens = Lexer { text, at: 0, line: 1 }.collect::<Vec<_>>();
        let mut source = Self { path: path.to_owned(), wide_comments: wide_comments(text, &tokens), ..Self::default() };
        let code = tokens.into_iter().filter(|token| token.kind != Kind::Comment).collect();
        Parser { code, at: 0, blocks: Vec::new(), pending: None, source: &mut source }.run();
        source
    }
}

fn wide_comments(text: &str, tokens: &[Token<'_>]) -> Vec<usize> {
    let comments = tokens.iter().filter(|token| token.kind == Kind::Comment);
    let lines: BTreeSet<usize> =
        comments.flat_map(|token| token.line..=token.line + token.text.matches('\n').count()).collect();
    let wide = |line: &usize| text.lines().nth(line - 1).is_some_and(|text| text.chars().count() > COMMENT_WIDTH);
    lines.into_iter().filter(wide).collect()
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let rest = &self.text[self.at..];
        let spaces = rest.len() - rest.trim_start().len();
        self.line += rest[..spaces].matches('\n').count();
        self.at += spaces;
        let rest = &self.text[self.at..];
        let (kind, length) = token_at(rest)?;
        let token = Token { kind, text: &rest[..length], line: self.line };
        self.at += length;
        self.line += token.text.matches('\n').count();
        Some(token)
    }
}

/// Returns the kind and length of the token at the start of `rest`, or `None` at the end.
fn token_at(rest: &str) -> Option<(Kind, usize)> {
    let first = rest.chars().next()?;
    if rest.starts_with("//") {
        return Some((Kind::Comment, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((Kind::Comment, block_comment(rest)));
    }
    if let Some(length) = string(rest) {
        return Some((Kind::Literal, length));
    }
    if first == '\'' {
        return Some((Kind::Literal, char_or_lifetime(rest)));
    }
    let word = rest.strip_prefix("r#").unwrap_or(rest);
    let length = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
    match length {
        0 if rest.starts_with("::") => Some((Kind::Sign, 2)),
        0 => Some((Kind::Sign, first.len_utf8())),
        _ if first.is_numeric() => Some((Kind::Literal, length)),
        _ => Some((Kind::Name, length + rest.len() - word.len())),
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        let step = if here.starts_with(b"/*") { 1 } else { -i32::from(here.starts_with(b"*/")) };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            break;
        }
    }
    at
}

/// Returns the length of the string literal at the start of `rest`, raw or not.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["", "b", "c"].into_iter().find(|prefix| {
        rest.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('"') || rest.starts_with("r\"") || rest.starts_with("r#"))
    })?;
    let quoted = &rest[prefix.len()..];
    let Some(raw) = quoted.strip_prefix('r') else {
        return Some(prefix.len() + quoted_string(quoted));
    };
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let body = raw[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(rest.len() - body.len() + body.find(&end)? + end.len())
}

fn quoted_string(quoted: &str) -> usize {
    let mut escaped = true; // the opening quote does not close the literal
    let close = quoted.char_indices().find(|(_, c)| {
        let closes = !escaped && *c == '"';
        escaped = !escaped && *c == '\\';
        closes
    });
    close.map_or(quoted.len(), |(at, _)| at + 1)
}

fn char_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((after, escaped))) => {
            let from = after + escaped.len_utf8();
            from + rest[from..].find('\'').map_or(0, |at| at + 1)
        }
        (_, Some((at, '\''))) => at + 1,
        _ => 1 + rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - 1),
    }
}

/// Walks over the code once and fills `source`.
struct Parser<'a, 'b> {
    code: Vec<Token<'a>>,
    at: usize,
    /// The open blocks: the name of an inline module, or `None` for any other block.
    blocks: Vec<Option<&'a str>>,
    /// The name of the inline module whose brace comes next.
    pending: Option<&'a str>,
    source: &'b mut Source,
}

impl<'a> Parser<'a, '_> {
    fn run(mut self) {
        while self.at < self.code.len() {
            match (self.code[self.at].kind, self.text(0)) {
                (_, "#") if self.is_test_attribute() => self.skip_test_item(),
                (_, "{") => self.open(),
                (_, "}") => self.close(),
                (Kind::Name, "use") if self.begins_item() => self.read_use(),
                (Kind::Name, "mod") => self.read_module(),
                (Kind::Name, word) if TYPE_WORDS.contains(&word) || VALUE_WORDS.contains(&word) => self.read_item(),
                (Kind::Name, _) => self.read_path(),
                _ => self.at += 1,
            }
        }
    }

    /// Returns the text of the token `ahead` of the current one.
    fn text(&self, ahead: usize) -> &'a str {
        self.code.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn before(&self, back: usize) -> &'a str {
        self.at.checked_sub(back).map_or("", |at| self.code[at].text)
    }

    fn scope(&self) -> Vec<String> {
        self.blocks.iter().flatten().map(|&name| name.to_owned()).collect()
    }

    fn open(&mut self) {
        self.blocks.push(self.pending.take());
        self.at += 1;
    }

    fn close(&mut self) {
        self.blocks.pop();
        self.at += 1;
    }

    fn is_test_attribute(&self) -> bool {
        let words: Vec<&str> = (1..7).map(|ahead| self.text(ahead)).collect();
        words.starts_with(&["[", "cfg", "(", "test"]) || words.starts_with(&["[", "cfg", "(", "all", "(", "test"])
    }

    /// Skips an item with its attributes, and records the file that the item declares.
    fn skip_test_item(&mut self) {
        let mut depth = 0;
        while self.at < self.code.len() {
            let text = self.text(0);
            if text == "}" && depth == 0 {
                return; // the last item of a block: its brace closes the block
            }
            depth += i32::from(matches!(text, "{" | "(" | "[")) - i32::from(matches!(text, "}" | ")" | "]"));
            if depth == 0 && self.text(0) == "mod" && self.text(2) == ";" {
                self.source.test_modules.push(self.text(1).to_owned());
            }
            self.at += 1;
            if depth == 0 && matches!(text, "}" | ";" | ",") {
                return;
            }
        }
    }

    fn begins_item(&self) -> bool {
        matches!(self.before(1), "" | ";" | "{" | "}" | "]" | ")" | "pub") && self.text(1) != "<"
    }

    fn read_module(&mut self) {
        self.pending = (self.text(2) == "{").then(|| self.text(1));
        self.at += 2;
    }

    fn read_item(&mut self) {
        let (word, line) = (self.text(0), self.code[self.at].line);
        let name = self.code.get(self.at + 1).filter(|token| token.kind == Kind::Name).map(|token| token.text);
        self.at += 1;
        let Some(name) = name.filter(|name| !VALUE_WORDS.contains(name) && self.blocks.iter().all(Option::is_some))
        else {
            return;
        };
        self.at += 1;
        let mut item = self.scope();
        item.push(name.to_owned());
        self.source.items.insert(item);
        if TYPE_WORDS.contains(&word) {
            self.source.types.push((name.to_owned(), line));
        }
    }

    fn read_use(&mut self) {
        self.at += 1;
        self.read_tree(&[]);
        self.at += 1;
    }

    /// Reads one branch of a `use`, up to the `,`, `}` or `;` that ends the branch.
    fn read_tree(&mut self, prefix: &[String]) {
        let (mut path, line) = (prefix.to_vec(), self.code[self.at].line);
        loop {
            match self.text(0) {
                "{" => return self.read_branches(&path),
                "*" => {
                    self.at += 1;
                    return self.add(path, Binding::Glob, line);
                }
                name => {
                    path.push(name.to_owned());
                    self.at += 1;
                }
            }
            if self.text(0) != "::" {
                break;
            }
            self.at += 1;
        }
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let alias = (self.text(0) == "as").then(|| self.text(1).to_owned());
        self.at += if alias.is_some() { 2 } else { 0 };
        let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
        self.add(path, Binding::Name(name), line);
    }

    fn read_branches(&mut self, path: &[String]) {
        self.at += 1;
        while self.at < self.code.len() && self.text(0) != "}" {
            self.read_tree(path);
            self.at += usize::from(self.text(0) == ",");
        }
        self.at += 1;
    }

    fn read_path(&mut self) {
        let (line, joined) = (self.code[self.at].line, matches!(self.before(1), "." | "::"));
        let visibility = (self.before(1), self.before(2), self.before(3)) == ("in", "(", "pub");
        let mut path = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && self.code.get(self.at + 1).is_some_and(|token| token.kind == Kind::Name) {
            path.push(self.text(1).to_owned());
            self.at += 2;
        }
        if path.len() > 1 && !joined && !visibility {
            self.add(path, Binding::None, line);
        }
    }

    fn add(&mut self, path: Vec<String>, binding: Binding, line: usize) {
        let scope = self.scope();
        self.source.imports.push(Import { scope, path, binding, line });
    }
}

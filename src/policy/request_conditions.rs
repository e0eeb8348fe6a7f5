//! The requests that a command matches: path, method, header fields and query parameters.
//!
//! Guarantees:
//! - A condition is a pure function of the request, without allocation. Exceptions: the query is decoded once, if a
//!   query condition is reached, and a repeated field is joined for a regular expression.
//! - Regular expressions take time linear in the text (no backtracking) and are anchored at both ends.
//!
//! Leaves to others: which command wins if several match (`route`).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::bytes::{Regex, RegexBuilder};

use crate::model::Name;

use super::path_template::{PathFilling, PathTemplate};

/// The parts of a request that decide its route.
#[derive(Clone, Debug)]
pub struct RouteRequest<'a> {
    /// The listener that accepted the connection.
    pub listener: &'a Name,
    /// The host; a port and a trailing dot are ignored.
    pub host: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path as it was validated.
    pub path: &'a str,
    /// The query.
    pub query: QueryPairs<'a>,
    /// The fields as they were received.
    pub headers: &'a HeaderMap,
}

/// The parameters of a query, decoded when the first condition asks for them.
#[derive(Clone, Debug, Default)]
pub struct QueryPairs<'a> {
    text: Option<&'a str>,
    decoded: OnceCell<Vec<(Cow<'a, str>, Cow<'a, str>)>>,
}

/// One set of conditions of a command. A request matches if all of them hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandMatch {
    /// The method; `None` means any.
    pub method: Option<Method>,
    /// The path below the subsystem's prefix.
    pub path: PathMatch,
    /// The conditions on header fields, in the order of their names; at most [`CommandMatch::CONDITIONS_MAX`].
    pub headers: Vec<HeaderCondition>,
    /// The conditions on query parameters, in the order of their names; at most [`CommandMatch::CONDITIONS_MAX`].
    pub query: Vec<QueryCondition>,
}

/// The paths that match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The paths of a template; without parameters it is one exact path.
    Template(PathTemplate),
    /// This path and all below it, by whole segments. Empty for all paths, otherwise without a trailing slash.
    Prefix(String),
    /// The paths that a regular expression matches from the first to the last byte.
    Regex(AnchoredRegex),
}

/// A condition on a header field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCondition {
    /// The field. The values of a repeated field are joined with a comma, those of `cookie` with a semicolon and a
    /// blank (RFC 9110 section 5.3, RFC 9113 section 8.2.3).
    pub name: HeaderName,
    /// The accepted values.
    pub value: ValueCondition,
}

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryCondition {
    /// The decoded name, with case. The first parameter of this name counts.
    pub name: String,
    /// The accepted values.
    pub value: ValueCondition,
}

/// The values that a condition accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueCondition {
    /// This value.
    Exact(String),
    /// The values that a regular expression matches as a whole.
    Regex(AnchoredRegex),
    /// Any value, also an empty one.
    Present,
}

/// A regular expression that matches a text as a whole. Two of them are equal if they are written alike.
#[derive(Clone, Debug)]
pub struct AnchoredRegex {
    text: String,
    regex: Regex,
}

impl<'a> QueryPairs<'a> {
    /// The parameters of the text after `?`.
    pub fn new(text: Option<&'a str>) -> Self {
        Self { text, decoded: OnceCell::new() }
    }

    /// The value of the first parameter of this name.
    fn first_value(&self, name: &str) -> Option<&str> {
        let pairs = self.decoded.get_or_init(|| {
            form_urlencoded::parse(self.text.unwrap_or_default().as_bytes()).collect() // `+` is a blank
        });
        pairs.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

impl CommandMatch {
    /// The most conditions of one kind, as in the Gateway API.
    pub const CONDITIONS_MAX: usize = 16;
    /// The most sets of conditions of a command, as in the Gateway API.
    pub const MATCHES_MAX: usize = 64;

    /// Whether the match has no other condition than a method and a path template.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.path, PathMatch::Template(_)) && self.headers.is_empty() && self.query.is_empty()
    }

    /// A text that only equal matches share: templates for the same paths are equal, whatever their parameters are
    /// named.
    pub(crate) fn canonical_text(&self) -> String {
        let mut canonical = self.clone();
        if let PathMatch::Template(template) = &mut canonical.path {
            *template = PathTemplate(template.normalized());
        }
        format!("{canonical:?}")
    }

    /// Whether the method and all conditions hold. The path is not compared.
    pub(crate) fn accepts(&self, request: &RouteRequest<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == request.method) && self.conditions_hold(request)
    }

    /// Whether the conditions on fields and parameters hold.
    pub(crate) fn conditions_hold(&self, request: &RouteRequest<'_>) -> bool {
        self.headers.iter().all(|condition| condition.holds(request.headers))
            && self.query.iter().all(|condition| condition.holds(&request.query))
    }

    /// All conditions but the path, each with whether it holds.
    pub fn condition_results(&self, request: &RouteRequest<'_>) -> Vec<(String, bool)> {
        let method = self.method.as_ref().map(|method| (format!("method {method}"), method == request.method));
        let headers = self.headers.iter().map(|condition| {
            (format!("header {}{}", condition.name, condition.value), condition.holds(request.headers))
        });
        let query = self
            .query
            .iter()
            .map(|condition| (format!("query {}{}", condition.name, condition.value), condition.holds(&request.query)));
        method.into_iter().chain(headers).chain(query).collect()
    }

    /// The paths of a template `target`, filled from the path that any of `matches` matches.
    ///
    /// # Errors
    /// If a parameter of `target` is not captured by each match in the same way and at the same place.
    pub fn fill_from_each(matches: &[Self], target: &PathTemplate) -> Result<PathFilling, String> {
        let mut fillings = matches.iter().map(|matched| matched.path.fill(target));
        let first = fillings.next().unwrap_or_else(|| Err("there is no path to match".to_owned()))?;
        for filling in fillings {
            if filling? != first {
                return Err("the matches capture a parameter of it at different places; write two commands".to_owned());
            }
        }
        Ok(first)
    }
}

impl PathMatch {
    /// Whether a path below the subsystem's prefix matches. For single questions: `route` answers for all commands
    /// at once.
    pub fn fits(&self, below: &str) -> bool {
        match self {
            Self::Template(template) => template.fits(below),
            Self::Prefix(prefix) => {
                below.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(below.as_bytes()),
        }
    }

    fn fill(&self, target: &PathTemplate) -> Result<PathFilling, String> {
        match self {
            Self::Template(matched) => target.filled_by(matched),
            Self::Prefix(_) | Self::Regex(_) => target.filled_by_nothing(),
        }
    }
}

impl HeaderCondition {
    fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        match (values.next(), values.next(), &self.value) {
            (None, ..) => false,
            (Some(_), _, ValueCondition::Present) => true,
            (Some(value), None, accepted) => accepted.accepts(value.as_bytes()),
            (Some(_), Some(_), ValueCondition::Exact(text)) => self.is_joined(headers, text.as_bytes()),
            (Some(_), Some(_), accepted) => {
                let values: Vec<_> = headers.get_all(&self.name).iter().map(HeaderValue::as_bytes).collect();
                accepted.accepts(&values.join(self.separator()))
            }
        }
    }

    /// Whether the joined values of a repeated field are this text.
    fn is_joined(&self, headers: &HeaderMap, text: &[u8]) -> bool {
        let mut rest = text;
        for (position, value) in headers.get_all(&self.name).iter().enumerate() {
            let after = if position == 0 { Some(rest) } else { rest.strip_prefix(self.separator()) };
            let Some(after) = after.and_then(|after| after.strip_prefix(value.as_bytes())) else { return false };
            rest = after;
        }
        rest.is_empty()
    }

    fn separator(&self) -> &'static [u8] {
        if self.name == COOKIE { b"; " } else { b"," }
    }
}

impl QueryCondition {
    fn holds(&self, query: &QueryPairs<'_>) -> bool {
        query.first_value(&self.name).is_some_and(|value| self.value.accepts(value.as_bytes()))
    }
}

impl ValueCondition {
    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
            Self::Present => true,
        }
    }
}

impl AnchoredRegex {
    /// The longest expression, in bytes; the Gateway API allows 1024 for paths and 4096 for fields.
    const TEXT_MAX: usize = 4096;
    /// The most memory of one compiled expression, and of the states that each thread keeps for it.
    const COMPILED_BYTES_MAX: usize = 256 * 1024;

    /// Compiles an expression of the `regex` crate's syntax (as RE2: no look-around, no back-references). Classes such
    /// as `\d` are those of ASCII.
    ///
    /// # Errors
    /// The fault in the expression.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("{text:?} is not a regular expression for this place: {why}");
        match text.len() {
            0 => return Err(bad("it is empty")),
            length if length > Self::TEXT_MAX => return Err(bad("it is longer than 4096 bytes")),
            _ => {}
        }
        // Alone first, so that a parenthesis in it cannot close the group below.
        let last_line = |error: regex::Error| bad(error.to_string().lines().last().unwrap_or_default().trim());
        Self::compile(text).map_err(last_line)?;
        let regex = Self::compile(&format!(r"\A(?:{text})\z")).map_err(last_line)?;
        Ok(Self { text: text.to_owned(), regex })
    }

    fn compile(text: &str) -> Result<Regex, regex::Error> {
        RegexBuilder::new(text)
            .unicode(false) // paths are ASCII, and fields are bytes
            .size_limit(Self::COMPILED_BYTES_MAX)
            .dfa_size_limit(Self::COMPILED_BYTES_MAX)
            .build()
    }

    pub(crate) fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for AnchoredRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for AnchoredRegex {}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Template(template) => template.fmt(f),
            Self::Prefix(prefix) if prefix.is_empty() => f.write_str("pathPrefix /"),
            Self::Prefix(prefix) => write!(f, "pathPrefix {prefix}"),
            Self::Regex(regex) => write!(f, "pathRegex {}", regex.text),
        }
    }
}

impl fmt::Display for ValueCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, " = {text:?}"),
            Self::Regex(regex) => write!(f, " ~ {:?}", regex.text),
            Self::Present => f.write_str(" present"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(text: &str) -> ValueCondition {
        ValueCondition::Regex(AnchoredRegex::parse(text).expect("an expression"))
    }

    fn exact(text: &str) -> ValueCondition {
        ValueCondition::Exact(text.to_owned())
    }

    #[test]
    fn a_repeated_field_is_compared_as_its_joined_value() {
        for (name, sent, value, holds) in [
            ("version", &["one"][..], exact("one"), true),
            ("version", &["one"], exact("One"), false),
            ("version", &[], exact(""), false),
            ("version", &[""], exact(""), true),
            ("version", &["one", "two"], exact("one,two"), true),
            ("version", &["one", "two"], exact("one"), false),
            ("version", &["one", "two"], exact("one,twofold"), false),
            ("version", &["one, two"], exact("one, two"), true),
            ("version", &["one", "two"], regex("one,.*"), true),
            ("version", &["one", "two"], regex("two"), false),
            ("version", &["v12"], regex(r"v\d+"), true),
            ("version", &["xv12"], regex(r"v\d+"), false),
            ("version", &["v12x"], regex(r"v\d+"), false),
            ("version", &["a", "b"], ValueCondition::Present, true),
            ("version", &[], ValueCondition::Present, false),
            ("cookie", &["a=1", "b=2"], exact("a=1; b=2"), true),
        ] {
            let name = HeaderName::from_static(name);
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            let condition = HeaderCondition { name, value };
            assert_eq!(condition.holds(&headers), holds, "{sent:?} {:?}", condition.value);
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts_and_is_decoded() {
        for (query, name, value, holds) in [
            (Some("animal=whale"), "animal", exact("whale"), true),
            (Some("animal=Whale"), "animal", exact("whale"), false),
            (Some("ANIMAL=whale"), "animal", exact("whale"), false),
            (Some("animal=dog&animal=whale"), "animal", exact("whale"), false),
            (Some("x=1&animal=whale&y=2"), "animal", exact("whale"), true),
            (Some("a%6eimal=blue+whale"), "animal", exact("blue whale"), true),
            (Some("animal=%E9%AF%A8"), "animal", exact("鯨"), true),
            (Some("animal"), "animal", ValueCondition::Present, true),
            (Some("animal"), "animal", exact(""), true),
            (Some("animals=1"), "animal", ValueCondition::Present, false),
            (Some(""), "animal", ValueCondition::Present, false),
            (None, "animal", ValueCondition::Present, false),
            (Some("animal=whaledolphin"), "animal", regex("whale|dolphin"), false),
            (Some("animal=dolphin"), "animal", regex("whale|dolphin"), true),
        ] {
            let condition = QueryCondition { name: name.to_owned(), value };
            assert_eq!(condition.holds(&QueryPairs::new(query)), holds, "{query:?} {:?}", condition.value);
        }
    }

    #[test]
    fn an_expression_is_anchored_and_bounded() {
        for (text, matching, other) in [
            ("/a|/b", &["/a", "/b"][..], &["/ab", "/a/b", "x/a"][..]),
            (r"/v\d/.*", &["/v1/", "/v2/x/y"], &["/v10/x", "/v1"]),
            ("(?i)/one", &["/ONE"], &["/one/"]),
            ("^/a$", &["/a"], &["/a\n"]),
        ] {
            let read = AnchoredRegex::parse(text).expect("an expression");
            assert!(matching.iter().all(|path| read.is_match(path.as_bytes())), "{text}");
            assert!(!other.iter().any(|path| read.is_match(path.as_bytes())), "{text}");
        }
        let long = "a".repeat(AnchoredRegex::TEXT_MAX + 1);
        for bad in ["", "(", "a)|(b", "a{1000}{1000}", r"(a)\1", "(?=a)", &long] {
            assert!(AnchoredRegex::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_fits_by_whole_segments() {
        let template = |text| PathMatch::Template(PathTemplate::parse(text).expect("a template"));
        let prefix = |text: &str| PathMatch::Prefix(text.to_owned());
        for (path, fitting, other) in [
            (template("/a"), &["/a"][..], &["/a/", "/A", "/"][..]),
            (template("/a/{id}"), &["/a/1"], &["/a", "/a/", "/a/1/"]),
            (template("/a/{*rest}"), &["/a/1", "/a/1/2/"], &["/a", "/a/"]),
            (prefix("/a/b"), &["/a/b", "/a/b/", "/a/b/c"], &["/a", "/a/bc", "/A/b"]),
            (prefix(""), &["/", "/a"], &[]),
        ] {
            assert!(fitting.iter().all(|below| path.fits(below)), "{path}");
            assert!(!other.iter().any(|below| path.fits(below)), "{path}");
        }
    }

    #[test]
    fn each_match_must_capture_a_parameter_at_the_same_place() {
        let matched = |path| CommandMatch { method: None, path, headers: Vec::new(), query: Vec::new() };
        let template = |text| matched(PathMatch::Template(PathTemplate::parse(text).expect("a template")));
        let prefix = matched(PathMatch::Prefix("/a".to_owned()));
        for (matches, target, is_filled) in [
            (vec![template("/a/{id}"), template("/b/{id}")], "/c/{id}", true),
            (vec![template("/a/{id}"), template("/{id}")], "/c/{id}", false),
            (vec![template("/a/{id}"), template("/a")], "/c/{id}", false),
            (vec![template("/a/{id}"), prefix.clone()], "/c/{id}", false),
            (vec![template("/a/{id}"), prefix], "/c", true),
        ] {
            let target = PathTemplate::parse(target).expect("a template");
            assert_eq!(CommandMatch::fill_from_each(&matches, &target).is_ok(), is_filled, "{matches:?}");
        }
    }
}

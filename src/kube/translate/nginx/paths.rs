//! Paths: `use-regex` and `rewrite-target`, for each path of an Ingress.
//!
//! Guarantees:
//! - An Ingress whose rewrite cannot be expressed is refused: its requests would reach other paths of its servers.
//! - A regular expression holds for its own Ingress alone, not for all Ingresses of the host.
//!
//! Leaves to others: expressions and prefixes themselves (`policy`).

use regex::Regex;
use serde_json::{Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::is_plain_path;
use crate::kube::objects::{Ingress, IngressPath, IngressPathKind};

/// The ends of paths whose last capture is all that follows a prefix: the end, the number of the capture, and whether
/// the capture begins with the slash.
const CAPTURE_ENDS: [(&str, char, bool); 9] = [
    ("(/|$)(.*)", '2', false),
    ("(/|$)(.*)$", '2', false),
    ("(?:/|$)(.*)", '1', false),
    ("(/.*)?", '1', true),
    ("(/.*|$)", '1', true),
    ("/?(.*)", '1', false),
    ("/(.*)", '1', false),
    ("(.*)", '1', true),
    ("/(.*)$", '1', false),
];
/// The longest regular expression of the configuration, in bytes, less what is added to it.
const REGEX_BYTES_MAX: usize = 4000;

/// The match and the rewrite of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kube::translate) struct PathPlan {
    pub(in crate::kube::translate) matched: Value,
    pub(in crate::kube::translate) rewrite: Option<(&'static str, String)>,
    /// Regular expressions are tried from the longest path to the shortest, as in ingress-nginx.
    pub(in crate::kube::translate) is_regex: bool,
    /// The path of the subsystem: the literal segments before an expression, so that it goes before shorter prefixes
    /// of other Ingresses. `/` for others.
    pub(in crate::kube::translate) above: String,
}

impl PathPlan {
    /// A match without an expression.
    pub(in crate::kube::translate) fn plain(matched: Value) -> Self {
        Self { matched, rewrite: None, is_regex: false, above: "/".to_owned() }
    }
}

/// The requests of a path of a refused Ingress. They are answered, so that they reach no other Ingress of the host.
/// With expressions, those in another case as well.
pub(in crate::kube::translate) fn held_paths(path: &IngressPath, uses_regex: bool) -> Vec<PathPlan> {
    let text = path_text(path);
    let any_case = || {
        let matched = uses_regex.then(|| expression(text).ok()).flatten();
        matched.map(|regex| PathPlan { is_regex: true, ..PathPlan::plain(json!({ "pathRegex": regex })) })
    };
    if is_literal(text) && is_plain_path(text) {
        return [Some(plain_path(path)), any_case()].into_iter().flatten().collect();
    }
    let literal = text.split(['(', '[', '{', '*', '+', '?', '^', '$', '\\', '|']).next().unwrap_or_default();
    let fallback = || is_plain_path(literal).then(|| PathPlan::plain(json!({ "pathPrefix": literal })));
    let text = if uses_regex { text.to_owned() } else { regex::escape(text) };
    let own = regex_path(&text).ok().or_else(fallback);
    let other = any_case().filter(|other| own.as_ref().is_none_or(|own| own.above != other.above));
    [own, other].into_iter().flatten().collect()
}

pub(super) fn read_paths(reader: &mut AnnotationReader<'_>, ingress: &Ingress) -> Vec<Vec<PathPlan>> {
    let use_regex = reader.switch("use-regex");
    let target = reader.value("rewrite-target").filter(|target| !target.is_empty());
    let mut fault = None;
    let mut plan = |path: &IngressPath| match plan_path(path, target, use_regex == Some(true)) {
        Ok(plan) => plan,
        Err(why) => {
            fault.get_or_insert_with(|| format!("the path {}: {why}", path_text(path)));
            plain_path(path)
        }
    };
    let rules = ingress.rules.iter().map(|rule| rule.http.as_ref().map_or(&[][..], |http| &http.paths));
    let plans: Vec<Vec<PathPlan>> = rules.map(|paths| paths.iter().map(&mut plan).collect()).collect();
    match (target, fault) {
        (Some(_), Some(fault)) => reader.refused("rewrite-target", &fault),
        (Some(_), None) => {
            let sentence = "the rewritten path is the same; literal paths are compared with case and by whole segments, \
                            and other Ingresses of the host are not matched by expressions because of it";
            reader.differs("rewrite-target", sentence);
        }
        (None, Some(fault)) => reader.refused("use-regex", &fault),
        (None, None) => reader.taken("rewrite-target", "empty: nothing is rewritten"),
    }
    match use_regex {
        Some(true) => {
            let sentence = "expressions hold for this Ingress alone, not for the whole host; their syntax is RE2, and \
                            literal paths stay prefixes, or exact";
            reader.differs("use-regex", sentence);
        }
        Some(false) => reader.taken("use-regex", "off"),
        None => {}
    }
    plans
}

fn path_text(path: &IngressPath) -> &str {
    path.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/")
}

/// A path of the kind `ImplementationSpecific` is a prefix, as ingress-nginx has it.
fn plain_path(path: &IngressPath) -> PathPlan {
    let text = path_text(path);
    let key = if path.path_type == IngressPathKind::Exact { "path" } else { "pathPrefix" };
    PathPlan::plain(json!({ key: text }))
}

/// The location of nginx, `~* "^PATH"`, below its literal segments.
fn regex_path(text: &str) -> Result<PathPlan, String> {
    let literal = text.find(['(', '[', '{', '|', '*', '+', '?', '^', '$', '\\']).unwrap_or(text.len());
    let above = if text.contains('|') { 0 } else { text[..literal].rfind('/').unwrap_or(0) };
    let above = if is_plain_path(&text[..above]) { above } else { 0 };
    let matched = json!({ "pathRegex": expression(&text[above..])? });
    let above = if above == 0 { "/".to_owned() } else { text[..above].to_owned() };
    Ok(PathPlan { matched, rewrite: None, is_regex: true, above })
}

fn plan_path(path: &IngressPath, target: Option<&str>, use_regex: bool) -> Result<PathPlan, String> {
    let text = path_text(path);
    // A target that is the path itself is no rewrite (ingress-nginx, needsRewrite).
    let target = target.filter(|target| *target != text);
    if target.is_none() && !use_regex {
        return Ok(plain_path(path));
    }
    if let Some(plan) = target.and_then(|target| replaced_prefix(text, target)) {
        return Ok(plan);
    }
    let plan = if is_literal(text) { plain_path(path) } else { regex_path(text)? };
    let rewrite = target.map(|target| fixed_target(text, target)).transpose()?;
    Ok(PathPlan { rewrite: rewrite.map(|target| ("path", target)), ..plan })
}

/// An expression for the whole path, of one for its beginning.
fn expression(text: &str) -> Result<String, String> {
    let expression = format!("(?i)(?:{text}).*");
    if text.len() > REGEX_BYTES_MAX {
        return Err(format!("an expression may have at most {REGEX_BYTES_MAX} bytes"));
    }
    Regex::new(&expression)
        .map(|_| expression)
        .map_err(|_| "is not a regular expression in the syntax of RE2".to_owned())
}

/// The target without captures. Captures that the path does not have are empty.
fn fixed_target(text: &str, target: &str) -> Result<String, String> {
    let groups = Regex::new(text).map_or(usize::MAX, |regex| regex.captures_len() - 1);
    let mut fixed = target.to_owned();
    for digit in 1..=9_usize {
        let name = format!("${digit}");
        if groups >= digit && fixed.contains(&name) {
            return Err(format!(
                "the target {target} uses the capture {name}, which can be expressed only where it is all that follows \
                 a literal prefix, as in /app(/|$)(.*) with /$2"
            ));
        }
        fixed = fixed.replace(&name, "");
    }
    if !is_plain_path(&fixed) {
        return Err(format!("the target {target} is not a plain path"));
    }
    Ok(fixed)
}

/// A prefix and a capture of all that follows, as the replacement of the prefix.
fn replaced_prefix(text: &str, target: &str) -> Option<PathPlan> {
    let (prefix, replacement) = CAPTURE_ENDS.into_iter().find_map(|(end, capture, has_slash)| {
        let prefix = text.strip_suffix(end).filter(|prefix| is_literal(prefix) && !prefix.ends_with('/'))?;
        let before = target.strip_suffix(capture)?.strip_suffix('$')?;
        let before = if has_slash { Some(before) } else { before.strip_suffix('/') };
        Some((prefix, before.filter(|before| !before.ends_with('/'))?))
    })?;
    let rooted = |path: &str| if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    let (path, new) = (rooted(prefix), rooted(replacement));
    if !is_plain_path(&path) || !is_plain_path(&new) {
        return None;
    }
    let rewrite = (path != new).then_some(("replacePrefixMatch", new));
    Some(PathPlan { rewrite, ..PathPlan::plain(json!({ "pathPrefix": path })) })
}

fn is_literal(text: &str) -> bool {
    !text.contains(['(', ')', '[', ']', '{', '}', '|', '*', '+', '?', '^', '$', '\\'])
}

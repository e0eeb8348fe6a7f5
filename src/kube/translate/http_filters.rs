//! Filters of routes: edits of header fields, redirects, rewrites, mirrors and CORS, as keys of a command.
//!
//! Guarantees: a filter that is not supported refuses its route (`UnsupportedValue`). It is never left out in silence.
//!
//! Leaves to others: what the keys mean (`config`).

use serde_json::{Map, Value, json};

use super::backends::BackendSet;
use super::references::{BrokenReference, Referrer};
use crate::kube::index::Index;
use crate::kube::objects::{
    CorsFilter, HeaderFilter, HttpFilter, HttpFilterKind, LocalReference, MirrorFilter, OWN_GROUP, ObjectKind,
    PathModifier, PathModifierKind, RedirectFilter, RewriteFilter,
};

/// What is not supported, for the condition of the route.
pub(super) type Unsupported = String;

/// The filters of a rule, as keys of a command, and the references of mirrors that lead nowhere.
#[derive(Debug, Default)]
pub(super) struct RuleFilters {
    pub(super) keys: Map<String, Value>,
    pub(super) broken: Vec<BrokenReference>,
    pub(super) is_redirect: bool,
    pub(super) is_mirrored: bool,
    /// The CommandSet that the rule names.
    pub(super) command_set: Option<Box<str>>,
    mirrors: Vec<Value>,
}

/// Where mirrors lead.
pub(super) struct MirrorTargets<'a, 'b> {
    pub(super) index: &'a Index,
    pub(super) from: Referrer<'a>,
    pub(super) backends: &'b mut BackendSet,
}

impl RuleFilters {
    /// Translates the filters of a rule.
    ///
    /// # Errors
    /// The first one that is not supported.
    pub(super) fn translate(filters: &[HttpFilter], targets: &mut MirrorTargets<'_, '_>) -> Result<Self, Unsupported> {
        let mut rule = Self::default();
        for filter in filters {
            rule.add(filter, targets)?;
        }
        if !rule.mirrors.is_empty() {
            rule.is_mirrored = true;
            rule.keys.insert("mirror".to_owned(), Value::Array(std::mem::take(&mut rule.mirrors)));
        }
        Ok(rule)
    }

    fn add(&mut self, filter: &HttpFilter, targets: &mut MirrorTargets<'_, '_>) -> Result<(), Unsupported> {
        let missing = || format!("a filter of the type {:?} lacks its field", filter.kind);
        match &filter.kind {
            HttpFilterKind::RequestHeaderModifier => {
                self.edit("request", filter.request_header_modifier.as_ref().ok_or_else(missing)?);
            }
            HttpFilterKind::ResponseHeaderModifier => {
                self.edit("response", filter.response_header_modifier.as_ref().ok_or_else(missing)?);
            }
            HttpFilterKind::RequestRedirect => {
                let redirect = filter.request_redirect.as_ref().ok_or_else(missing)?;
                self.keys.insert("redirect".to_owned(), redirect_keys(redirect)?);
                self.is_redirect = true;
            }
            HttpFilterKind::UrlRewrite => {
                let rewrite = filter.url_rewrite.as_ref().ok_or_else(missing)?;
                self.keys.insert("rewrite".to_owned(), rewrite_keys(rewrite)?);
            }
            HttpFilterKind::RequestMirror => {
                self.mirror(filter.request_mirror.as_ref().ok_or_else(missing)?, targets);
            }
            HttpFilterKind::Cors => {
                self.keys.insert("cors".to_owned(), cors_keys(filter.cors.as_ref().ok_or_else(missing)?));
            }
            HttpFilterKind::ExtensionRef => {
                self.name_command_set(filter.extension_ref.as_ref().ok_or_else(missing)?)?;
            }
            HttpFilterKind::ExternalAuth | HttpFilterKind::Other(_) => {
                return Err(format!("filters of the type {:?} are not supported", filter.kind));
            }
        }
        Ok(())
    }

    fn name_command_set(&mut self, reference: &LocalReference) -> Result<(), Unsupported> {
        let LocalReference { group, kind, name } = reference;
        if &**group != OWN_GROUP || &**kind != ObjectKind::CommandSet.api().kind {
            return Err(format!(
                "an extensionRef to {kind} of {group:?} is not supported; only CommandSet of {OWN_GROUP}"
            ));
        }
        match self.command_set.replace(name.clone()) {
            Some(first) if first != *name => Err("a rule has one CommandSet; it names two".to_owned()),
            _ => Ok(()),
        }
    }

    fn edit(&mut self, direction: &str, filter: &HeaderFilter) {
        let headers = self.keys.entry("headers").or_insert_with(|| json!({}));
        headers[direction] = edit_keys(filter);
    }

    fn mirror(&mut self, mirror: &MirrorFilter, targets: &mut MirrorTargets<'_, '_>) {
        let resolved = match targets.backends.resolve(targets.index, targets.from, &mirror.backend_ref) {
            Ok(resolved) => resolved,
            Err(broken) => return self.broken.push(broken),
        };
        let share = match (&mirror.percent, &mirror.fraction) {
            (Some(0), _) => return, // no copies
            (Some(percent), _) => json!({ "backend": resolved.id, "percent": percent }),
            (None, Some(fraction)) if fraction.numerator == 0 => return,
            (None, Some(fraction)) => {
                let fraction = json!({ "numerator": fraction.numerator, "denominator": fraction.denominator });
                json!({ "backend": resolved.id, "fraction": fraction })
            }
            (None, None) => json!({ "backend": resolved.id }),
        };
        self.mirrors.push(share);
    }
}

/// The edits of a backend reference: of its filters, only edits of header fields are supported.
pub(super) fn backend_headers(filters: &[HttpFilter]) -> Result<Option<Value>, Unsupported> {
    let mut headers = Map::new();
    for filter in filters {
        match (&filter.kind, &filter.request_header_modifier, &filter.response_header_modifier) {
            (HttpFilterKind::RequestHeaderModifier, Some(edits), _) => {
                headers.insert("request".to_owned(), edit_keys(edits));
            }
            (HttpFilterKind::ResponseHeaderModifier, _, Some(edits)) => {
                headers.insert("response".to_owned(), edit_keys(edits));
            }
            (kind, ..) => return Err(format!("filters of the type {kind:?} are not supported at a backend")),
        }
    }
    Ok((!headers.is_empty()).then_some(Value::Object(headers)))
}

fn edit_keys(filter: &HeaderFilter) -> Value {
    let fields = |list: &[crate::kube::objects::HeaderValue]| {
        let fields = list.iter().map(|field| (field.name.to_string(), Value::from(&*field.value)));
        Value::Object(fields.collect())
    };
    json!({ "set": fields(&filter.set), "add": fields(&filter.add), "remove": filter.remove })
}

fn redirect_keys(redirect: &RedirectFilter) -> Result<Value, Unsupported> {
    let mut keys = Map::new();
    keys.insert("status".to_owned(), json!(redirect.status_code.unwrap_or(302)));
    if let Some(scheme) = &redirect.scheme {
        keys.insert("scheme".to_owned(), json!(scheme));
    }
    if let Some(hostname) = &redirect.hostname {
        keys.insert("host".to_owned(), json!(hostname));
    }
    if let Some(port) = redirect.port {
        keys.insert("port".to_owned(), json!(port));
    }
    if let Some(path) = &redirect.path {
        let (key, value) = path_key(path)?;
        keys.insert(key.to_owned(), value);
    }
    Ok(Value::Object(keys))
}

fn rewrite_keys(rewrite: &RewriteFilter) -> Result<Value, Unsupported> {
    let mut keys = Map::new();
    if let Some(hostname) = &rewrite.hostname {
        keys.insert("host".to_owned(), json!(hostname));
    }
    if let Some(path) = &rewrite.path {
        let (key, value) = path_key(path)?;
        keys.insert(key.to_owned(), value);
    }
    Ok(Value::Object(keys))
}

fn path_key(path: &PathModifier) -> Result<(&'static str, Value), Unsupported> {
    match (&path.kind, &path.replace_full_path, &path.replace_prefix_match) {
        (PathModifierKind::ReplaceFullPath, Some(full), _) => Ok(("path", absolute(full))),
        (PathModifierKind::ReplacePrefixMatch, _, Some(prefix)) => Ok(("replacePrefixMatch", absolute(prefix))),
        (kind, ..) => Err(format!("a path modifier of the type {kind:?} is not supported, or lacks its field")),
    }
}

/// An empty path is `/`.
fn absolute(path: &str) -> Value {
    if path.is_empty() { json!("/") } else { json!(path) }
}

fn cors_keys(cors: &CorsFilter) -> Value {
    let mut keys = Map::new();
    keys.insert("origins".to_owned(), json!(cors.allow_origins));
    keys.insert("credentials".to_owned(), json!(cors.allow_credentials));
    keys.insert("maxAge".to_owned(), json!(format!("{}s", cors.max_age.unwrap_or(5))));
    for (key, list) in
        [("methods", &cors.allow_methods), ("headers", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)]
    {
        if !list.is_empty() {
            keys.insert(key.to_owned(), json!(list));
        }
    }
    Value::Object(keys)
}

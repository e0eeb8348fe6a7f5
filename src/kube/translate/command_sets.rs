//! CommandSets: the commands of a rule that names one.
//!
//! Guarantees:
//! - A command matches what the rule matches and what one of its own matches says, both.
//! - With `otherCommands: Refuse` no request of the rule falls through to a less specific rule: the rest is refused.
//! - A CommandSet that is missing or faulty answers its rule with 500. It never makes the rule unmetered or open.
//!
//! Leaves to others: the filters and the backends of the rule (`routes`), matches by themselves (`config`).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::certificates::TextCheck;
use super::condition::{ACCEPTED, Condition};
use super::departments::limit_keys;
use super::http_filters::Unsupported;
use super::references::BrokenReference;
use crate::kube::index::Index;
use crate::kube::objects::{CommandMatchSpec, CommandSetSpec, CommandSpec, FieldMatchSpec, ObjectKey, RefuseOrAllow};

/// A CommandSet with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandSetOutcome {
    /// Its key.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// The CommandSets of a cluster, each checked by itself.
#[derive(Debug, Default)]
pub(super) struct CommandSets<'a> {
    sets: BTreeMap<&'a ObjectKey, Result<&'a CommandSetSpec, String>>,
    pub(super) outcomes: Vec<CommandSetOutcome>,
}

impl<'a> CommandSets<'a> {
    pub(super) fn read(index: &'a Index, check: &dyn TextCheck) -> Self {
        let mut read = Self::default();
        for (key, fact) in index.command_sets().iter() {
            let checked = match &fact.parsed {
                Ok(set) => check.check_commands(&alone(set)).map(|()| set),
                Err(fault) => Err(fault.to_string()),
            };
            let accepted = match &checked {
                Ok(_) => Condition::holds(ACCEPTED, "Accepted"),
                Err(why) => {
                    Condition::fails(ACCEPTED, "Invalid", format!("{why}. Rules with it are answered with 500"))
                }
            };
            let generation = fact.meta.generation;
            read.outcomes.push(CommandSetOutcome { key: key.clone(), generation, conditions: vec![accepted] });
            read.sets.insert(key, checked);
        }
        read
    }

    /// The CommandSet that a rule names.
    pub(super) fn find(&self, key: &ObjectKey) -> Result<&'a CommandSetSpec, BrokenReference> {
        match self.sets.get(key) {
            Some(Ok(set)) => Ok(set),
            Some(Err(why)) => {
                let message = format!("the CommandSet {key} is not valid: {why}");
                Err(BrokenReference { reason: "InvalidCommandSet", message })
            }
            None => {
                let message = format!("there is no CommandSet {key}");
                Err(BrokenReference { reason: "CommandSetNotFound", message })
            }
        }
    }
}

/// The commands of a set in the form of the configuration, as those of a rule that matches everything.
fn alone(set: &CommandSetSpec) -> Value {
    let keys = |command: &CommandSpec| {
        let matches: Vec<Value> = command.matches.iter().map(|one| Value::Object(own_match(one, ""))).collect();
        let mut keys = command_keys(command);
        keys.insert("match".to_owned(), json!(matches));
        Value::Object(keys)
    };
    set.commands.iter().map(keys).collect()
}

/// The commands of a rule with a CommandSet. `base` is the rule as one command, with its matches.
///
/// # Errors
/// A combination of matches that cannot be expressed.
pub(super) fn commands_of_rule(
    base: &Map<String, Value>,
    (set, is_grpc): (&CommandSetSpec, bool),
) -> Result<Vec<Value>, Unsupported> {
    let of_rule: Vec<Value> = base.get("match").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut commands = Vec::with_capacity(set.commands.len() + 1);
    for command in &set.commands {
        let with_id = |why: String| format!("command {}: {why}", command.id);
        let (mut matches, mut targets) = (Vec::new(), Vec::new());
        for (rule, own) in of_rule.iter().flat_map(|rule| command.matches.iter().map(move |own| (rule, own))) {
            if let Some(found) = combined(rule, own, is_grpc).map_err(with_id)? {
                matches.push(found);
                targets.push((rule, own));
            }
        }
        if matches.is_empty() {
            continue; // the rule takes no such request
        }
        let mut keys = base.clone();
        for shape in ["rewrite", "redirect"] {
            replace_prefix(&mut keys, shape, &targets).map_err(with_id)?;
        }
        keys.extend(command_keys(command));
        keys.insert("match".to_owned(), Value::Array(matches));
        commands.push(Value::Object(keys));
    }
    let mut rest = base.clone();
    if set.other_commands == RefuseOrAllow::Refuse {
        rest = [("id", &base["id"]), ("match", &base["match"])]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into_iter()
            .collect();
        rest.insert("refuse".to_owned(), json!(true));
    }
    commands.push(Value::Object(rest));
    Ok(commands)
}

/// The key that replaces the prefix that a rule matches.
const REPLACE_PREFIX: &str = "replacePrefixMatch";

/// Says for a command what its rule says about the prefix: the command matches more than the prefix.
///
/// # Errors
/// If the command would need several rewrites, or matches by an expression.
fn replace_prefix(
    keys: &mut Map<String, Value>,
    shape: &str,
    targets: &[(&Value, &CommandMatchSpec)],
) -> Result<(), Unsupported> {
    let Some(Value::Object(shape)) = keys.get_mut(shape) else { return Ok(()) };
    let Some(Value::String(replacement)) = shape.remove(REPLACE_PREFIX) else { return Ok(()) };
    let replacement = replacement.trim_end_matches('/');
    let target = |(_, own): &(&Value, &CommandMatchSpec)| match (&own.path, &own.path_prefix) {
        (Some(path), _) => Ok(("path", below_replacement(replacement, path))),
        (None, Some(prefix)) => Ok((REPLACE_PREFIX, below_replacement(replacement, prefix))),
        _ => Err("the rule replaces its prefix, which needs matches with path or pathPrefix".to_owned()),
    };
    let mut wanted = targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
    wanted.dedup();
    match &wanted[..] {
        [(key, path)] => drop(shape.insert((*key).to_owned(), json!(path))),
        _ => {
            return Err(
                "the rule replaces its prefix, which needs one path for each command; split the command".to_owned()
            );
        }
    }
    Ok(())
}

fn below_replacement(replacement: &str, path: &str) -> String {
    if replacement.is_empty() || path != "/" { format!("{replacement}{path}") } else { replacement.to_owned() }
}

/// The keys of a command that do not depend on a rule.
fn command_keys(command: &CommandSpec) -> Map<String, Value> {
    let mut keys = Map::new();
    keys.insert("id".to_owned(), json!(command.id));
    keys.extend(command.units.map(|units| ("units".to_owned(), json!(units))));
    keys.extend(command.limits.as_ref().map(|limits| ("limits".to_owned(), limit_keys(limits))));
    keys.extend(command.body.as_ref().map(|body| ("body".to_owned(), json!({ "max": body.max }))));
    keys
}

/// A match of a command below a path prefix.
fn own_match(own: &CommandMatchSpec, prefix: &str) -> Map<String, Value> {
    let mut keys = Map::new();
    keys.extend(own.method.as_ref().map(|method| ("method".to_owned(), json!(method))));
    keys.extend(own.path.as_ref().map(|path| ("path".to_owned(), json!(below(prefix, path)))));
    keys.extend(own.path_prefix.as_ref().map(|path| ("pathPrefix".to_owned(), json!(below(prefix, path)))));
    let regex = |regex: &str| if prefix.is_empty() { regex.to_owned() } else { below_regex(prefix, regex) };
    keys.extend(own.path_regex.as_ref().map(|own| ("pathRegex".to_owned(), json!(regex(own)))));
    keys.extend(own.grpc.as_ref().map(|grpc| ("grpc".to_owned(), json!(grpc))));
    keys.insert("headers".to_owned(), own.headers.iter().map(field_keys).collect());
    keys.insert("query".to_owned(), own.query.iter().map(field_keys).collect());
    keys
}

/// A path below a prefix; the root is the prefix itself.
fn below(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", _) => path.to_owned(),
        (_, "/") => prefix.to_owned(),
        _ => format!("{prefix}{path}"),
    }
}

fn below_regex(prefix: &str, regex: &str) -> String {
    format!("{}(?:{regex})", regex::escape(prefix))
}

fn field_keys(field: &FieldMatchSpec) -> Value {
    let mut keys = Map::new();
    keys.insert("name".to_owned(), json!(field.name));
    keys.extend(field.value.as_ref().map(|value| ("value".to_owned(), json!(value))));
    keys.extend(field.regex.as_ref().map(|regex| ("regex".to_owned(), json!(regex))));
    keys.extend(field.present.map(|present| ("present".to_owned(), json!(present))));
    Value::Object(keys)
}

/// The match that holds where both hold; `None` if they cannot both hold.
fn combined(rule: &Value, own: &CommandMatchSpec, is_grpc: bool) -> Result<Option<Value>, Unsupported> {
    let keys = match (is_grpc, &own.grpc) {
        (true, None) => return Err("a rule of a GRPCRoute needs matches with grpc".to_owned()),
        (_, Some(grpc)) => grpc_match(rule, own, grpc)?,
        (false, None) => http_match(rule, own)?,
    };
    let Some(mut keys) = keys else { return Ok(None) };
    for list in ["headers", "query"] {
        let (of_rule, of_own) = (items(rule.get(list)), items(keys.get(list)));
        let Some(both) = both_hold(of_rule, of_own)? else { return Ok(None) };
        keys.insert(list.to_owned(), Value::Array(both));
    }
    Ok(Some(Value::Object(keys)))
}

fn items(list: Option<&Value>) -> Vec<Value> {
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The conditions of both; `None` if they cannot all hold.
fn both_hold(mut first: Vec<Value>, second: Vec<Value>) -> Result<Option<Vec<Value>>, Unsupported> {
    let is_exact = |condition: &Value| condition.get("value").is_some();
    for condition in second {
        let same_name = |known: &&mut Value| {
            let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_ascii_lowercase();
            name(known) == name(&condition)
        };
        match first.iter_mut().find(same_name) {
            None => first.push(condition),
            Some(known) if *known == condition || condition.get("present").is_some() => {}
            Some(known) if known.get("present").is_some() => *known = condition,
            Some(known) if is_exact(known) && is_exact(&condition) => return Ok(None),
            Some(_) => {
                return Err(format!("the rule and the command both have a condition on {}", condition["name"]));
            }
        }
    }
    Ok(Some(first))
}

fn http_match(rule: &Value, own: &CommandMatchSpec) -> Result<Option<Map<String, Value>>, Unsupported> {
    let Some(prefix) = rule.get("pathPrefix").and_then(Value::as_str) else {
        return Err("the rule matches a path by Exact or RegularExpression; use PathPrefix".to_owned());
    };
    let mut keys = own_match(own, prefix.trim_end_matches('/'));
    match (rule.get("method"), keys.get("method")) {
        (Some(of_rule), Some(of_own)) if of_rule != of_own => return Ok(None),
        (Some(of_rule), None) => drop(keys.insert("method".to_owned(), of_rule.clone())),
        _ => {}
    }
    Ok(Some(keys))
}

/// A rule of a GRPCRoute is a prefix of paths: `/` or `/package.Service`.
fn grpc_match(rule: &Value, own: &CommandMatchSpec, grpc: &str) -> Result<Option<Map<String, Value>>, Unsupported> {
    let Some(prefix) = rule.get("pathPrefix").and_then(Value::as_str) else {
        return Err("the rule matches a method by its name or an expression; match the service, or nothing".to_owned());
    };
    if rule.get("method").is_some_and(|method| method != "POST") {
        return Ok(None);
    }
    let mut keys = own_match(own, "");
    let service = prefix.trim_matches('/');
    match (service, grpc.split_once('/')) {
        ("", _) => {}
        (service, Some((own, _))) if own == service => {}
        (service, Some(("*", method))) => drop(keys.insert("grpc".to_owned(), json!(format!("{service}/{method}")))),
        (service, None) => drop(keys.insert("grpc".to_owned(), json!(format!("{service}/*")))),
        _ => return Ok(None),
    }
    Ok(Some(keys))
}

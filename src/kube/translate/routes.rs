//! HTTPRoutes and GRPCRoutes, as subsystems: one for each route, with a command for each of its rules.
//!
//! Guarantees:
//! - A rule is metered under its route and its name, or its position; with a CommandSet, by its commands.
//! - A route that is the target of a Grant is open to nobody by itself.
//! - A route with a part that is not supported is refused as a whole: it fails closed.
//! - A reference that leads nowhere takes its share of requests: 500, and `ResolvedRefs` says why.
//!
//! Leaves to others: attachment (`attachment`), filters (`http_filters`), and backends (`backends`).

mod attachment;
mod route_memo;
mod route_page;
mod tls_routes;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use self::attachment::{AttachingRoute, Attachment};
pub(super) use self::route_memo::{CommonRouteInputs, RouteMemo};
use self::route_page::TranslatedRoute;
use super::backends::{BackendOverrides, BackendProtocol, BackendSet, BackendUser};
use super::closed_routes::ClosedRoutes;
use super::command_sets::{CommandSets, commands_of_rule};
use super::condition::{ACCEPTED, Condition, RESOLVED_REFS};
use super::gateways::{GatewayListenerPlan, GatewayPlan};
use super::hostnames::configured_host;
use super::http_filters::{MirrorTargets, RuleFilters, Unsupported, backend_headers};
use super::named_document::{DocumentList, NamedDocument};
use super::names;
use super::references::{BrokenReference, Referrer};
use crate::kube::index::{Index, RouteFact};
use crate::kube::objects::{
    BackendReference, GrpcFilter, GrpcRoute, GrpcRouteMatch, HttpBackend, HttpFilter, HttpRoute, HttpRouteMatch,
    HttpRule, ObjectKey, ObjectKind, ParentReference, PathMatchKind, RouteDuration, RouteRetry, ValueMatch,
    ValueMatchKind,
};
use crate::model::PagedList;

/// The largest request body of a route. The Gateway API has no such limit; this one bounds what one request may do.
const BODY_MAX: &str = "1GiB";

/// A route with its conditions.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteOutcome {
    /// The kind of the route.
    pub kind: ObjectKind,
    /// Its key.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// For each parent of this controller the conditions.
    pub parents: Vec<(ParentReference, Vec<Condition>)>,
    /// The name of its document, if it has one.
    pub document: Option<String>,
}

/// Routes with their conditions, in the order of their documents.
pub type OutcomeList = PagedList<Arc<RouteOutcome>>;

/// A rule of either kind of route.
struct RouteRule<'a> {
    name: Option<&'a str>,
    matches: Vec<Value>,
    filters: Vec<HttpFilter>,
    backends: Vec<(&'a BackendReference, Vec<HttpFilter>)>,
    timeouts: Option<Value>,
    retries: Option<Value>,
}

/// What the translation of routes shares.
pub(super) struct RouteTranslation<'a, 'g> {
    pub(super) index: &'a Index,
    pub(super) gateways: &'g mut Vec<GatewayPlan<'a>>,
    pub(super) backends: BackendSet,
    pub(super) documents: DocumentList,
    pub(super) outcomes: OutcomeList,
    /// The routes without a parent of this controller, and those that cannot be read.
    pub(super) others: Vec<(ObjectKind, ObjectKey)>,
    pub(super) command_sets: &'g CommandSets<'a>,
    pub(super) closed: &'g ClosedRoutes,
}

/// A route with its parts.
struct RouteParts<'r> {
    attaching: AttachingRoute<'r>,
    rules: Result<Vec<RouteRule<'r>>, Unsupported>,
}

impl RouteTranslation<'_, '_> {
    /// Translates the routes that have changed, and takes up the translations of all.
    pub(super) fn take_all(&mut self, memo: &mut RouteMemo, common: CommonRouteInputs) {
        memo.update(self.index, common, &mut |key, fact, known| self.translate(key, fact, known));
        for page in memo.pages() {
            self.backends.add_uses(&page.uses);
            for ((gateway, listener), count) in &page.attached {
                self.gateways[*gateway].listeners[*listener].attached_routes += count;
            }
            self.documents.push_page(Arc::clone(&page.documents));
            self.outcomes.push_page(Arc::clone(&page.outcomes));
            self.others.extend_from_slice(&page.others);
        }
    }

    /// Translates a route. `known` is what it was translated to before.
    fn translate(&mut self, key: &ObjectKey, fact: &RouteFact, known: Option<&TranslatedRoute>) -> TranslatedRoute {
        let kind = fact.kind();
        let translated = match fact {
            RouteFact::Http(fact) => fact.valid().map(|route| self.translate_route(kind, http_parts(key, route))),
            RouteFact::Grpc(fact) => fact.valid().map(|route| self.translate_route(kind, grpc_parts(key, route))),
            RouteFact::Tls(fact) => fact.valid().map(|route| self.translate_tls_route(key, route)),
        };
        let uses = self.backends.take_uses();
        let Some(AttachedRoute { attachments, resolved, document }) = translated.flatten() else {
            return TranslatedRoute { uses, ..TranslatedRoute::default() };
        };
        let parent = |one: &Attachment<'_>| (one.parent.clone(), vec![one.accepted.clone(), resolved.clone()]);
        let document = document.map(|content| NamedDocument::new(&format!("{kind} {key}"), &content));
        let outcome = RouteOutcome {
            kind,
            key: key.clone(),
            generation: fact.meta().generation,
            parents: attachments.iter().map(parent).collect(),
            document: document.as_ref().map(|document| document.name().to_string()),
        };
        TranslatedRoute {
            outcome: Some(Arc::new(outcome)),
            document: document.map(|document| document.shared_with(known.and_then(|known| known.document.as_ref()))),
            attached: attached_listeners(&attachments),
            uses,
        }
    }

    /// Translates a route of requests; `None` if all its parents belong to other controllers.
    fn translate_route<'r>(&mut self, kind: ObjectKind, route: RouteParts<'r>) -> Option<AttachedRoute<'r>> {
        let RouteParts { attaching, rules } = route;
        let mut attachments = attachment::attach(self.index, self.gateways, attaching);
        if attachments.is_empty() {
            return None;
        }
        let from = Referrer { kind: attaching.kind, namespace: &attaching.key.namespace };
        self.backends.set_user(backend_user(self.gateways, &attachments));
        let commands = rules.and_then(|rules| self.commands(from, rules));
        let (commands, resolved) = match commands {
            Ok((commands, broken)) => (Some(commands), resolved_refs(broken)),
            Err(unsupported) => {
                let refused = Condition::fails(ACCEPTED, "UnsupportedValue", unsupported);
                attachments.iter_mut().for_each(|one| one.accepted = refused.clone());
                (None, Condition::holds(RESOLVED_REFS, "ResolvedRefs"))
            }
        };
        let document = commands.and_then(|commands| self.document((kind, attaching), &attachments, commands));
        Some(AttachedRoute { attachments, resolved, document })
    }

    /// The commands of the rules, and the references that lead nowhere.
    fn commands(
        &mut self,
        from: Referrer<'_>,
        rules: Vec<RouteRule<'_>>,
    ) -> Result<(Vec<Value>, Vec<BrokenReference>), Unsupported> {
        let mut broken = Vec::new();
        let mut commands = Vec::with_capacity(rules.len());
        for (position, rule) in rules.iter().enumerate() {
            commands.extend(self.commands_of(from, (position, rule), &mut broken)?);
        }
        Ok((commands, broken))
    }

    fn commands_of(
        &mut self,
        from: Referrer<'_>,
        (position, rule): (usize, &RouteRule<'_>),
        broken: &mut Vec<BrokenReference>,
    ) -> Result<Vec<Value>, Unsupported> {
        let mut targets = MirrorTargets { index: self.index, from, backends: &mut self.backends };
        let filters = RuleFilters::translate(&rule.filters, &mut targets)?;
        broken.extend(filters.broken);
        let mut command: Map<String, Value> = filters.keys;
        command.insert("id".to_owned(), json!(names::command(rule.name, position)));
        command.insert("match".to_owned(), json!(rule.matches));
        command.insert("body".to_owned(), json!({ "max": BODY_MAX }));
        let command_set = match &filters.command_set {
            None => None,
            Some(name) => match self.command_sets.find(&ObjectKey::new(from.namespace, name)) {
                Ok(set) => Some(set),
                Err(fault) => {
                    broken.push(fault);
                    command.remove("redirect");
                    command.remove("mirror");
                    command.insert("backends".to_owned(), json!([{ "status": 500 }]));
                    return Ok(vec![Value::Object(command)]);
                }
            },
        };
        if !filters.is_redirect {
            self.add_backends(from, rule, (&mut command, filters.is_mirrored), broken)?;
        }
        match command_set {
            Some(set) => commands_of_rule(&command, (set, from.kind == "GRPCRoute")),
            None => Ok(vec![Value::Object(command)]),
        }
    }

    /// Adds where the requests of a rule go.
    fn add_backends(
        &mut self,
        from: Referrer<'_>,
        rule: &RouteRule<'_>,
        (command, is_mirrored): (&mut Map<String, Value>, bool),
        broken: &mut Vec<BrokenReference>,
    ) -> Result<(), Unsupported> {
        let mut all_http1 = true;
        let mut shares = Vec::with_capacity(rule.backends.len());
        for (reference, edits) in &rule.backends {
            let resolved = self.backends.resolve_with(self.index, from, reference, rule.retries.as_ref());
            let mut share = match resolved {
                Ok(resolved) => {
                    all_http1 &= resolved.protocol == BackendProtocol::Http1;
                    json!({ "backend": resolved.id, "weight": reference.weight })
                }
                Err(fault) => {
                    broken.push(fault);
                    json!({ "status": 500, "weight": reference.weight })
                }
            };
            if let Some(headers) = backend_headers(edits)?.filter(|_| share.get("backend").is_some()) {
                share["headers"] = headers;
            }
            shares.push(share);
        }
        if shares.is_empty() {
            shares.push(json!({ "status": 500 }));
        }
        command.insert("backends".to_owned(), Value::Array(shares));
        if all_http1 && !is_mirrored {
            command.insert("upgrade".to_owned(), json!("websocket"));
        }
        if let Some(timeouts) = &rule.timeouts {
            command.insert("timeouts".to_owned(), timeouts.clone());
        }
        Ok(())
    }

    /// The departments of the callers of a route: those of its Gateways.
    fn departments_of(&self, attachments: &[Attachment<'_>]) -> Vec<String> {
        let mut departments: Vec<String> = attachments
            .iter()
            .filter(|one| one.accepted.holds)
            .map(|one| &self.gateways[one.gateway])
            .filter(|plan| plan.listeners.iter().any(GatewayListenerPlan::is_live))
            .map(|plan| names::department(plan.key))
            .collect();
        departments.sort();
        departments.dedup();
        departments
    }

    /// The document of a route that is attached to a listener which serves.
    fn document(
        &self,
        (kind, route): (ObjectKind, AttachingRoute<'_>),
        attachments: &[Attachment<'_>],
        commands: Vec<Value>,
    ) -> Option<Value> {
        let listeners = attachment::bindings(self.gateways, attachments, |_| true);
        if listeners.is_empty() || commands.is_empty() {
            return None;
        }
        let id = names::subsystem(route.key, names::subsystem_kind(kind));
        let is_closed = self.closed.contains(kind, route.key);
        let departments = if is_closed { Vec::new() } else { self.departments_of(attachments) };
        let grants = departments
            .iter()
            .map(|department| json!({ "department": department, "subsystem": id, "commands": ["*"] }));
        let grants: Vec<Value> = grants.collect();
        let mut subsystem = json!({
            "id": id,
            "listeners": listeners,
            "path": "/",
            "keepPath": true,
            "commands": commands,
            "otherCommands": "next",
        });
        if !route.hostnames.is_empty() {
            let hosts: Vec<String> = route.hostnames.iter().map(|hostname| configured_host(hostname)).collect();
            subsystem["hosts"] = json!(hosts);
        }
        Some(json!({ "subsystems": [subsystem], "grants": grants }))
    }
}

/// A route that is attached to Gateways of this controller.
struct AttachedRoute<'r> {
    attachments: Vec<Attachment<'r>>,
    /// `ResolvedRefs` for all parents.
    resolved: Condition,
    /// The content of its document, if it has one.
    document: Option<Value>,
}

/// The Gateways that a route is attached to, with the first of their certificates for backends.
fn backend_user(gateways: &[GatewayPlan<'_>], attachments: &[Attachment<'_>]) -> BackendUser {
    let attached = attachments.iter().filter(|one| one.accepted.holds).map(|one| &gateways[one.gateway]);
    let attached: Vec<&GatewayPlan<'_>> = attached.collect();
    BackendUser {
        gateways: attached.iter().map(|plan| plan.key.clone()).collect(),
        client_certificate: attached.iter().find_map(|plan| plan.client_certificate.clone()),
        overrides: BackendOverrides::default(),
        is_passthrough: false,
    }
}

/// The listeners that take a route, each once: positions of Gateways, and of listeners there.
fn attached_listeners(attachments: &[Attachment<'_>]) -> Vec<(usize, usize)> {
    let accepted = attachments.iter().filter(|one| one.accepted.holds);
    let places = accepted.flat_map(|one| one.listeners.iter().map(|listener| (one.gateway, *listener)));
    let mut places: Vec<(usize, usize)> = places.collect();
    places.sort_unstable();
    places.dedup();
    places
}

fn resolved_refs(broken: Vec<BrokenReference>) -> Condition {
    match broken.into_iter().next() {
        Some(first) => Condition::fails(RESOLVED_REFS, first.reason, first.message),
        None => Condition::holds(RESOLVED_REFS, "ResolvedRefs"),
    }
}

fn http_parts<'r>(key: &'r ObjectKey, route: &'r HttpRoute) -> RouteParts<'r> {
    let HttpRoute { parent_refs, hostnames, rules } = route;
    let attaching = AttachingRoute { key, kind: "HTTPRoute", parents: parent_refs, hostnames };
    RouteParts { attaching, rules: rules.iter().map(http_rule).collect() }
}

fn http_rule(rule: &HttpRule) -> Result<RouteRule<'_>, Unsupported> {
    if rule.session_persistence.is_some() {
        return Err("sessionPersistence is not supported".to_owned());
    }
    let whole = HttpRouteMatch::default();
    let matches = if rule.matches.is_empty() { std::slice::from_ref(&whole) } else { &rule.matches };
    let backend = |backend: &'_ HttpBackend| backend.filters.clone();
    Ok(RouteRule {
        name: rule.name.as_deref(),
        matches: matches.iter().map(http_match).collect::<Result<_, _>>()?,
        filters: rule.filters.clone(),
        backends: rule.backend_refs.iter().map(|one| (&one.backend, backend(one))).collect(),
        timeouts: timeouts(rule.timeouts.request, rule.timeouts.backend_request),
        retries: rule.retry.as_ref().and_then(retries),
    })
}

/// Retries of a rule; none for no attempts (Gateway API 1.7). They have no budget of their own there: 100 % is the
/// largest one.
fn retries(retry: &RouteRetry) -> Option<Value> {
    let attempts = retry.attempts.unwrap_or(1);
    if attempts == 0 {
        return None;
    }
    let codes = retry.codes.iter().map(|code| json!(code));
    let on: Vec<Value> = codes.chain([json!("connect-failure")]).collect();
    let mut keys = json!({ "attempts": attempts, "on": on, "budgetPercent": 100 });
    if let Some(backoff) = retry.backoff {
        keys["backoff"] = json!(format!("{}ms", backoff.0.as_millis()));
    }
    Some(keys)
}

fn timeouts(request: Option<RouteDuration>, attempt: Option<RouteDuration>) -> Option<Value> {
    let text = |duration: RouteDuration| format!("{}ms", duration.0.as_millis());
    let mut keys = Map::new();
    keys.extend(request.map(|duration| ("request".to_owned(), json!(text(duration)))));
    keys.extend(attempt.map(|duration| ("attempt".to_owned(), json!(text(duration)))));
    (!keys.is_empty()).then_some(Value::Object(keys))
}

fn http_match(matched: &HttpRouteMatch) -> Result<Value, Unsupported> {
    let HttpRouteMatch { path, headers, query_params, method } = matched;
    let key = match &path.kind {
        PathMatchKind::Exact => "path",
        PathMatchKind::PathPrefix => "pathPrefix",
        PathMatchKind::RegularExpression => "pathRegex",
        PathMatchKind::Other(other) => return Err(format!("a path match of the type {other} is not supported")),
    };
    let mut keys = Map::new();
    keys.insert(key.to_owned(), json!(path.value));
    keys.extend(method.as_ref().map(|method| ("method".to_owned(), json!(method))));
    keys.insert("headers".to_owned(), value_matches(headers, true)?);
    keys.insert("query".to_owned(), value_matches(query_params, false)?);
    Ok(Value::Object(keys))
}

/// Conditions on fields or parameters. Of several with one name only the first counts (Gateway API).
fn value_matches(matches: &[ValueMatch], ignore_case: bool) -> Result<Value, Unsupported> {
    let mut known: Vec<String> = Vec::new();
    let mut conditions = Vec::new();
    for one in matches {
        let name = if ignore_case { one.name.to_ascii_lowercase() } else { one.name.to_string() };
        if known.contains(&name) {
            continue;
        }
        let key = match &one.kind {
            ValueMatchKind::Exact => "value",
            ValueMatchKind::RegularExpression => "regex",
            ValueMatchKind::Other(other) => return Err(format!("a match of the type {other} is not supported")),
        };
        conditions.push(json!({ "name": one.name, key: one.value }));
        known.push(name);
    }
    Ok(Value::Array(conditions))
}

fn grpc_parts<'r>(key: &'r ObjectKey, route: &'r GrpcRoute) -> RouteParts<'r> {
    let GrpcRoute { parent_refs, hostnames, rules } = route;
    let attaching = AttachingRoute { key, kind: "GRPCRoute", parents: parent_refs, hostnames };
    let rule = |rule: &'r crate::kube::objects::GrpcRule| {
        if rule.session_persistence.is_some() {
            return Err("sessionPersistence is not supported".to_owned());
        }
        let whole = GrpcRouteMatch::default();
        let matches = if rule.matches.is_empty() { std::slice::from_ref(&whole) } else { &rule.matches };
        let filters = |filters: &[GrpcFilter]| filters.iter().map(http_filter).collect::<Vec<_>>();
        Ok(RouteRule {
            name: rule.name.as_deref(),
            matches: matches.iter().map(grpc_match).collect::<Result<_, Unsupported>>()?,
            filters: filters(&rule.filters),
            backends: rule.backend_refs.iter().map(|one| (&one.backend, filters(&one.filters))).collect(),
            timeouts: None,
            retries: None,
        })
    };
    RouteParts { attaching, rules: rules.iter().map(rule).collect() }
}

fn http_filter(filter: &GrpcFilter) -> HttpFilter {
    HttpFilter {
        kind: filter.kind.clone(),
        request_header_modifier: filter.request_header_modifier.clone(),
        response_header_modifier: filter.response_header_modifier.clone(),
        request_mirror: filter.request_mirror.clone(),
        request_redirect: None,
        url_rewrite: None,
        cors: None,
        extension_ref: filter.extension_ref.clone(),
    }
}

/// A gRPC method is the path `/package.Service/Method`.
fn grpc_match(matched: &GrpcRouteMatch) -> Result<Value, Unsupported> {
    let mut keys = Map::new();
    let method = matched.method.clone().unwrap_or_default();
    let (key, path) = match (&method.kind, method.service.as_deref(), method.method.as_deref()) {
        (_, None, None) => ("pathPrefix", "/".to_owned()),
        (ValueMatchKind::Exact, Some(service), Some(method)) => ("path", format!("/{service}/{method}")),
        (ValueMatchKind::Exact, Some(service), None) => ("pathPrefix", format!("/{service}")),
        (ValueMatchKind::Exact, None, Some(method)) => ("pathRegex", format!("/[^/]+/{}", regex::escape(method))),
        (ValueMatchKind::RegularExpression, service, method) => {
            ("pathRegex", format!("/{}/{}", service.unwrap_or("[^/]+"), method.unwrap_or("[^/]+")))
        }
        (ValueMatchKind::Other(other), ..) => return Err(format!("a match of the type {other} is not supported")),
    };
    keys.insert(key.to_owned(), json!(path));
    keys.insert("headers".to_owned(), value_matches(&matched.headers, true)?);
    Ok(Value::Object(keys))
}

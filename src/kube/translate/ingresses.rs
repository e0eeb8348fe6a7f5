//! Ingresses of this controller, as subsystems on two listeners that all of them share.
//!
//! Guarantees:
//! - An Ingress belongs to this controller by its class alone: by `ingressClassName`, by the older annotation, or as
//!   the default class of the cluster.
//! - `*.` in a host is exactly one label, as the Ingress API says.
//! - A backend that leads nowhere is answered with 500 for its path, and is a fault of the Ingress.
//! - An Ingress with an annotation that restricts callers and cannot be honoured is refused: its paths are answered
//!   with 503, so that they do not reach another Ingress of the host either.
//!
//! Leaves to others: Gateways (`gateways`), the listeners (`ingress_listeners`), annotations (`nginx`).

mod ingress_listeners;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

pub(super) use self::ingress_listeners::DEPARTMENT;
use self::ingress_listeners::{HTTP_LISTENER, HTTPS_LISTENER, IngressHosts};
use super::backends::{BackendOverrides, BackendProtocol, BackendSet, BackendUser};
use super::certificates::{
    CertificateTexts, CertificateUse, TextCollector, take_authorities, take_certificate, take_revocation_lists,
};
use super::client_auth_policies::ClientAuthSettings;
use super::closed_routes::ClosedRoutes;
use super::names;
use super::nginx::{
    AnnotationCounts, CanaryPlan, FindingVerdict, HttpsScope, NginxPlan, PathPlan, UpstreamPlan, held_paths,
    read_annotations,
};
use super::references::{BrokenReference, Referrer};
use super::services::{ServiceSettings, ingress_service};
use crate::kube::CONTROLLER_NAME;
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{
    BackendReference, Ingress, IngressAddress, IngressBackend, IngressClass, ObjectKey, ObjectKind, ObjectReference,
    RefuseOrAllow, SecretReference,
};
use crate::policy::FieldEdits;

/// The class of an Ingress before Kubernetes 1.18.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// The largest request body, as for routes.
const BODY_MAX: &str = "1GiB";
/// The reason of annotations that are lost or differ.
const UNSUPPORTED_ANNOTATION: &str = "UnsupportedAnnotation";
/// The entry of the Secret of `auth-tls-secret` with revocation lists, if there are some.
const REVOCATION_ENTRY: &str = "ca.crl";

/// A fault of an Ingress: a reason, and a sentence.
type IngressFault = (&'static str, String);

/// An Ingress of this controller.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressOutcome {
    /// Its key.
    pub key: ObjectKey,
    /// The names of its documents.
    pub document: Option<String>,
    /// Its faults: a reason, and a sentence.
    pub faults: Vec<(&'static str, String)>,
    /// Its annotations of ingress-nginx, by what becomes of them.
    pub annotations: AnnotationCounts,
    /// Its subsystems, beside those that only redirect to HTTPS.
    pub subsystems: Vec<IngressSubsystem>,
}

/// A subsystem of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressSubsystem {
    /// Its id.
    pub id: String,
    /// The ids of its commands.
    pub commands: Vec<String>,
}

/// The translation of all Ingresses.
#[derive(Debug, Default)]
pub(super) struct IngressTranslation {
    pub(super) documents: Vec<(String, Value)>,
    pub(super) outcomes: Vec<IngressOutcome>,
}

/// The addresses at which callers reach Ingresses.
pub(super) fn ingress_addresses(index: &Index, settings: &ServiceSettings) -> Vec<IngressAddress> {
    let service = ingress_service(index, settings).and_then(|(_, fact)| fact.valid());
    service.map(|service| service.status.load_balancer.ingress.clone()).unwrap_or_default()
}

/// An Ingress with what its annotations ask for.
struct IngressPlan<'a> {
    key: &'a ObjectKey,
    ingress: &'a Ingress,
    /// The UID of its class.
    class_uid: Box<str>,
    nginx: NginxPlan,
    user: BackendUser,
    client_auth: Option<Value>,
    is_refused: bool,
    faults: Vec<IngressFault>,
}

impl IngressPlan<'_> {
    fn refuse(&mut self, reason: &'static str, why: &str) {
        self.is_refused = true;
        self.faults.push((reason, format!("{why}; the Ingress is refused")));
    }

    /// The hosts of its rules and its aliases.
    fn hosts(&self) -> Vec<String> {
        let rules = self.ingress.rules.iter().filter_map(|rule| rule.host.as_ref());
        let mut hosts = hosts_of(rules.filter(|host| !host.is_empty()));
        hosts.extend(self.nginx.aliases.iter().cloned());
        hosts
    }
}

/// A canary for one path of another Ingress.
struct CanaryTarget<'p> {
    /// The place of its Ingress.
    position: usize,
    plan: &'p CanaryPlan,
    backend: &'p IngressBackend,
}

/// The canaries by namespace, host and path.
type CanaryMap<'p> = BTreeMap<(&'p str, String, &'p str), CanaryTarget<'p>>;

/// Translates the Ingresses of this controller, the oldest first.
pub(super) fn translate_ingresses(
    index: &Index,
    texts: &mut TextCollector<'_>,
    (backends, closed): (&mut BackendSet, &ClosedRoutes),
) -> IngressTranslation {
    let mut ours: Vec<(&ObjectKey, &Fact<Ingress>, &Ingress)> = index
        .ingresses()
        .iter()
        .filter_map(|(key, fact)| Some((key, fact, fact.valid()?)))
        .filter(|(_, fact, ingress)| is_ours(index, fact, ingress))
        .collect();
    ours.sort_by_cached_key(|(key, fact, _)| (fact.meta.created, (*key).clone()));
    let mut plans: Vec<IngressPlan<'_>> =
        ours.iter().map(|(key, fact, ingress)| plan_ingress(index, (*key, *fact, *ingress), texts)).collect();
    if plans.is_empty() {
        return IngressTranslation::default();
    }
    let (hosts, has_https) = plan_hosts(index, &mut plans, texts);
    let canaries = canaries(&plans);
    let root_regex_hosts = root_regex_hosts(&plans);
    let mut writer = SubsystemWriter {
        index,
        backends,
        has_https,
        canaries: &canaries,
        root_regex_hosts: &root_regex_hosts,
        used: Vec::new(),
    };
    let mut documents = vec![("the listeners of Ingresses".to_owned(), hosts.document())];
    let mut last = Vec::new();
    let mut written: Vec<WrittenIngress> = Vec::new();
    for plan in &plans {
        if plan.is_refused || plan.nginx.canary.is_some() {
            documents.extend(writer.held_document(plan));
            written.push(WrittenIngress::default());
            continue;
        }
        let mut faults = Vec::new();
        let subsystems = writer.subsystems(plan, &mut faults);
        let name = format!("Ingress {}", plan.key);
        let is_closed = closed.contains(ObjectKind::Ingress, plan.key);
        let document = (!subsystems.is_empty()).then(|| (name.clone(), ingress_document(&subsystems, is_closed)));
        let subsystems = subsystems.iter().filter(|one| !one.is_redirect).map(WrittenSubsystem::named).collect();
        written.push(WrittenIngress { document: document.as_ref().map(|_| name), faults, subsystems });
        // What matches everything comes last.
        let is_last = plan.hosts().iter().any(|host| root_regex_hosts.contains(host)) && !has_root_regex(plan);
        if is_last { last.extend(document) } else { documents.extend(document) }
    }
    documents.extend(last);
    let used = std::mem::take(&mut writer.used);
    let outcomes = plans.iter().zip(written).enumerate().map(|(position, (plan, written))| {
        let WrittenIngress { document, faults, subsystems } = written;
        let mut all = plan.faults.clone();
        all.extend(faults);
        if plan.nginx.canary.is_some() && !plan.is_refused && !used.contains(&position) {
            let message = "no other Ingress of this namespace has the host and the path of this canary".to_owned();
            all.push(("NoMainIngress", message));
        }
        let annotations = AnnotationCounts::of(&plan.nginx.findings);
        IngressOutcome { key: plan.key.clone(), document, faults: all, annotations, subsystems }
    });
    IngressTranslation { outcomes: outcomes.collect(), documents }
}

/// An Ingress as it was written.
#[derive(Default)]
struct WrittenIngress {
    document: Option<String>,
    faults: Vec<IngressFault>,
    subsystems: Vec<IngressSubsystem>,
}

/// The document of subsystems. Redirects to HTTPS stay open although the Ingress is closed: only there can callers show
/// a certificate.
fn ingress_document(subsystems: &[WrittenSubsystem], is_closed: bool) -> Value {
    let grant = |subsystem: &WrittenSubsystem| json!({ "department": DEPARTMENT, "subsystem": subsystem.keys["id"], "commands": ["*"] });
    let open = subsystems.iter().filter(|subsystem| !is_closed || subsystem.is_redirect);
    let grants: Vec<Value> = open.map(grant).collect();
    let subsystems: Vec<&Value> = subsystems.iter().map(|subsystem| &subsystem.keys).collect();
    json!({ "subsystems": subsystems, "grants": grants })
}

/// A subsystem as it was written.
struct WrittenSubsystem {
    keys: Value,
    /// Whether it only redirects to HTTPS.
    is_redirect: bool,
}

impl WrittenSubsystem {
    fn named(&self) -> IngressSubsystem {
        let text = |value: &Value| value["id"].as_str().unwrap_or_default().to_owned();
        let commands = self.keys["commands"].as_array().into_iter().flatten().map(text).collect();
        IngressSubsystem { id: text(&self.keys), commands }
    }
}

/// Reads the annotations of an Ingress, and the objects that they name.
fn plan_ingress<'a>(
    index: &Index,
    (key, fact, ingress): (&'a ObjectKey, &Fact<Ingress>, &'a Ingress),
    texts: &mut TextCollector<'_>,
) -> IngressPlan<'a> {
    let nginx = read_annotations(&key.namespace, ingress, &fact.meta.annotations);
    let lossy = nginx.findings.iter().filter(|finding| finding.verdict != FindingVerdict::Taken);
    let fault = |finding: &super::nginx::NginxFinding| {
        let (word, name, why) = (finding.verdict.word(), &finding.annotation, &finding.sentence);
        (UNSUPPORTED_ANNOTATION, format!("{name} {word}: {why}"))
    };
    let faults: Vec<IngressFault> = lossy.map(fault).collect();
    let is_refused = nginx.refuses();
    let user = BackendUser::default();
    let class_uid = class_of(index, fact, ingress).map(|class| class.meta.uid.clone()).unwrap_or_default();
    let mut plan = IngressPlan { key, ingress, class_uid, nginx, user, client_auth: None, is_refused, faults };
    if !plan.is_refused {
        take_client_auth(index, &mut plan, texts);
        take_upstream(index, &mut plan, texts);
        take_custom_headers(index, &mut plan);
    }
    plan
}

fn secret_reference(name: &str) -> ObjectReference {
    ObjectReference { group: "".into(), kind: "Secret".into(), name: name.into(), namespace: None }
}

/// A mapping with the keys of another one, which win.
fn with_keys(mut mapping: Value, others: Value) -> Value {
    if let (Value::Object(keys), Value::Object(others)) = (&mut mapping, others) {
        keys.extend(others);
    }
    mapping
}

/// Takes up the authorities and the revocation lists of callers (`auth-tls-secret`).
fn take_client_auth(index: &Index, plan: &mut IngressPlan<'_>, texts: &mut TextCollector<'_>) {
    let Some(wanted) = plan.nginx.client_auth.clone() else { return };
    match secret_auth(index, &plan.key.namespace, &wanted.secret, texts) {
        Ok(client_auth) => {
            plan.client_auth = Some(with_keys(client_auth, wanted.settings)); // also the mode is the annotations'
        }
        Err(broken) => plan.refuse(broken.reason, &broken.message),
    }
}

/// `clientAuth` with `ca.crt` and `ca.crl` of a Secret. As in nginx, a list that has expired refuses the callers of its
/// authority.
fn secret_auth(
    index: &Index,
    namespace: &str,
    secret: &str,
    texts: &mut TextCollector<'_>,
) -> Result<Value, BrokenReference> {
    let (from, reference) = (Referrer { kind: "Ingress", namespace }, secret_reference(secret));
    let authorities = take_authorities(index, from, &reference, texts)?;
    let fact = index.secrets().valid(&ObjectKey::new(namespace, secret));
    let has_lists = fact.is_some_and(|secret| secret.data.contains_key(REVOCATION_ENTRY));
    let lists =
        has_lists.then(|| take_revocation_lists(index, from, (&reference, REVOCATION_ENTRY), texts)).transpose()?;
    let realm = ClientAuthSettings {
        mode: "required",
        expired_revocation: RefuseOrAllow::Refuse,
        unclaimed_callers: RefuseOrAllow::Allow,
    };
    let lists: Vec<String> = lists.into_iter().collect();
    let bad = |message: String| BrokenReference { reason: "InvalidCACertificateRef", message };
    texts.client_auth(realm, &[authorities], &lists).map_err(bad)
}

/// Says how servers are called (`backend-protocol`, `proxy-ssl-*`, timeouts).
fn take_upstream(index: &Index, plan: &mut IngressPlan<'_>, texts: &mut TextCollector<'_>) {
    let UpstreamPlan { is_http2, is_tls, secret, server_name, mut keys } = plan.nginx.upstream.clone();
    if let Some(cookie) = keys.get_mut("balance").and_then(|balance| balance.get_mut("cookie"))
        && cookie["mode"] == "persistent"
    {
        // Nobody can guess the UID of an object, and all replicas know it.
        cookie["secret"] = json!(format!("sessions of the IngressClass {}", plan.class_uid));
    }
    let protocol = is_http2.map(|is_http2| if is_http2 { BackendProtocol::Http2 } else { BackendProtocol::Http1 });
    let mut overrides = BackendOverrides { protocol, tls: None, keys };
    if is_tls {
        let mut tls = json!({});
        let from = Referrer { kind: "Ingress", namespace: &plan.key.namespace };
        match &secret {
            None => tls["systemAuthorities"] = json!(true),
            Some(secret) => match take_authorities(index, from, &secret_reference(secret), texts) {
                Ok(authorities) => tls["authorities"] = json!([authorities]),
                Err(broken) => return plan.refuse(broken.reason, &broken.message),
            },
        }
        if let Some(name) = server_name {
            tls["serverName"] = json!(name);
        }
        overrides.tls = Some(tls);
        // The Secret may have authorities alone.
        let own = secret.map(|name| SecretReference {
            group: "".into(),
            kind: "Secret".into(),
            name: name.as_str().into(),
            namespace: None,
        });
        let own =
            own.and_then(|reference| take_certificate(index, from, (&reference, CertificateUse::Backend), texts).ok());
        plan.user.client_certificate = own;
    }
    plan.user.overrides = overrides;
}

/// Takes up the fields of responses of a ConfigMap (`custom-headers`).
fn take_custom_headers(index: &Index, plan: &mut IngressPlan<'_>) {
    let Some(name) = &plan.nginx.custom_headers else { return };
    let key = ObjectKey::new(&plan.key.namespace, name);
    let Some(map) = index.config_maps().valid(&key) else {
        plan.faults.push((UNSUPPORTED_ANNOTATION, format!("custom-headers lost: there is no ConfigMap {key}")));
        return;
    };
    let is_plain =
        |value: &str| value.trim() == value && value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    let fields = map.data.iter().filter(|(name, value)| FieldEdits::parse_name(name).is_ok() && is_plain(value));
    let set: Map<String, Value> =
        fields.take(FieldEdits::MAX).map(|(name, value)| (name.to_string(), json!(value))).collect();
    if set.len() < map.data.len() {
        let message = format!("custom-headers differs: fields of the ConfigMap {key} are left out");
        plan.faults.push((UNSUPPORTED_ANNOTATION, message));
    }
    let headers = plan.nginx.command.entry("headers").or_insert_with(|| json!({}));
    headers["response"] = json!({ "set": set });
}

/// The hosts with their certificates and client certificates, and whether there is an HTTPS listener.
fn plan_hosts(index: &Index, plans: &mut [IngressPlan<'_>], texts: &mut TextCollector<'_>) -> (IngressHosts, bool) {
    let mut hosts = IngressHosts::default();
    for plan in plans.iter_mut().filter(|plan| !plan.is_refused) {
        let Some(client_auth) = plan.client_auth.clone() else { continue };
        let own = plan.hosts();
        if let Some(host) = own.iter().find(|host| hosts.client_auth(host).is_some_and(|other| *other != client_auth)) {
            let why = format!("an older Ingress asks for other client certificates for the host {host}");
            plan.refuse("Conflicted", &why);
            continue;
        }
        own.iter().for_each(|host| hosts.add_client_auth(host, &client_auth));
    }
    refuse_open_hosts(plans, &hosts);
    for plan in plans.iter_mut().filter(|plan| !plan.is_refused) {
        for (texts, mut named) in ingress_certificates(index, plan.key, plan.ingress, (texts, &mut plan.faults)) {
            let rules = plan.ingress.rules.iter().filter_map(|rule| rule.host.as_deref());
            if rules.into_iter().any(|host| named.iter().any(|name| name.eq_ignore_ascii_case(host))) {
                named.extend(plan.nginx.aliases.iter().cloned());
            }
            hosts.add_certificate(&texts, &named);
        }
    }
    let has_https = hosts.complete();
    for plan in plans.iter_mut().filter(|plan| !plan.is_refused && plan.client_auth.is_some()) {
        if let Some(host) = plan.hosts().into_iter().find(|host| !hosts.is_covered(host)) {
            let message = format!("there is no certificate for the host {host}, so it is not served over HTTPS");
            plan.faults.push(("InvalidCertificateRef", message));
        }
    }
    (hosts, has_https)
}

/// Refuses the Ingresses that would be served without the client certificates that a refused Ingress of the same
/// namespace asks for: in ingress-nginx they hold for the whole host.
fn refuse_open_hosts(plans: &mut [IngressPlan<'_>], hosts: &IngressHosts) {
    let is_closing = |plan: &&IngressPlan<'_>| plan.is_refused && plan.nginx.asks_for_client_certificates();
    let closed = plans.iter().filter(is_closing).flat_map(|plan| {
        let namespace = plan.key.namespace.to_string();
        plan.hosts().into_iter().map(move |host| (namespace.clone(), host))
    });
    let closed: BTreeSet<(String, String)> = closed.collect();
    for plan in plans.iter_mut().filter(|plan| !plan.is_refused && plan.client_auth.is_none()) {
        let namespace = plan.key.namespace.to_string();
        let is_open =
            |host: &String| hosts.client_auth(host).is_none() && closed.contains(&(namespace.clone(), host.clone()));
        if let Some(host) = plan.hosts().into_iter().find(is_open) {
            let why = format!("another Ingress asks for client certificates for the host {host} and is refused");
            plan.refuse("Conflicted", &why);
        }
    }
}

/// The hosts for which an Ingress has an expression without literal segments before it.
fn root_regex_hosts(plans: &[IngressPlan<'_>]) -> BTreeSet<String> {
    plans.iter().filter(|plan| has_root_regex(plan)).flat_map(IngressPlan::hosts).collect()
}

fn has_root_regex(plan: &IngressPlan<'_>) -> bool {
    let is_held = plan.is_refused && plan.nginx.uses_regex();
    let mut paths = plan.nginx.paths.iter().flatten();
    plan.nginx.canary.is_none() && paths.any(|path| is_held || (path.is_regex && path.above == "/"))
}

fn canaries<'p>(plans: &'p [IngressPlan<'_>]) -> CanaryMap<'p> {
    let mut canaries = CanaryMap::new();
    for (position, ingress) in plans.iter().enumerate().filter(|(_, plan)| !plan.is_refused) {
        let Some(plan) = &ingress.nginx.canary else { continue };
        for rule in &ingress.ingress.rules {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let place = (&*ingress.key.namespace, host.clone(), path.path.as_deref().unwrap_or("/"));
                let target = CanaryTarget { position, plan, backend: &path.backend };
                canaries.entry(place).or_insert(target);
            }
        }
    }
    canaries
}

fn is_ours(index: &Index, fact: &Fact<Ingress>, ingress: &Ingress) -> bool {
    class_of(index, fact, ingress).is_some()
}

/// The class of an Ingress, if it is one of this controller.
fn class_of<'a>(index: &'a Index, fact: &Fact<Ingress>, ingress: &Ingress) -> Option<&'a Fact<IngressClass>> {
    let is_ours = |class: &IngressClass| &*class.controller == CONTROLLER_NAME;
    let our_class = |name: &str| {
        let key = ObjectKey::cluster_wide(name);
        index.ingress_classes().valid(&key).filter(|class| is_ours(class))?;
        index.ingress_classes().get(&key)
    };
    match (&ingress.ingress_class_name, fact.meta.annotation(CLASS_ANNOTATION)) {
        (Some(class), _) => our_class(class),
        (None, Some(class)) => our_class(class),
        (None, None) => {
            let is_default =
                |fact: &Fact<IngressClass>| fact.meta.annotation(IngressClass::DEFAULT_ANNOTATION) == Some("true");
            let mut classes = index.ingress_classes().iter().filter(|(_, fact)| is_default(fact));
            classes.find_map(|(key, _)| our_class(&key.name))
        }
    }
}

/// The certificates of an Ingress, each with its hosts.
fn ingress_certificates(
    index: &Index,
    key: &ObjectKey,
    ingress: &Ingress,
    (texts, faults): (&mut TextCollector<'_>, &mut Vec<IngressFault>),
) -> Vec<(CertificateTexts, Vec<String>)> {
    let from = Referrer { kind: "Ingress", namespace: &key.namespace };
    let mut taken = Vec::new();
    for tls in &ingress.tls {
        let Some(name) = &tls.secret_name else { continue };
        let reference =
            SecretReference { group: "".into(), kind: "Secret".into(), name: name.clone(), namespace: None };
        match take_certificate(index, from, (&reference, CertificateUse::Listener), texts) {
            Ok(certificate) => taken.push((certificate, hosts_of(tls.hosts.iter()))),
            Err(broken) => faults.push((broken.reason, broken.message)),
        }
    }
    taken
}

fn hosts_of<'a>(hosts: impl Iterator<Item = &'a Box<str>>) -> Vec<String> {
    let mut hosts: Vec<String> = hosts.map(|host| host.to_ascii_lowercase()).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// Writes the subsystems of Ingresses.
struct SubsystemWriter<'a, 'b> {
    index: &'a Index,
    backends: &'b mut BackendSet,
    has_https: bool,
    canaries: &'b CanaryMap<'b>,
    root_regex_hosts: &'b BTreeSet<String>,
    /// The places of the canaries that take requests.
    used: Vec<usize>,
}

/// A command that is written, with the length of its path if it is a regular expression.
type OrderedCommand = (usize, Value);

impl SubsystemWriter<'_, '_> {
    /// The subsystems of an Ingress: one for each of its hosts, and one for its default backend.
    fn subsystems(&mut self, plan: &IngressPlan<'_>, faults: &mut Vec<IngressFault>) -> Vec<WrittenSubsystem> {
        let mut by_place: BTreeMap<(String, String), Vec<OrderedCommand>> = BTreeMap::new();
        for (position, rule) in plan.ingress.rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let paths = rule.http.as_ref().map_or(&[][..], |http| &http.paths);
            for (at, path) in paths.iter().enumerate() {
                let Some(path_plan) = plan.nginx.paths.get(position).and_then(|paths| paths.get(at)) else { continue };
                let path_plan = self.below_expressions(path_plan, &host);
                let text = path.path.as_deref().unwrap_or("/");
                let length = if path_plan.is_regex { text.len() } else { usize::MAX };
                let canary = self.canaries.get(&(&*plan.key.namespace, host.clone(), text));
                let place = (format!("rule-{position}-{at}"), &path_plan);
                let written = self.commands(plan, place, (&path.backend, canary), faults);
                let commands = by_place.entry((host.clone(), path_plan.above.clone())).or_default();
                commands.extend(written.into_iter().map(|command| (length, command)));
            }
        }
        let mut subsystems = Vec::new();
        self.add_places(plan, by_place, &mut subsystems);
        if let Some(backend) = &plan.ingress.default_backend {
            let path = PathPlan::plain(json!({ "pathPrefix": "/" }));
            let commands = self.commands(plan, ("default".to_owned(), &path), (backend, None), faults);
            self.add_subsystem(plan, ("ingress-default", "", "/"), commands, &mut subsystems);
        }
        subsystems
    }

    /// Adds a subsystem for each host and each path above expressions.
    fn add_places(
        &self,
        plan: &IngressPlan<'_>,
        by_place: BTreeMap<(String, String), Vec<OrderedCommand>>,
        subsystems: &mut Vec<WrittenSubsystem>,
    ) {
        let count = by_place.len();
        for (position, ((host, above), mut commands)) in by_place.into_iter().enumerate() {
            // Expressions are tried in the order of the document: the longest first, as in ingress-nginx.
            commands.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
            let mut commands: Vec<Value> = commands.into_iter().map(|(_, command)| command).collect();
            if above == "/" {
                commands.splice(0..0, app_root(plan));
            }
            let kind = if count == 1 { "ingress".to_owned() } else { format!("ingress-{position}") };
            self.add_subsystem(plan, (&kind, &host, &above), commands, subsystems);
        }
    }

    /// The path, or as an expression if it matches everything on a host with expressions: a prefix would go before
    /// them.
    fn below_expressions(&self, path: &PathPlan, host: &str) -> PathPlan {
        let is_all = path.matched == json!({ "pathPrefix": "/" });
        let keeps_prefix = path.rewrite.as_ref().is_some_and(|(key, _)| *key == "replacePrefixMatch");
        if !is_all || keeps_prefix || !self.root_regex_hosts.contains(host) {
            return path.clone();
        }
        PathPlan { matched: json!({ "pathRegex": "/.*" }), is_regex: true, ..path.clone() }
    }

    /// The document that answers the requests of a refused Ingress; none for a canary, which has no requests of its
    /// own.
    fn held_document(&self, plan: &IngressPlan<'_>) -> Option<(String, Value)> {
        if plan.nginx.canary.is_some() {
            return None;
        }
        let mut by_place: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
        for (position, rule) in plan.ingress.rules.iter().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            for (at, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                for (variant, held) in held_paths(path, plan.nginx.uses_regex()).into_iter().enumerate() {
                    let id = format!("rule-{position}-{at}-{variant}");
                    let command = json!({ "id": id, "match": [held.matched], "backends": [{ "status": 503 }] });
                    by_place.entry((host.clone(), held.above)).or_default().push(command);
                }
            }
        }
        let listeners =
            || [Some(HTTP_LISTENER), self.has_https.then_some(HTTPS_LISTENER)].into_iter().flatten().collect();
        let subsystems = by_place.into_iter().enumerate().map(|(position, ((host, above), commands))| {
            let keys = subsystem(plan, (&format!("ingress-refused-{position}"), &host, &above), listeners(), commands);
            WrittenSubsystem { keys, is_redirect: false }
        });
        let subsystems: Vec<WrittenSubsystem> = subsystems.collect();
        let document = || ingress_document(&subsystems, false); // it has no backends
        (!subsystems.is_empty()).then(|| (format!("Ingress {} (refused)", plan.key), document()))
    }

    /// Adds the subsystem of a host on both listeners, or on HTTPS alone with a redirect from plain HTTP.
    fn add_subsystem(
        &self,
        plan: &IngressPlan<'_>,
        (kind, host, above): (&str, &str, &str),
        commands: Vec<Value>,
        subsystems: &mut Vec<WrittenSubsystem>,
    ) {
        let https = self.has_https.then_some(HTTPS_LISTENER);
        if !is_https_only(plan, host) {
            let listeners = [Some(HTTP_LISTENER), https].into_iter().flatten().collect();
            let keys = subsystem(plan, (kind, host, above), listeners, commands);
            subsystems.push(WrittenSubsystem { keys, is_redirect: false });
            return;
        }
        let redirects = commands.iter().map(https_redirect).collect();
        let redirect_kind = format!("{kind}-redirect");
        let keys = subsystem(plan, (&redirect_kind, host, above), vec![HTTP_LISTENER], redirects);
        subsystems.push(WrittenSubsystem { keys, is_redirect: true });
        if let Some(https) = https {
            let keys = subsystem(plan, (kind, host, above), vec![https], commands);
            subsystems.push(WrittenSubsystem { keys, is_redirect: false });
        }
    }

    /// The commands of a path: its own, and those of the rules of its canary.
    fn commands(
        &mut self,
        plan: &IngressPlan<'_>,
        (id, path): (String, &PathPlan),
        (backend, canary): (&IngressBackend, Option<&CanaryTarget<'_>>),
        faults: &mut Vec<IngressFault>,
    ) -> Vec<Value> {
        if let Some(redirect) = &plan.nginx.redirects.whole {
            return vec![json!({ "id": id, "match": [path.matched], "redirect": redirect })];
        }
        self.backends.set_user(plan.user.clone());
        let (main, mut is_http1) = self.share(plan.key, backend, faults);
        let mut shares = vec![main.clone()];
        let mut ruled = Vec::new();
        if let Some(target) = canary {
            self.used.push(target.position);
            let (share, canary_is_http1) = self.share(plan.key, target.backend, faults);
            is_http1 &= canary_is_http1;
            for (position, rule) in target.plan.rules.iter().enumerate() {
                let mut matched = path.matched.clone();
                matched["headers"] = json!([rule.condition]);
                let to = if rule.to_canary { &share } else { &main };
                let id = format!("{id}-canary-{position}");
                ruled.push(command(plan, (&id, &matched, path), vec![to.clone()], is_http1));
            }
            let CanaryPlan { weight, total, .. } = target.plan;
            if *weight > 0 {
                shares = vec![weighted(&main, total - weight), weighted(&share, *weight)];
            }
        }
        ruled.push(command(plan, (&id, &path.matched, path), shares, is_http1));
        ruled
    }

    /// The share of a backend, and whether it may be a WebSocket.
    fn share(&mut self, key: &ObjectKey, backend: &IngressBackend, faults: &mut Vec<IngressFault>) -> (Value, bool) {
        let from = Referrer { kind: "Ingress", namespace: &key.namespace };
        let resolved = match reference_of(self.index, key, backend) {
            Ok(reference) => {
                self.backends.resolve(self.index, from, &reference).map_err(|broken| (broken.reason, broken.message))
            }
            Err(fault) => Err(fault),
        };
        match resolved {
            Ok(resolved) => (json!({ "backend": resolved.id }), resolved.protocol == BackendProtocol::Http1),
            Err(fault) => {
                faults.push(fault);
                (json!({ "status": 500 }), true)
            }
        }
    }
}

fn weighted(share: &Value, weight: u64) -> Value {
    let mut share = share.clone();
    share["weight"] = json!(weight);
    share
}

/// Whether a host is served over HTTPS alone: plain requests would bypass its client certificates, or are redirected.
fn is_https_only(plan: &IngressPlan<'_>, host: &str) -> bool {
    let needs_certificate = plan
        .client_auth
        .as_ref()
        .is_some_and(|client_auth| client_auth["mode"] == "required" || client_auth.get("subject").is_some());
    let has_tls = || plan.ingress.tls.iter().flat_map(|tls| &tls.hosts).any(|name| name.eq_ignore_ascii_case(host));
    needs_certificate
        || match plan.nginx.redirects.https {
            HttpsScope::None => false,
            HttpsScope::TlsHosts => has_tls(),
            HttpsScope::All => true,
        }
}

fn app_root(plan: &IngressPlan<'_>) -> Option<Value> {
    let root = plan.nginx.redirects.app_root.as_ref()?;
    let redirect = json!({ "path": root, "status": 302 });
    Some(json!({ "id": "app-root", "match": [{ "path": "/" }], "redirect": redirect, "units": 0 }))
}

/// The redirect of a command from plain HTTP to HTTPS. Its caller comes again, so it costs no units.
fn https_redirect(command: &Value) -> Value {
    let redirect = json!({ "scheme": "https", "status": 308 });
    json!({ "id": command["id"], "match": command["match"], "redirect": redirect, "units": 0 })
}

fn subsystem(
    plan: &IngressPlan<'_>,
    (kind, host, above): (&str, &str, &str),
    listeners: Vec<&str>,
    commands: Vec<Value>,
) -> Value {
    let mut subsystem = json!({
        "id": names::subsystem(plan.key, kind),
        "listeners": listeners,
        "path": above,
        "keepPath": true,
        "commands": commands,
        "otherCommands": "next",
    });
    if !host.is_empty() {
        let mut hosts = vec![host.to_owned()];
        hosts.extend(plan.nginx.aliases.iter().filter(|alias| *alias != host).cloned());
        hosts.dedup();
        subsystem["hosts"] = json!(hosts);
    }
    subsystem
}

/// A command that is forwarded.
fn command(
    plan: &IngressPlan<'_>,
    (id, matched, path): (&str, &Value, &PathPlan),
    shares: Vec<Value>,
    is_http1: bool,
) -> Value {
    let mut keys = plan.nginx.command.clone();
    keys.entry("body").or_insert_with(|| json!({ "max": BODY_MAX }));
    if let Some(limits) = keys.get_mut("addressLimits") {
        limits["zone"] = json!(names::subsystem(plan.key, "ingress")); // all paths of an Ingress share them
    }
    keys.insert("id".to_owned(), json!(id));
    keys.insert("match".to_owned(), json!([matched]));
    keys.insert("backends".to_owned(), json!(shares));
    if is_http1 {
        keys.insert("upgrade".to_owned(), json!("websocket"));
    }
    let mut rewrite = Map::new();
    rewrite.extend(plan.nginx.upstream_host.as_ref().map(|host| ("host".to_owned(), json!(host))));
    rewrite.extend(path.rewrite.as_ref().map(|(key, value)| ((*key).to_owned(), json!(value))));
    if !rewrite.is_empty() {
        keys.insert("rewrite".to_owned(), Value::Object(rewrite));
    }
    Value::Object(keys)
}

fn reference_of(
    index: &Index,
    key: &ObjectKey,
    backend: &IngressBackend,
) -> Result<BackendReference, (&'static str, String)> {
    let Some(service) = &backend.service else {
        return Err(("InvalidKind", "a backend that is not a Service is not supported".to_owned()));
    };
    let known = index.services().valid(&ObjectKey::new(&key.namespace, &service.name));
    let named = service.port.name.as_deref();
    let port = service.port.number.or_else(|| Some(known?.port_named(named?)?.port));
    let port = port.ok_or_else(|| {
        let wanted = named.unwrap_or("a number");
        ("BackendNotFound", format!("the Service {}/{} has no port {wanted}", key.namespace, service.name))
    })?;
    Ok(BackendReference {
        group: "".into(),
        kind: "Service".into(),
        name: service.name.clone(),
        namespace: None,
        port: Some(port),
        weight: 1,
    })
}

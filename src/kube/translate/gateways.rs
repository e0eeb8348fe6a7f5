//! Gateways of this controller: their listeners, with the conditions of each, and what the data plane gets of them.
//!
//! Guarantees:
//! - A listener with a fault is not served, and the others of its Gateway are.
//! - A listener that has another protocol than an earlier one on its port, or the same hostname, is in conflict and is
//!   not served.
//!
//! Leaves to others: routes (`attachment`), and addresses (`services`).

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::certificates::{CertificateTexts, CertificateUse, TextCollector, take_authorities, take_certificate};
use super::client_auth_policies::{ClientAuthPolicies, ClientAuthSettings};
use super::condition::{ACCEPTED, CONFLICTED, Condition, RESOLVED_REFS};
use super::hostnames::configured_host;
use super::names;
use super::references::Referrer;
use crate::kube::CONTROLLER_NAME;
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{
    FrontendValidation, FrontendValidationMode, GATEWAY_GROUP, Gateway, GatewayListener, GatewayListenerSet,
    LabelSelector, ListenerProtocol, NamespacesFrom, ObjectKey, RefuseOrAllow, RouteKind, TlsMode,
};

/// A Gateway of this controller.
#[derive(Debug)]
pub(super) struct GatewayPlan<'a> {
    /// Its key.
    pub(super) key: &'a ObjectKey,
    /// Its metadata and specification.
    pub(super) fact: &'a Fact<Gateway>,
    /// The specification, valid.
    pub(super) gateway: &'a Gateway,
    /// Its own listeners in the order of the specification, then those of its ListenerSets.
    pub(super) listeners: Vec<GatewayListenerPlan<'a>>,
    /// The ListenerSets that name it, the oldest first.
    pub(super) sets: Vec<ListenerSetPlan<'a>>,
    /// The certificate that it shows to backends with TLS.
    pub(super) client_certificate: Option<CertificateTexts>,
    /// Conditions of the Gateway as a whole, beside `Programmed`.
    pub(super) conditions: Vec<Condition>,
}

/// A ListenerSet that names a Gateway.
#[derive(Debug)]
pub(super) struct ListenerSetPlan<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) generation: i64,
    set: &'a GatewayListenerSet,
    /// Whether the Gateway allows it.
    pub(super) is_allowed: bool,
}

/// The object that a listener is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListenerOwner<'a> {
    /// `Gateway` or `ListenerSet`.
    pub(super) kind: &'static str,
    pub(super) key: &'a ObjectKey,
}

/// A listener of a Gateway.
#[derive(Debug)]
pub(super) struct GatewayListenerPlan<'a> {
    /// The listener.
    pub(super) listener: &'a GatewayListener,
    /// The object that it is written in.
    pub(super) owner: ListenerOwner<'a>,
    /// The kinds of routes that it takes.
    pub(super) supported_kinds: Vec<RouteKind>,
    /// Its conditions, beside `Programmed`.
    pub(super) conditions: Vec<Condition>,
    /// The number of routes that are attached to it.
    pub(super) attached_routes: usize,
    /// The port of the data plane; `None` until the Service of the Gateway publishes it.
    pub(super) target_port: Option<u16>,
    certificates: Vec<CertificateTexts>,
    client_auth: Option<Value>,
}

impl GatewayListenerPlan<'_> {
    /// Whether the data plane serves it. A kind of routes that is not supported, or authorities of callers of which
    /// others can be used, are faults of a listener that serves.
    pub(super) fn is_served(&self) -> bool {
        let is = |kind, holds| self.conditions.iter().any(|one| one.kind == kind && one.holds == holds);
        is(ACCEPTED, true) && is(CONFLICTED, false) && (!self.ends_tls() || !self.certificates.is_empty())
    }

    /// Whether the configuration has it.
    pub(super) fn is_live(&self) -> bool {
        self.is_served() && self.target_port.is_some()
    }

    /// The name of its virtual host.
    pub(super) fn virtual_host(&self) -> String {
        match self.owner.kind {
            "Gateway" => names::virtual_host(&self.listener.name),
            _ => names::virtual_host_of_set(self.owner.key, &self.listener.name),
        }
    }

    /// Takes the listener out of service.
    pub(super) fn refuse(&mut self, reason: &'static str, message: String) {
        self.conditions.retain(|condition| condition.kind != ACCEPTED);
        self.conditions.insert(0, Condition::fails(ACCEPTED, reason, message));
    }

    /// Sets the client authentication.
    pub(super) fn set_client_auth(&mut self, client_auth: Value) {
        self.client_auth = Some(client_auth);
    }

    /// The TLS mode of a listener for TLSRoutes.
    pub(super) fn tls_mode(&self) -> Option<&TlsMode> {
        let tls = self.listener.tls.as_ref().filter(|_| self.listener.protocol == ListenerProtocol::Tls)?;
        Some(&tls.mode)
    }

    /// Whether the gateway ends TLS here, with a certificate.
    fn ends_tls(&self) -> bool {
        match self.listener.protocol {
            ListenerProtocol::Https => true,
            ListenerProtocol::Tls => self.tls_mode() != Some(&TlsMode::Passthrough),
            _ => false,
        }
    }
}

/// The Gateways whose class names this controller, in the order of their keys.
pub(super) fn plan_gateways<'a>(
    index: &'a Index,
    policies: &mut ClientAuthPolicies,
    texts: &mut TextCollector<'_>,
) -> Vec<GatewayPlan<'a>> {
    let mut plans = Vec::new();
    for (key, fact) in index.gateways().iter() {
        let Some(gateway) = fact.valid() else { continue };
        let class = index.gateway_classes().valid(&ObjectKey::cluster_wide(&gateway.gateway_class_name));
        if class.is_some_and(|class| &*class.controller_name == CONTROLLER_NAME) {
            plans.push(plan_gateway(index, (key, fact, gateway), (policies, texts)));
        }
    }
    plans
}

fn plan_gateway<'a>(
    index: &'a Index,
    (key, fact, gateway): (&'a ObjectKey, &'a Fact<Gateway>, &'a Gateway),
    (policies, texts): (&mut ClientAuthPolicies, &mut TextCollector<'_>),
) -> GatewayPlan<'a> {
    let sets = listener_sets_of(index, key, gateway);
    let own = ListenerOwner { kind: "Gateway", key };
    let mut written: Vec<(ListenerOwner<'a>, &'a GatewayListener)> =
        gateway.listeners.iter().map(|listener| (own, listener)).collect();
    for set in sets.iter().filter(|set| set.is_allowed) {
        let owner = ListenerOwner { kind: "ListenerSet", key: set.key };
        written.extend(set.set.listeners.iter().map(|listener| (owner, listener)));
    }
    let conflicts = find_conflicts(&written);
    let mut fallback = false;
    let mut listeners = Vec::with_capacity(written.len());
    for ((owner, listener), conflict) in written.into_iter().zip(conflicts) {
        let mut plan = plan_listener(index, owner, listener, texts);
        match conflict {
            Some((reason, message)) => {
                plan.conditions.push(Condition { kind: CONFLICTED, holds: true, reason, message: message.clone() });
                plan.conditions.retain(|condition| condition.kind != ACCEPTED);
                plan.conditions.insert(0, Condition::fails(ACCEPTED, reason, message));
            }
            None => plan.conditions.push(Condition::fails(CONFLICTED, "NoConflicts", "")),
        }
        let validation = validation_of(gateway, listener).filter(|_| !policies.covers(key, &plan));
        if let Some(validation) = validation {
            fallback |= validation.mode == FrontendValidationMode::AllowInsecureFallback;
            add_client_auth(index, key, validation, &mut plan, texts);
        }
        listeners.push(plan);
    }
    fallback |= policies.attach(key, &mut listeners);
    let own_listeners: Vec<&GatewayListenerPlan<'_>> =
        listeners.iter().filter(|listener| listener.owner == own).collect();
    let mut conditions = vec![accepted(gateway, &own_listeners)];
    if fallback {
        let message = "callers without a valid certificate are accepted (AllowInsecureFallback)".to_owned();
        let kind = "InsecureFrontendValidationMode";
        conditions.push(Condition { kind, holds: true, reason: "ConfigurationChanged", message });
    }
    let client_certificate = backend_certificate(index, key, gateway, (texts, &mut conditions));
    GatewayPlan { key, fact, gateway, listeners, sets, client_certificate, conditions }
}

/// The ListenerSets that name a Gateway, the oldest first.
fn listener_sets_of<'a>(index: &'a Index, gateway: &ObjectKey, spec: &Gateway) -> Vec<ListenerSetPlan<'a>> {
    let names_it = |key: &ObjectKey, set: &GatewayListenerSet| {
        set.parent_ref.as_ref().is_some_and(|parent| {
            let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
            &*parent.kind == "Gateway" && ObjectKey::new(namespace, &parent.name) == *gateway
        })
    };
    let choice = &spec.allowed_listeners.namespaces;
    let mut sets: Vec<_> = index
        .listener_sets()
        .iter()
        .filter_map(|(key, fact)| Some((key, fact, fact.valid()?)))
        .filter(|(key, _, set)| names_it(key, set))
        .collect();
    sets.sort_by_cached_key(|(key, fact, _)| (fact.meta.created, (*key).clone()));
    let plan = |(key, fact, set): (&'a ObjectKey, &'a Fact<GatewayListenerSet>, &'a GatewayListenerSet)| {
        let is_allowed =
            allows_namespace(index, (&choice.from, choice.selector.as_ref()), &gateway.namespace, &key.namespace);
        ListenerSetPlan { key, generation: fact.meta.generation, set, is_allowed }
    };
    sets.into_iter().map(plan).collect()
}

/// Whether a choice of namespaces, written in the namespace `own`, allows a namespace.
pub(super) fn allows_namespace(
    index: &Index,
    (from, selector): (&NamespacesFrom, Option<&LabelSelector>),
    own: &str,
    namespace: &str,
) -> bool {
    match from {
        NamespacesFrom::All => true,
        NamespacesFrom::Same => own == namespace,
        NamespacesFrom::Selector => {
            let known = index.namespaces().get(&ObjectKey::cluster_wide(namespace));
            known.zip(selector).is_some_and(|(known, selector)| selector.matches(&known.meta.labels))
        }
        NamespacesFrom::None | NamespacesFrom::Other(_) => false,
    }
}

/// The certificate that a Gateway shows to backends (GEP-3155), and the condition of its reference.
fn backend_certificate(
    index: &Index,
    key: &ObjectKey,
    gateway: &Gateway,
    (texts, conditions): (&mut TextCollector<'_>, &mut Vec<Condition>),
) -> Option<CertificateTexts> {
    let reference = gateway.tls.backend.client_certificate_ref.as_ref()?;
    let from = Referrer { kind: "Gateway", namespace: &key.namespace };
    match take_certificate(index, from, (reference, CertificateUse::Backend), texts) {
        Ok(taken) => {
            conditions.push(Condition::holds(RESOLVED_REFS, "ResolvedRefs"));
            Some(taken)
        }
        Err(broken) => {
            let reason = match broken.reason {
                "InvalidCertificateRef" => "InvalidClientCertificateRef",
                other => other,
            };
            conditions.push(Condition::fails(RESOLVED_REFS, reason, broken.message));
            None
        }
    }
}

/// `Accepted` of a Gateway.
fn accepted(gateway: &Gateway, listeners: &[&GatewayListenerPlan<'_>]) -> Condition {
    if let Some(parameters) = &gateway.infrastructure.parameters_ref {
        let message = format!("infrastructure.parametersRef ({}) is not supported; remove it", parameters.kind);
        return Condition::fails(ACCEPTED, "InvalidParameters", message);
    }
    let odd = gateway.addresses.iter().find(|address| !matches!(&*address.kind, "IPAddress"));
    if let Some(odd) = odd {
        let message = format!("addresses of the type {} are not supported; use IPAddress", odd.kind);
        return Condition::fails(ACCEPTED, "UnsupportedAddress", message);
    }
    let served = listeners.iter().filter(|listener| listener.is_served()).count();
    let message = || "some listeners are not valid; see their conditions";
    match served {
        _ if served == listeners.len() => Condition::holds(ACCEPTED, "Accepted"),
        0 => Condition::fails(ACCEPTED, "ListenersNotValid", "no listener is valid; see their conditions"),
        _ => Condition { message: message().to_owned(), ..Condition::holds(ACCEPTED, "ListenersNotValid") },
    }
}

/// For each listener the conflict with an earlier one that serves, if there is any: the earlier one wins.
fn find_conflicts(listeners: &[(ListenerOwner<'_>, &GatewayListener)]) -> Vec<Option<(&'static str, String)>> {
    let mut by_port: HashMap<u16, Vec<&GatewayListener>> = HashMap::new();
    let mut conflicts = Vec::with_capacity(listeners.len());
    for (_, listener) in listeners {
        let earlier = by_port.entry(listener.port).or_default();
        let conflict = conflict_with(earlier, listener);
        if conflict.is_none() {
            earlier.push(listener);
        }
        conflicts.push(conflict);
    }
    conflicts
}

fn conflict_with(earlier: &[&GatewayListener], listener: &GatewayListener) -> Option<(&'static str, String)> {
    let port = listener.port;
    // HTTPS and TLS share a port: the server name distinguishes their listeners.
    let is_encrypted = |one: &GatewayListener| matches!(one.protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
    let are_alike = |other: &GatewayListener| {
        other.protocol == listener.protocol || (is_encrypted(other) && is_encrypted(listener))
    };
    if let Some(other) = earlier.iter().find(|other| !are_alike(other)) {
        let message = format!("the listener {} has another protocol on port {port}", other.name);
        return Some(("ProtocolConflict", message));
    }
    let other = earlier.iter().find(|other| host_key(other) == host_key(listener))?;
    Some(("HostnameConflict", format!("the listener {} has the same hostname on port {port}", other.name)))
}

fn host_key(listener: &GatewayListener) -> String {
    listener.hostname.as_deref().unwrap_or_default().to_ascii_lowercase()
}

fn plan_listener<'a>(
    index: &Index,
    owner: ListenerOwner<'a>,
    listener: &'a GatewayListener,
    texts: &mut TextCollector<'_>,
) -> GatewayListenerPlan<'a> {
    let (supported_kinds, kinds_fault) = supported_kinds(listener);
    let mut plan = GatewayListenerPlan {
        listener,
        owner,
        supported_kinds,
        conditions: Vec::new(),
        attached_routes: 0,
        target_port: None,
        certificates: Vec::new(),
        client_auth: None,
    };
    let accepted = match (&listener.protocol, listener.tls.as_ref().map(|tls| &tls.mode)) {
        (ListenerProtocol::Http, None)
        | (ListenerProtocol::Https, Some(TlsMode::Terminate))
        | (ListenerProtocol::Tls, Some(TlsMode::Terminate | TlsMode::Passthrough)) => {
            Condition::holds(ACCEPTED, "Accepted")
        }
        (ListenerProtocol::Tls, None) => Condition::fails(ACCEPTED, "Invalid", "TLS needs tls.mode"),
        (ListenerProtocol::Tls, Some(_)) => {
            Condition::fails(ACCEPTED, "UnsupportedValue", "TLS supports the TLS modes Terminate and Passthrough only")
        }
        (ListenerProtocol::Https, None) => Condition::fails(ACCEPTED, "Invalid", "HTTPS needs tls.certificateRefs"),
        (ListenerProtocol::Http, Some(_)) => Condition::fails(ACCEPTED, "Invalid", "HTTP has no tls; use HTTPS"),
        (ListenerProtocol::Https, Some(_)) => {
            Condition::fails(ACCEPTED, "UnsupportedValue", "HTTPS supports the TLS mode Terminate only")
        }
        (protocol, _) => {
            let message = format!("the protocol {} is not supported; use HTTP, HTTPS or TLS", protocol_text(protocol));
            Condition::fails(ACCEPTED, "UnsupportedProtocol", message)
        }
    };
    plan.conditions.push(accepted);
    let resolved = match plan.ends_tls() {
        true => resolve_certificates(index, &mut plan, texts),
        false => Condition::holds(RESOLVED_REFS, "ResolvedRefs"),
    };
    plan.conditions.push(kinds_fault.unwrap_or(resolved));
    plan
}

fn protocol_text(protocol: &ListenerProtocol) -> &str {
    match protocol {
        ListenerProtocol::Http => "HTTP",
        ListenerProtocol::Https => "HTTPS",
        ListenerProtocol::Tls => "TLS",
        ListenerProtocol::Tcp => "TCP",
        ListenerProtocol::Udp => "UDP",
        ListenerProtocol::Other(other) => other,
    }
}

/// Takes up the certificates of a listener. Each of them must be usable.
fn resolve_certificates(index: &Index, plan: &mut GatewayListenerPlan<'_>, texts: &mut TextCollector<'_>) -> Condition {
    let references = plan.listener.tls.as_ref().map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        return Condition::fails(
            RESOLVED_REFS,
            "InvalidCertificateRef",
            "there is no certificate in tls.certificateRefs",
        );
    }
    let from = Referrer { kind: plan.owner.kind, namespace: &plan.owner.key.namespace };
    for reference in references {
        match take_certificate(index, from, (reference, CertificateUse::Listener), texts) {
            Ok(taken) => plan.certificates.push(taken),
            Err(broken) => {
                plan.certificates.clear(); // the listener fails closed
                return Condition::fails(RESOLVED_REFS, broken.reason, broken.message);
            }
        }
    }
    Condition::holds(RESOLVED_REFS, "ResolvedRefs")
}

/// The validation of client certificates on the port of a listener (GEP-91).
fn validation_of<'a>(gateway: &'a Gateway, listener: &GatewayListener) -> Option<&'a FrontendValidation> {
    if listener.protocol != ListenerProtocol::Https {
        return None;
    }
    let frontend = gateway.tls.frontend.as_ref()?;
    let own = frontend.per_port.iter().find(|config| config.port == listener.port);
    own.map_or(&frontend.default, |config| &config.tls).validation.as_ref()
}

/// Adds the authorities of callers. If some references are broken, the others are used; if all are, the listener is
/// not accepted: it fails closed.
fn add_client_auth(
    index: &Index,
    gateway: &ObjectKey,
    validation: &FrontendValidation,
    plan: &mut GatewayListenerPlan<'_>,
    texts: &mut TextCollector<'_>,
) {
    let from = Referrer { kind: "Gateway", namespace: &gateway.namespace };
    let taken = validation.ca_certificate_refs.iter().map(|one| take_authorities(index, from, one, texts));
    let (authorities, broken): (Vec<_>, Vec<_>) = taken.partition(Result::is_ok);
    let authorities: Vec<String> = authorities.into_iter().flatten().collect();
    if let Some(Err(broken)) = broken.into_iter().next() {
        plan.conditions.retain(|condition| condition.kind != RESOLVED_REFS);
        plan.conditions.push(Condition::fails(RESOLVED_REFS, broken.reason, broken.message));
        if authorities.is_empty() {
            let message = "no reference to authorities of callers can be used".to_owned();
            return plan.refuse("NoValidCACertificate", message);
        }
    }
    let mode = match validation.mode {
        FrontendValidationMode::AllowInsecureFallback => "allowInsecureFallback",
        _ => "required",
    };
    // The Gateway API knows no departments: whoever the authorities have certified is accepted.
    let settings =
        ClientAuthSettings { mode, expired_revocation: RefuseOrAllow::Refuse, unclaimed_callers: RefuseOrAllow::Allow };
    match texts.client_auth(settings, &authorities, &[]) {
        Ok(client_auth) => plan.set_client_auth(client_auth),
        Err(why) => plan.refuse("NoValidCACertificate", why),
    }
}

/// The kinds of routes that a listener takes, and the fault if it names others.
fn supported_kinds(listener: &GatewayListener) -> (Vec<RouteKind>, Option<Condition>) {
    let known: &[&str] = match listener.protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => &["HTTPRoute", "GRPCRoute"],
        ListenerProtocol::Tls => &["TLSRoute"],
        _ => &[],
    };
    let kind = |kind: &str| RouteKind { group: GATEWAY_GROUP.into(), kind: kind.into() };
    let named = &listener.allowed_routes.kinds;
    if named.is_empty() {
        return (known.iter().map(|name| kind(name)).collect(), None);
    }
    let is_known = |named: &&RouteKind| &*named.group == GATEWAY_GROUP && known.contains(&&*named.kind);
    let supported: Vec<RouteKind> = named.iter().filter(is_known).cloned().collect();
    let odd = named.iter().find(|named| !is_known(named));
    let fault = odd.map(|odd| {
        let message = format!("routes of the kind {} of {} are not supported on this listener", odd.kind, odd.group);
        Condition::fails(RESOLVED_REFS, "InvalidRouteKinds", message)
    });
    (supported, fault)
}

/// The document of a Gateway: a listener for each port, with a virtual host for each of its listeners, and the
/// department of all callers that no other department claims. `None` without a listener.
pub(super) fn document(plan: &GatewayPlan<'_>) -> Option<Value> {
    let mut by_port: BTreeMap<u16, Vec<&GatewayListenerPlan<'_>>> = BTreeMap::new();
    for listener in plan.listeners.iter().filter(|listener| listener.is_live()) {
        by_port.entry(listener.listener.port).or_default().push(listener);
    }
    let listeners: Vec<Value> =
        by_port.iter().filter_map(|(port, listeners)| listener_document(plan.key, *port, listeners)).collect();
    if listeners.is_empty() {
        return None;
    }
    let callers = by_port.keys().map(|port| json!({ "listener": names::listener(plan.key, *port), "unclaimed": true }));
    let department = json!({
        "id": names::department(plan.key),
        "name": format!("Gateway {}", plan.key),
        "callers": callers.collect::<Vec<_>>(),
    });
    Some(json!({ "listeners": listeners, "departments": [department] }))
}

fn listener_document(gateway: &ObjectKey, port: u16, listeners: &[&GatewayListenerPlan<'_>]) -> Option<Value> {
    let first = listeners.first()?;
    let virtual_hosts: Vec<Value> = listeners.iter().map(|one| virtual_host(one)).collect();
    let mut document = json!({
        "name": names::listener(gateway, port),
        "address": format!("0.0.0.0:{}", first.target_port?),
        "publicPort": port,
        "virtualHosts": virtual_hosts,
    });
    if first.listener.protocol == ListenerProtocol::Http {
        document["protocol"] = json!("http");
        return Some(document);
    }
    if listeners.iter().all(|one| one.listener.protocol == ListenerProtocol::Tls) {
        document["protocol"] = json!("tls");
    }
    let certificates = certificates(listeners);
    if !certificates.is_empty() {
        document["tls"] = json!({ "certificates": certificates });
    }
    Some(document)
}

fn virtual_host(plan: &GatewayListenerPlan<'_>) -> Value {
    let hostname = plan.listener.hostname.as_deref().filter(|hostname| !hostname.is_empty());
    let host = hostname.map_or_else(|| "*".to_owned(), configured_host);
    let mut document = json!({ "name": plan.virtual_host(), "host": host });
    if plan.listener.protocol == ListenerProtocol::Tls {
        document["protocol"] = json!("tls");
    }
    document
}

/// The certificates of the listeners of one port. Without a hostname, a certificate is for all other hosts.
fn certificates(listeners: &[&GatewayListenerPlan<'_>]) -> Vec<Value> {
    let of = |plan: &&GatewayListenerPlan<'_>| {
        let hostname = plan.listener.hostname.as_deref().filter(|hostname| !hostname.is_empty());
        let server_name = hostname.map_or_else(|| "*".to_owned(), configured_host);
        let client_auth = plan.client_auth.clone();
        let entry = move |texts: &CertificateTexts| {
            let mut entry = json!({
                "certificate": texts.certificate,
                "key": texts.key,
                "serverNames": [server_name],
            });
            if let Some(client_auth) = &client_auth {
                entry["clientAuth"] = client_auth.clone();
            }
            entry
        };
        plan.certificates.iter().map(entry).collect::<Vec<_>>()
    };
    listeners.iter().flat_map(of).collect()
}

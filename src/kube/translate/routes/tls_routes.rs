//! TLSRoutes, as subsystems whose command is a TLS connection: one for each TLS mode of the listeners that take the
//! route.
//!
//! Guarantees:
//! - A connection is metered under its route, and the name of its rule or its position.
//! - A connection that is passed through is never encrypted again: policies about TLS of its Service do not apply.
//! - A reference that leads nowhere takes its share of connections: they are closed, and `ResolvedRefs` says why.
//!
//! Leaves to others: attachment (`attachment`), and backends (`backends`).

use serde_json::{Value, json};

use super::attachment::{self, AttachingRoute, Attachment};
use super::{AttachedRoute, RouteTranslation, backend_user, resolved_refs};
use crate::kube::objects::{ObjectKey, TlsMode, TlsRoute, TlsRule};
use crate::kube::translate::backends::BackendUser;
use crate::kube::translate::condition::{ACCEPTED, Condition};
use crate::kube::translate::gateways::GatewayListenerPlan;
use crate::kube::translate::hostnames::configured_host;
use crate::kube::translate::http_filters::Unsupported;
use crate::kube::translate::names;
use crate::kube::translate::references::{BrokenReference, Referrer};

/// How connections are forwarded, with the suffix of the subsystem.
const MODES: [(TlsMode, &str, &str); 2] =
    [(TlsMode::Passthrough, "passthrough", "tls"), (TlsMode::Terminate, "terminate", "tls-terminated")];

impl RouteTranslation<'_, '_> {
    /// Translates a TLSRoute; `None` if all its parents belong to other controllers.
    pub(super) fn translate_tls_route<'r>(
        &mut self,
        key: &'r ObjectKey,
        route: &'r TlsRoute,
    ) -> Option<AttachedRoute<'r>> {
        let TlsRoute { parent_refs, hostnames, rules } = route;
        let attaching = AttachingRoute { key, kind: "TLSRoute", parents: parent_refs, hostnames };
        let mut attachments = attachment::attach(self.index, self.gateways, attaching);
        if attachments.is_empty() {
            return None;
        }
        let (rule, mut broken) = (only_rule(rules), Vec::new());
        let mut subsystems = Vec::new();
        match rule {
            Ok(rule) => {
                for mode in MODES {
                    subsystems.extend(self.tls_subsystem(attaching, &attachments, (rule, mode), &mut broken));
                }
            }
            Err(unsupported) => {
                let refused = Condition::fails(ACCEPTED, "UnsupportedValue", unsupported);
                attachments.iter_mut().for_each(|one| one.accepted = refused.clone());
            }
        }
        let document = self.tls_document(&attachments, &subsystems);
        Some(AttachedRoute { attachments, resolved: resolved_refs(broken), document })
    }

    /// The subsystem for the listeners of one mode; `None` if none of them serves.
    fn tls_subsystem(
        &mut self,
        route: AttachingRoute<'_>,
        attachments: &[Attachment<'_>],
        (rule, (mode, word, suffix)): (&TlsRule, (TlsMode, &str, &str)),
        broken: &mut Vec<BrokenReference>,
    ) -> Option<Value> {
        let has_mode = |listener: &GatewayListenerPlan<'_>| listener.tls_mode() == Some(&mode);
        let takes =
            |one: &Attachment<'_>| one.listeners.iter().any(|at| has_mode(&self.gateways[one.gateway].listeners[*at]));
        // Without any listener the references are resolved once, for their condition.
        let is_first = mode == TlsMode::Passthrough;
        let is_taken = attachments.iter().any(takes);
        let is_unattached = || attachments.iter().all(|one| one.listeners.is_empty());
        let is_resolved = is_taken || is_first && is_unattached();
        if !is_resolved {
            return None;
        }
        let user = backend_user(self.gateways, attachments);
        self.backends.set_user(BackendUser { is_passthrough: mode == TlsMode::Passthrough, ..user });
        let from = Referrer { kind: route.kind, namespace: &route.key.namespace };
        let backends = self.tls_shares(from, rule, broken);
        let listeners = attachment::bindings(self.gateways, attachments, has_mode);
        if listeners.is_empty() {
            return None;
        }
        let mut subsystem = json!({
            "id": names::subsystem(route.key, suffix),
            "listeners": listeners,
            "tlsMode": word,
            "commands": [{ "id": names::command(rule.name.as_deref(), 0), "backends": backends }],
        });
        if !route.hostnames.is_empty() {
            let hosts: Vec<String> = route.hostnames.iter().map(|hostname| configured_host(hostname)).collect();
            subsystem["hosts"] = json!(hosts);
        }
        Some(subsystem)
    }

    fn tls_shares(&mut self, from: Referrer<'_>, rule: &TlsRule, broken: &mut Vec<BrokenReference>) -> Vec<Value> {
        let mut shares = Vec::with_capacity(rule.backend_refs.len());
        for reference in &rule.backend_refs {
            shares.push(match self.backends.resolve(self.index, from, reference) {
                Ok(resolved) => json!({ "backend": resolved.id, "weight": reference.weight }),
                Err(fault) => {
                    broken.push(fault);
                    json!({ "status": 500, "weight": reference.weight })
                }
            });
        }
        if shares.is_empty() {
            shares.push(json!({ "status": 500 }));
        }
        shares
    }

    /// The document of a route that is attached to a listener which serves.
    fn tls_document(&self, attachments: &[Attachment<'_>], subsystems: &[Value]) -> Option<Value> {
        if subsystems.is_empty() {
            return None;
        }
        let departments = self.departments_of(attachments);
        let grant = |department: &String, subsystem: &Value| json!({ "department": department, "subsystem": subsystem["id"], "commands": ["*"] });
        let grants: Vec<Value> =
            departments.iter().flat_map(|one| subsystems.iter().map(move |subsystem| grant(one, subsystem))).collect();
        Some(json!({ "subsystems": subsystems, "grants": grants }))
    }
}

/// The only rule of a route. The first versions of the API allowed several, although nothing distinguishes them.
fn only_rule(rules: &[TlsRule]) -> Result<&TlsRule, Unsupported> {
    match rules {
        [only] => Ok(only),
        _ => Err(format!("{} rules; a TLSRoute has exactly one, because nothing distinguishes rules", rules.len())),
    }
}

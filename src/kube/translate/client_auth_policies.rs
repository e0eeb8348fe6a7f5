//! ClientAuthPolicies: authorities and revocation lists of the callers of listeners.
//!
//! Guarantees:
//! - The most specific policy counts for a listener as a whole: that of the listener, of its ListenerSet, of its
//!   Gateway.
//! - Of two policies with one target the older one counts; the other one is `Conflicted`.
//! - A policy that cannot be used takes its listeners out of service: no caller is accepted unverified instead.
//! - A policy has an entry in its status for each target, unless the target belongs to another controller.
//!
//! Leaves to others: verification (`identity`), and which departments count on a listener (`departments`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::certificates::{TextCollector, take_authorities_entry, take_revocation_lists};
use super::condition::{ACCEPTED, Condition, RESOLVED_REFS};
use super::gateways::GatewayListenerPlan;
use super::references::{BrokenReference, Referrer};
use crate::kube::CONTROLLER_NAME;
use crate::kube::index::{Fact, Index};
use crate::kube::objects::{
    ClientAuthPolicySpec, GATEWAY_GROUP, ListenerProtocol, ListenerTarget, ListenerTargetKind, ObjectKey,
    ObjectReference, ParentReference, RefuseOrAllow,
};

/// A policy with its conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientAuthOutcome {
    /// The policy.
    pub key: ObjectKey,
    /// The generation that the conditions are for.
    pub generation: i64,
    /// For each target the conditions.
    pub targets: Vec<(ParentReference, Vec<Condition>)>,
}

/// The settings of `clientAuth` that a policy or a Gateway asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientAuthSettings {
    pub(super) mode: &'static str,
    pub(super) expired_revocation: RefuseOrAllow,
    pub(super) unclaimed_callers: RefuseOrAllow,
}

/// A listener, or all listeners of an object.
type TargetKey = (ListenerTargetKind, ObjectKey, Option<Box<str>>);

/// The policies of a cluster, by their targets.
#[derive(Debug, Default)]
pub(super) struct ClientAuthPolicies {
    policies: Vec<AuthPolicyPlan>,
    /// The policy and the position of the target in it.
    targets: BTreeMap<TargetKey, (usize, usize)>,
    /// The namespaces with a policy that cannot be read: its targets are not known, so all listeners with TLS are out
    /// of service.
    unreadable: BTreeMap<Box<str>, String>,
}

#[derive(Debug)]
struct AuthPolicyPlan {
    key: ObjectKey,
    generation: i64,
    /// `clientAuth` of a listener, or why the policy cannot be used.
    auth: Result<Value, BrokenReference>,
    targets: Vec<TargetPlan>,
}

#[derive(Debug)]
struct TargetPlan {
    key: TargetKey,
    state: TargetState,
}

/// What a target has turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TargetState {
    /// It has a listener with TLS.
    Attached,
    /// It has listeners, but none with TLS.
    WithoutTls,
    /// An older policy has the same target.
    Conflicted(ObjectKey),
    /// It is not there, or none of its listeners is.
    Missing,
    /// It belongs to another controller.
    Foreign,
}

impl ClientAuthPolicies {
    /// Reads all policies, the oldest first.
    pub(super) fn read(index: &Index, texts: &mut TextCollector<'_>) -> Self {
        let mut facts: Vec<(&ObjectKey, &Fact<ClientAuthPolicySpec>)> = index.client_auth_policies().iter().collect();
        facts.sort_by_cached_key(|(key, fact)| (fact.meta.created, (*key).clone()));
        let mut policies = Self::default();
        for (key, fact) in facts {
            let policy = match &fact.parsed {
                Ok(policy) => policy,
                Err(fault) => {
                    let message =
                        format!("the ClientAuthPolicy {key} cannot be read, so its targets are not known: {fault}");
                    policies.unreadable.insert((&*key.namespace).into(), message);
                    continue;
                }
            };
            let position = policies.policies.len();
            let mut targets: Vec<TargetPlan> = Vec::with_capacity(policy.target_refs.len());
            for target in &policy.target_refs {
                let target_key =
                    (target.kind, ObjectKey::new(&key.namespace, &target.name), target.section_name.clone());
                if targets.iter().any(|known| known.key == target_key) {
                    continue; // named twice
                }
                let place = (position, targets.len());
                let (first, _) = *policies.targets.entry(target_key.clone()).or_insert(place);
                let state = match policies.policies.get(first) {
                    Some(older) => TargetState::Conflicted(older.key.clone()),
                    None => missing_or_foreign(index, key, target),
                };
                targets.push(TargetPlan { key: target_key, state });
            }
            let auth = policy_auth(index, key, policy, texts);
            policies.policies.push(AuthPolicyPlan {
                key: key.clone(),
                generation: fact.meta.generation,
                auth,
                targets,
            });
        }
        policies
    }

    /// Whether a policy takes the place of what the Gateway itself says about client certificates.
    pub(super) fn covers(&self, gateway: &ObjectKey, listener: &GatewayListenerPlan<'_>) -> bool {
        self.find(gateway, listener).next().is_some()
    }

    /// Gives the listeners of a Gateway the client authentication of their policies. Returns whether one of them
    /// accepts callers without a valid certificate.
    pub(super) fn attach(&mut self, gateway: &ObjectKey, listeners: &mut [GatewayListenerPlan<'_>]) -> bool {
        let mut has_fallback = false;
        for listener in listeners {
            let places: Vec<(usize, usize)> = self.find(gateway, listener).collect();
            for (policy, target) in places.iter().copied() {
                let state = &mut self.policies[policy].targets[target].state;
                match (listener.listener.protocol == ListenerProtocol::Https, &state) {
                    (true, _) => *state = TargetState::Attached,
                    (false, TargetState::Attached) => {}
                    (false, _) => *state = TargetState::WithoutTls,
                }
            }
            if listener.listener.protocol != ListenerProtocol::Https {
                continue;
            }
            // A ListenerSet inherits from its Gateway.
            let namespaces = [&listener.owner.key.namespace, &gateway.namespace];
            if let Some(message) = namespaces.iter().find_map(|namespace| self.unreadable.get(&***namespace)) {
                listener.refuse("Invalid", message.clone());
                continue;
            }
            let Some((policy, _)) = places.first().copied() else { continue };
            let policy = &self.policies[policy];
            match &policy.auth {
                Ok(auth) => {
                    has_fallback |= auth["mode"] == "allowInsecureFallback";
                    listener.set_client_auth(auth.clone());
                }
                Err(broken) => {
                    let message = format!("the ClientAuthPolicy {} cannot be used: {}", policy.key, broken.message);
                    listener.refuse("NoValidCACertificate", message);
                }
            }
        }
        has_fallback
    }

    /// The policies whose target covers a listener, with the place of the target: the most specific one first.
    fn find<'s>(
        &'s self,
        gateway: &ObjectKey,
        listener: &GatewayListenerPlan<'_>,
    ) -> impl Iterator<Item = (usize, usize)> + use<'s> {
        let (owner, section) = (listener.owner, Some(listener.listener.name.clone()));
        let kind = match owner.kind {
            "ListenerSet" => ListenerTargetKind::ListenerSet,
            _ => ListenerTargetKind::Gateway,
        };
        let own = [(kind, owner.key.clone(), section), (kind, owner.key.clone(), None)];
        let inherited =
            (kind == ListenerTargetKind::ListenerSet).then(|| (ListenerTargetKind::Gateway, gateway.clone(), None));
        let keys: Vec<TargetKey> = own.into_iter().chain(inherited).collect();
        keys.into_iter().filter_map(|key| self.targets.get(&key).copied())
    }

    /// The policies with their conditions.
    pub(super) fn into_outcomes(self) -> Vec<ClientAuthOutcome> {
        let outcome = |plan: AuthPolicyPlan| {
            let targets = plan.targets.iter().filter(|target| target.state != TargetState::Foreign);
            let targets = targets.map(|target| (ancestor(&target.key), conditions(target, &plan.auth))).collect();
            ClientAuthOutcome { key: plan.key, generation: plan.generation, targets }
        };
        self.policies.into_iter().map(outcome).collect()
    }
}

/// The state of a target until a listener of it is seen.
fn missing_or_foreign(index: &Index, policy: &ObjectKey, target: &ListenerTarget) -> TargetState {
    let key = ObjectKey::new(&policy.namespace, &target.name);
    let gateway = match target.kind {
        ListenerTargetKind::Gateway => Some(key),
        ListenerTargetKind::ListenerSet => index.listener_sets().valid(&key).and_then(|set| {
            let parent = set.parent_ref.as_ref()?;
            Some(ObjectKey::new(parent.namespace.as_deref().unwrap_or(&policy.namespace), &parent.name))
        }),
    };
    let gateway = gateway.and_then(|key| index.gateways().valid(&key));
    let class = gateway.map(|gateway| ObjectKey::cluster_wide(&gateway.gateway_class_name));
    match class.map(|class| index.gateway_classes().valid(&class)) {
        Some(Some(class)) if &*class.controller_name == CONTROLLER_NAME => TargetState::Missing,
        Some(_) => TargetState::Foreign,
        None => TargetState::Missing,
    }
}

fn ancestor((kind, key, section): &TargetKey) -> ParentReference {
    ParentReference {
        group: GATEWAY_GROUP.into(),
        kind: kind.as_str().into(),
        namespace: Some((&*key.namespace).into()),
        name: (&*key.name).into(),
        section_name: section.clone(),
        port: None,
    }
}

fn conditions(target: &TargetPlan, auth: &Result<Value, BrokenReference>) -> Vec<Condition> {
    let (kind, key, section) = &target.key;
    let place = || match section {
        Some(section) => format!("the listener {section} of the {} {key}", kind.as_str()),
        None => format!("the {} {key}", kind.as_str()),
    };
    let resolved = match auth {
        Err(broken) if broken.reason != INVALID => {
            Condition::fails(RESOLVED_REFS, broken.reason, broken.message.clone())
        }
        _ => Condition::holds(RESOLVED_REFS, "ResolvedRefs"),
    };
    let accepted = match (&target.state, auth) {
        (TargetState::Conflicted(older), _) => {
            let message = format!("the older ClientAuthPolicy {older} has the same target: {}", place());
            Condition::fails(ACCEPTED, "Conflicted", message)
        }
        (TargetState::Missing | TargetState::Foreign, _) => {
            let message = format!("there is no such target, or its Gateway does not allow it: {}", place());
            Condition::fails(ACCEPTED, "TargetNotFound", message)
        }
        (TargetState::WithoutTls, _) => {
            let message = format!("{} has no listener with the protocol HTTPS, so no client certificates", place());
            Condition::fails(ACCEPTED, INVALID, message)
        }
        (TargetState::Attached, Err(broken)) => {
            let reason = if broken.reason == INVALID { INVALID } else { "NoValidCACertificate" };
            let message = format!("{}. Its listeners are out of service until this is mended", broken.message);
            Condition::fails(ACCEPTED, reason, message)
        }
        (TargetState::Attached, Ok(_)) => Condition::holds(ACCEPTED, "Accepted"),
    };
    vec![accepted, resolved]
}

/// The reason of a policy whose references are in order, and whose authorities or lists cannot be used together.
const INVALID: &str = "Invalid";

fn policy_auth(
    index: &Index,
    key: &ObjectKey,
    policy: &ClientAuthPolicySpec,
    texts: &mut TextCollector<'_>,
) -> Result<Value, BrokenReference> {
    let from = Referrer { kind: "ClientAuthPolicy", namespace: &key.namespace };
    let mut authorities = Vec::with_capacity(policy.ca_certificate_refs.len());
    for one in &policy.ca_certificate_refs {
        let reference = object_reference(one.kind.as_str(), &one.name, one.namespace.as_deref());
        authorities.push(take_authorities_entry(index, from, (&reference, &one.key), texts)?);
    }
    let mut lists = Vec::with_capacity(policy.revocation_list_refs.len());
    for one in &policy.revocation_list_refs {
        let reference = object_reference(one.kind.as_str(), &one.name, one.namespace.as_deref());
        lists.push(take_revocation_lists(index, from, (&reference, &one.key), texts)?);
    }
    let settings = ClientAuthSettings {
        mode: policy.mode.as_str(),
        expired_revocation: policy.expired_revocation,
        unclaimed_callers: policy.unclaimed_callers,
    };
    texts.client_auth(settings, &authorities, &lists).map_err(|message| BrokenReference { reason: INVALID, message })
}

fn object_reference(kind: &str, name: &str, namespace: Option<&str>) -> ObjectReference {
    ObjectReference { group: "".into(), kind: kind.into(), name: name.into(), namespace: namespace.map(Into::into) }
}

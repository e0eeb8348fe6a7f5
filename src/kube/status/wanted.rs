//! What an object should show.
//!
//! Guarantees:
//! - Only what this controller says: nothing of others, and no times.
//!
//! Leaves to others:
//! - what is shown: `comparison`.

use std::borrow::Cow;

use crate::kube::objects::{GatewayAddress, IngressAddress, ParentReference, RouteKind};

/// The status that an object should show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedStatus {
    /// Of a GatewayClass.
    GatewayClass {
        /// Conditions: `Accepted`, `SupportedVersion`.
        conditions: Vec<WantedCondition>,
        /// Names of features, in any order.
        supported_features: Vec<Cow<'static, str>>,
    },
    /// Of a Gateway.
    Gateway {
        /// Conditions: `Accepted`, `Programmed`, ...
        conditions: Vec<WantedCondition>,
        /// Addresses that are bound.
        addresses: Vec<GatewayAddress>,
        /// Listeners of the Gateway itself.
        listeners: Vec<WantedListener>,
        /// The number of ListenerSets that were accepted; not written without a value.
        attached_listener_sets: Option<u32>,
    },
    /// Of a ListenerSet.
    ListenerSet {
        /// Conditions: `Accepted`, `Programmed`.
        conditions: Vec<WantedCondition>,
        /// Its listeners.
        listeners: Vec<WantedListener>,
    },
    /// Of a route: one entry for each parent of ours.
    Route(Vec<WantedParent>),
    /// Of a policy: one entry for each ancestor of ours.
    Policy(Vec<WantedParent>),
    /// Of an Ingress.
    Ingress(WantedIngress),
    /// Of a kind of ours that has conditions only.
    Conditions(Vec<WantedCondition>),
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It cannot be said yet.
    Unknown,
}

impl ConditionStatus {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedCondition {
    /// The type: `Accepted`.
    pub kind: Cow<'static, str>,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The reason, one word: `UnsupportedValue`.
    pub reason: Cow<'static, str>,
    /// What a tired operator should know.
    pub message: Cow<'static, str>,
    /// The generation of the object that was looked at.
    pub generation: i64,
}

impl WantedCondition {
    /// Makes a condition.
    pub fn new(
        kind: &'static str,
        status: impl Into<ConditionStatus>,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
        generation: i64,
    ) -> Self {
        Self { kind: kind.into(), status: status.into(), reason: reason.into(), message: message.into(), generation }
    }
}

/// The status of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedListener {
    /// Its name.
    pub name: Box<str>,
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<RouteKind>,
    /// The number of routes that are attached.
    pub attached_routes: u32,
    /// Conditions: `Accepted`, `Programmed`, `ResolvedRefs`, `Conflicted`.
    pub conditions: Vec<WantedCondition>,
}

/// The entry of a route for a parent, or of a policy for an ancestor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedParent {
    /// The reference as the route has it.
    pub parent: ParentReference,
    /// Conditions: `Accepted`, `ResolvedRefs`, ...
    pub conditions: Vec<WantedCondition>,
}

/// The addresses of an Ingress. An Ingress does not say whose an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedIngress {
    /// Our addresses; empty for an Ingress that is not ours any more.
    pub addresses: Vec<IngressAddress>,
    /// Addresses that were ours, and are removed unless they are wanted.
    pub former: Vec<IngressAddress>,
}

//! The authorities that a listener or a subsystem's connector trusts, and their name constraints.
//!
//! Guarantees: every anchor is a certificate authority that is valid. Leaves to `verification`: the path to an
//! anchor.

pub(crate) mod name_constraints;
pub(crate) mod trust_anchors;

//! The authorities (trust anchors) that a listener or a subsystem's connector trusts, and their name constraints.
//!
//! Guarantees: every anchor is a valid certificate authority.
//!
//! Leaves to `verification`: the path from a certificate to an anchor.

pub(crate) mod name_constraints;
pub(crate) mod trust_anchors;

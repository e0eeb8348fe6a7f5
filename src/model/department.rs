//! Who pays and who is limited.

use super::Name;

/// A department: an immutable id that the ledger keeps, a display name that may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Department {
    /// Stands for `id` while this process lives ([`super::Numbers`]); 0 is the unknown department.
    pub number: u32,
    /// What ledger, metrics and bill call it, for ever.
    pub id: Name,
    /// What people call it today.
    pub name: String,
}

impl Department {
    /// The department of a caller that no department claims. It is refused, and its refusals are counted here.
    pub fn unknown() -> Self {
        Self { number: 0, id: Name::unknown(), name: "unknown".to_owned() }
    }
}

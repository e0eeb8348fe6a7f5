//! The department: the unit of billing and of limits.

use super::Name;

/// A department: an immutable id that the ledger keeps, and a display name that may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Department {
    /// The number of `id` in this process ([`super::NameInterner`]); 0 is the unknown department.
    pub number: u32,
    /// The permanent id in the ledger, in metrics and on bills.
    pub id: Name,
    /// The current display name.
    pub name: String,
}

impl Department {
    /// The department of a caller that no department claims. Such a caller is refused, and its refusals are counted
    /// under this department.
    pub fn unknown() -> Self {
        Self { number: 0, id: Name::unknown(), name: "unknown".to_owned() }
    }
}

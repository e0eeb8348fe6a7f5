//! Limits: rate limits (GCRA by governor), concurrency limits, and quotas of days and months.
//!
//! Guarantees:
//!
//! - Limits are checked from the narrowest to the widest. A refused command has spent nothing: a refusal by a wider
//!   limit returns the tokens and permits of the narrower ones at once (`docs/limits.md`).
//! - Every map is bounded.
//! - A reload never refills a bucket.
//!
//! Leaves to others: the count of commands and refusals (`ledger`). This module only decides.

mod address_limiters;
mod atomic_semaphore;
mod command_gate;
mod keyed_limiters;
mod limiter_registry;
mod period_usage;
mod quota_plan;
mod quota_usage;
mod token_bucket;

pub use address_limiters::AddressPermit;
pub use command_gate::{CommandGate, LimitPermit, LimitRefusal};
pub use limiter_registry::{LimiterRegistry, QuotaState, RestoredUse};
pub use period_usage::QUOTA_UNITS_MAX;
pub use token_bucket::RateLimitInfo;

#[cfg(test)]
mod tests;

//! The nouns of the house. Every other room speaks in these words and gives them no second name.
//!
//! Guarantees: plain values, no IO, no clock, checked integers for everything that is counted.

mod caller;
mod command;
mod department;
mod limits;
mod name;
mod network_ranges;
mod outcome;
mod window;

pub use caller::CallerId;
pub use command::CommandKey;
pub use department::Department;
pub use limits::{MonthlyQuota, QuotaAction, RateLimit, RateUnit, TrafficLimits};
pub use name::{BadName, Name, NameInterner};
pub use network_ranges::NetworkRanges;
pub use outcome::{Blame, Finished, Outcome, Refused};
pub use window::{BadOffset, CalendarOffset, Month, Window};

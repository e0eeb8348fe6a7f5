//! The domain types of the gateway: departments, commands, callers, names, windows, limits and outcomes.
//!
//! Guarantees:
//! - Plain values, without IO or clock.
//! - Checked integers for everything that is counted.
//! - All other modules use these types and give them no second name.

mod caller;
mod command;
mod department;
mod hex;
mod identity_token;
mod limits;
mod name;
mod network_ranges;
mod outcome;
mod paged_list;
mod period;
mod trace_context;
mod window;

pub use caller::CallerId;
pub use command::CommandKey;
pub use department::Department;
pub use hex::hex_text;
pub use identity_token::IdentityToken;
pub use limits::{
    AddressLimits, BandwidthLimit, Quota, QuotaAction, QuotaKind, QuotaMeasure, RateLimit, RateUnit, TrafficLimits,
};
pub use name::{BadName, Name, NameInterner};
pub use network_ranges::{NetworkRanges, counted_address};
pub use outcome::{Blame, Finished, Outcome, Refused};
pub use paged_list::PagedList;
pub use period::{CalendarPeriod, PeriodLength};
pub use trace_context::{CommandTrace, ParentSpan, TraceContext};
pub use window::{BadOffset, CalendarOffset, Month, Window};

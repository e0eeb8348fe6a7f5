//! Commands that look at a running gateway over its admin listener: `tallygate top`
//! and `tallygate diagnose`.
//!
//! Guarantees:
//! - Nothing is changed: only GET requests are sent.
//! - Every wait is bounded.
//!
//! Leaves to `admin_client`: the requests. Leaves to `admin`: what a gateway shows.

pub mod diagnose;
mod exposition;
mod live_screen;
mod overview;
mod overview_text;
mod per_second;
mod reading;
pub mod top;

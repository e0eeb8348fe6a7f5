//! What belongs to one server, whatever protocol it speaks: addresses, byte stream, connection errors, health.
//!
//! Guarantees: no request and no pool is known here.
//! Leaves to others: HTTP (`h1`, `h2`), connecting (`transport`), the choice of a server (`load_balancing`).

pub(crate) mod dns;
pub(crate) mod error;
pub(crate) mod health;
pub(crate) mod slow_start;
pub(crate) mod stream;
mod unanswered;

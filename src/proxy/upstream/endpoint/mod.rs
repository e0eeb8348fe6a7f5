//! One upstream server, independent of the protocol: DNS, byte stream, connection errors, health and outlier ejection,
//! slow start.
//!
//! Guarantees: this module uses neither requests nor pools.
//!
//! Leaves to others: HTTP (`h1`, `h2`), connecting (`transport`), the choice of a server (`load_balancing`).

pub(crate) mod delayed_error;
pub(crate) mod dns;
pub(crate) mod error;
pub(crate) mod outlier_ejection;
pub(crate) mod received_interim;
pub(crate) mod slow_start;
pub(crate) mod stream;
pub(crate) mod unanswered;

//! Rates, quotas, connection limits and timeouts of clients.

mod client_timeouts;
mod connection_limits;
mod rates_and_quotas;

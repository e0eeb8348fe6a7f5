//! Limits and timeouts of downstream connections:
//! - rate limits (token bucket), concurrency limits, monthly quotas;
//! - rates, commands in flight and restrictions by the address of clients;
//! - the bandwidth of responses;
//! - connection limits per address, department and listener; concurrent handshakes; file descriptors;
//! - slowloris (slow heads and slow bodies), minimum body rate, handshake timeout, idle timeout, write timeout (slow
//!   readers), maximum connection age and maximum requests of a connection, lingering close.

mod address_limits;
mod bandwidth;
mod client_timeouts;
mod connection_limits;
mod rates_and_quotas;

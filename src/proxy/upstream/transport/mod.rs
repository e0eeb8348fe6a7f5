//! One face for both protocols towards a server: requests, connections, exchanges, responses, and the connector that
//! opens connections.
//!
//! Guarantees: nothing is sent before the server's certificate was verified, where TLS is configured.
//! Leaves to others: the protocols themselves (`h1`, `h2`), and which connection is used (`pool`).

pub(crate) mod connector;
pub(crate) mod protocol;

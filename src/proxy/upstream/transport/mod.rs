//! Transport to a server, one interface for HTTP/1.1 and HTTP/2: requests, connections, exchanges, responses, and the
//! connector that opens connections.
//!
//! Guarantees: where TLS is configured, nothing is sent before the server's certificate was verified.
//!
//! Leaves to others: the protocols themselves (`h1`, `h2`), and the choice of a connection (`pool`).

pub(crate) mod connector;
pub(crate) mod protocol;

//! The client side: sockets become TLS connections, and connections become HTTP/1.1 and HTTP/2 exchanges, or are
//! forwarded as they are.
//!
//! Guarantees:
//! - This folder enforces every limit on what a client may send, hold, or leave unread.
//! - Each request goes to `exchange` once.
//!
//! Leaves to others: the decision about a request and its response (`exchange`), and every byte between the gateway and
//! a subsystem (`upstream`).

mod client_stream;
mod close_reasons;
mod connection;
pub(crate) mod h1_scanning_stream;
mod h2_frame_budget;
mod h2_refused_heads;
mod h2_send_budget;
mod h2_stream_number;
mod hello_recorder;
mod hpack;
mod http1;
mod http2;
mod idle_timeout;
pub(crate) mod listener;
mod plain_protocol;
pub(crate) mod proxy_protocol;
mod response_stream;
mod tls_connection;
mod tls_handshake;
pub(crate) mod worker_thread;

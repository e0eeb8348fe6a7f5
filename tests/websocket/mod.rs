//! WebSocket tunnels: the HTTP/1.1 upgrade (101), extended CONNECT over HTTP/2 (RFC 8441), tunnel close (half-close,
//! reset, idle timeout, graceful shutdown), backpressure and bounded memory of tunnels.

mod extended_connect;
mod http1_upgrade;
mod tunnel_close;
mod tunnel_memory;

//! WebSocket over HTTP/1.1 and HTTP/2: tunnels, their ends and their memory.

mod extended_connect;
mod http1_upgrade;
mod tunnel_close;
mod tunnel_memory;

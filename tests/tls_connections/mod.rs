//! TLS connections as commands (`tlsMode`): passed through to their server as they are, or terminated at the gateway.
//! Each is routed by its server name, and is one command with all its bytes. Both on one port with HTTPS are tested here
//! too.

mod connection_ends;
mod connection_server;
mod limits_and_refusals;
mod mixed;
mod passthrough;
mod terminate;

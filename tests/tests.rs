//! The integration tests: one binary, one module per capability, names that are sentences.
//!
//! Every test runs a small city of its own ([`world::World`]): the real gateway, real sockets, certificates made at run
//! time. `World::close` audits the books after each test; a world that is dropped without it fails its test.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

// The harness, and the proof that its audit can fail.
mod harness;
mod world;

// What the gateway does, by the field's terms.
mod authorization;
mod grpc;
mod http;
mod http1;
mod http2;
mod identity;
mod ledger;
mod limits;
mod operator;
mod upstream;
mod websocket;

// What happens when the machine fails.
mod faults;

// The source tree itself: the order of its rooms.
mod structure;

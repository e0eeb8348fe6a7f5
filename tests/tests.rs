//! The integration tests: one binary, one module per capability. Test names are sentences.
//!
//! Every test runs a small city of its own ([`world::World`]): the real gateway, real sockets, certificates made at run
//! time. `World::close` audits the books after each test. A world that is dropped without `close` fails its test.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

// The harness, and the tests of its audit.
mod harness;
mod world;

// The capabilities of the gateway, by the field's terms.
mod authorization;
mod grpc;
mod http;
mod http1;
mod http2;
mod identity;
mod ledger;
mod limits;
mod operator;
mod tls_connections;
mod upstream;
mod websocket;

// Faults of the machine: crashes, clock jumps, disk errors, full disks, lost files.
mod faults;

// The source tree: import order, module counts, comment width, type names.
mod structure;

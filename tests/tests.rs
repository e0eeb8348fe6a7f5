//! The integration tests: one binary, one module per capability, names that are sentences.
//!
//! Every test runs a small city of its own ([`world::World`]): the real gateway, real sockets, certificates made at run
//! time. `World::close` audits the books after each test; a world that is dropped without it fails its test.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]

// The harness, and whether it can fail.
mod harness;
mod world;

// Who, may they, how fast.
mod caps;
mod claims;
mod grants;
mod identity;
mod limits;
mod lists;
mod matrix;
mod names;
mod paths;
mod proxied;
mod standing;

// What HTTP is accepted, and how long a caller is waited for.
mod compression;
mod corpus;
mod early_answers;
mod floods;
mod grammar;
mod patience;
mod rfc9113;

// What crosses the gateway, and what does not.
mod again;
mod blame;
mod broken_messages;
mod forwarding;
mod framing;
mod grpc;
mod grpc_tonic;
mod healthy;
mod interim;
mod large;
mod message_ends;
mod mirrors;
mod protocols;
mod queues;
mod refusals;
mod retries;
mod retries_http2;
mod shaping;
mod streaming;
mod units;
mod upstreams;
mod websocket;
mod websocket_ends;
mod websocket_h2;
mod websocket_memory;
mod weights;

// How much.
mod audit;
mod counting;
mod crash;
mod faults_clock;
mod faults_disk;
mod faults_files;
mod faults_space;
mod ledger;

// The operator's side.
mod admin;
mod cli;
mod docs;
mod drain;
mod log;
mod reload;

// Foreign parts: nginx, Prometheus, curl, openssl, sqlite3.
mod real_parts;

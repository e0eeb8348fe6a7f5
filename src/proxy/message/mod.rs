//! HTTP messages: grammar, header rules, and bodies with their limits.
//!
//! Guarantees: no socket is read or written here; what is malformed has a status and a text, and is never repaired by
//! guessing.
//! Leaves to others: who sends a message and what becomes of it (`exchange`, `upstream`, `downstream`).

pub(crate) mod body_rate;
pub(crate) mod extended_connect;
pub(crate) mod field_line;
pub mod grammar;
pub(crate) mod grpc;
pub(crate) mod header_rules;
pub(crate) mod interim_response;
pub(crate) mod message_body;
pub(crate) mod request_body;
pub(crate) mod request_head;
pub(crate) mod request_id;
pub(crate) mod upload_progress;

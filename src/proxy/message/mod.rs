//! HTTP messages: grammar, header rules, and bodies with their limits.
//!
//! Guarantees:
//!
//! - This module reads and writes no socket.
//! - Every malformed message has a status and a detail text. Malformed input is never repaired by guessing.
//!
//! Leaves to others: the sender of a message, and its further handling (`exchange`, `upstream`, `downstream`).

pub(crate) mod body_rate;
pub(crate) mod field_line;
pub mod grammar;
pub(crate) mod grpc;
pub(crate) mod h2_frame;
pub(crate) mod header_list;
pub(crate) mod header_rules;
pub(crate) mod interim_response;
pub(crate) mod message_body;
pub(crate) mod rate_limit_headers;
pub(crate) mod request_body;
pub(crate) mod request_head;
pub(crate) mod request_id;
pub(crate) mod upgrade_request;
pub(crate) mod upload_progress;

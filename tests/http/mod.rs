//! Messages over both versions of HTTP: heads, bodies, ends, refusals.

mod early_responses;
mod gzip;
mod header_and_path_rewriting;
mod header_forwarding;
mod interim_responses;
mod large_bodies;
mod message_ends;
mod message_framing;
mod refusal_responses;
mod request_grammar;
mod streaming_bodies;
mod truncated_messages;

//! HTTP messages over HTTP/1.1 and HTTP/2:
//! - the choice of the command by host, path, header fields and query parameters;
//! - request grammar and message framing (request smuggling, `Content-Length`, `Transfer-Encoding`, trailers);
//! - hop-by-hop headers, header and path rewriting, CORS preflights, gzip compression;
//! - streaming bodies, large bodies (flow control, bounded memory), truncated messages, early responses;
//! - interim responses (1xx, Early Hints), `Expect: 100-continue`, refusals as RFC 9457 problem details.

mod early_responses;
mod gzip;
mod header_and_path_rewriting;
mod header_forwarding;
mod ingress_annotations;
mod interim_responses;
mod large_bodies;
mod message_ends;
mod message_framing;
mod refusal_responses;
mod request_grammar;
mod route_matching;
mod streaming_bodies;
mod truncated_messages;

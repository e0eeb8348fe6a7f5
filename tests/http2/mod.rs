//! HTTP/2, frame by frame:
//! - conformance (RFC 9113): error codes of malformed frames and heads;
//! - abuse: rapid reset (CVE-2023-44487), CONTINUATION flood, HPACK bombs, floods of PING, SETTINGS and empty DATA
//!   frames, slow readers;
//! - flow control and backpressure: bounded memory of connections whose caller does not read.

pub(crate) mod http2_abuse;
mod http2_conformance;

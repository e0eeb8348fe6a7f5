//! HTTP/2 alone: conformance and abuse, frame by frame.

pub(crate) mod http2_abuse;
mod http2_conformance;

//! HTTP/1.1 alone.

pub(crate) mod http1_conformance;

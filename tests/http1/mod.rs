//! HTTP/1.1 conformance: a corpus of raw requests that covers request smuggling, message framing, chunked encoding and
//! malformed heads.

pub(crate) mod http1_conformance;

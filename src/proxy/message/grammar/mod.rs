//! The grammar of HTTP/1.1 on the wire, checked before hyper parses the bytes.
//!
//! hyper and httparse are more lenient than a gateway may be. They silently accept:
//!
//! - bare line feeds;
//! - a Content-Length beside a Transfer-Encoding;
//! - several transfer codings;
//! - chunk extensions.
//!
//! hyper answers the requests that it refuses itself, uncounted. Therefore [`H1Scanner`] scans every byte of every
//! head, chunk line and trailer first. It derives the start of the next head from the framing, and passes only what
//! every HTTP implementation reads in the same way. `ScanningStream` places the scanner between TLS and hyper.
//!
//! Guarantees:
//!
//! - A head reaches hyper complete and well formed, or not at all.
//! - A malformed head is answered and counted on the path of all refusals, after the responses to the requests before
//!   it. It ends the connection.
//! - A body that breaks its framing ends there, and never looks complete.
//! - Bytes that arrive in one piece are scanned once, without allocation and without a copy.
//! - The same functions check the heads that h2 decodes (`h2_rules`): one grammar for both protocols.
//!
//! Leaves to others: authority, path and field names, which `message::request_head` checks.

pub(crate) mod h1_scanner;
mod h2_rules;
mod head_framing;
mod request_line;
mod text;

pub(crate) mod malformed;
#[cfg(test)]
mod tests;

pub use h1_scanner::{FaultPosition, H1Scanner, HeadLimits, ScanResult};

pub(crate) use h2_rules::{check_head, check_names, check_trailers, is_trailer_allowed};
pub(crate) use text::is_plain_host;

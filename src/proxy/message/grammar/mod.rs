//! HTTP/1.1 as it comes over the wire, read by us before hyper reads it.
//!
//! hyper and httparse are kinder than a gateway may be: they take bare line feeds, a Content-Length beside a
//! Transfer-Encoding, several codings, chunk extensions, and tell nobody. What they do refuse they answer themselves,
//! uncounted. So [`H1Scanner`] looks at every byte of every head, chunk line and trailer first, knows from the framing where
//! the next head begins, and lets through only what every reader of HTTP reads in the same way; `ScanningStream` puts it between
//! TLS and hyper.
//!
//! Guarantees: a head reaches hyper whole and well formed, or not at all; what is wrong with one is answered and counted
//! on the one path of all refusals, after the answers to what came before it, and ends the connection. A body that breaks
//! its framing ends there, and never looks whole. One pass over what came in one piece, no allocation and no copy.
//! What h2 has decoded of HTTP/2 is judged by the same functions (`h2_rules`): one grammar for both protocols.
//! Leaves to `proxy::head` what hyper shows the application: authority, path, fields as such.

pub(crate) mod h1_scanner;
mod h2_rules;
mod head_framing;
mod request_line;
mod text;

pub(crate) mod malformed;
#[cfg(test)]
mod tests;

pub use h1_scanner::{FaultPosition, H1Scanner, HeadLimits, ScanResult};

pub(crate) use crate::proxy::downstream::h1_guard::{ClientLimits, PendingFault, ScanningStream};
pub(crate) use crate::proxy::io::movable_deadline::MovableDeadline;
pub(crate) use h2_rules::{check_head, check_names, check_trailers, is_trailer_allowed};

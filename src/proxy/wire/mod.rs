//! HTTP/1.1 as it comes over the wire, read by us before hyper reads it.
//!
//! hyper and httparse are kinder than a gateway may be: they take bare line feeds, a Content-Length beside a
//! Transfer-Encoding, several codings, chunk extensions, and tell nobody. What they do refuse they answer themselves,
//! uncounted. So [`Scanner`] looks at every byte of every head, chunk line and trailer first, knows from the framing where
//! the next head begins, and lets through only what every reader of HTTP reads in the same way; `Guard` puts it between
//! TLS and hyper.
//!
//! Guarantees: a head reaches hyper whole and well formed, or not at all; what is wrong with one is answered and counted
//! on the one path of all refusals, after the answers to what came before it, and ends the connection. A body that breaks
//! its framing ends there, and never looks whole. One pass over what came in one piece, no allocation and no copy.
//! What h2 has decoded of HTTP/2 is judged by the same functions (`http2`): one grammar for both protocols.
//! Leaves to `proxy::head` what hyper shows the application: authority, path, fields as such.

mod field;
mod guard;
mod http2;
mod request_line;
mod scanner;
mod text;
mod wait;

#[cfg(test)]
mod tests;

pub use scanner::{HeadLimits, Scan, Scanner, Where};

pub(super) use guard::{Found, Guard, Manners};
pub(super) use http2::{check_head, check_names, check_trailers, may_be_in_trailers};
pub(super) use wait::Wait;

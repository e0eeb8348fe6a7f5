//! HTTP/1.1 towards a subsystem: one request on one connection, driven by the command that sends it.
//!
//! There is no task, no channel and no lock between a command and its connection: what wakes the connection wakes the
//! command. (Measured: hyper's client, which has all three, costs a command 12,300 instructions of 56,000.) The command's
//! future owns its connection, so a command that is dropped closes it, and the server hears that nobody listens.
//!
//! Guarantees: bodies stream, one piece at a time is held in each direction; framing of requests is made here, framing of
//! answers is checked here; a connection can be used again only after both bodies ended exactly where they said.
//! Leaves to `httparse` the grammar of heads, and to [`super::pool`] which connection is used.

mod body_decoder;
mod connection;
mod exchange;
mod request;
mod response_body;
mod response_head;

use super::endpoint::error::ConnectionError;
pub(crate) use crate::proxy::message::field_line::put_header;
pub(crate) use connection::Http1Connection;
pub(crate) use exchange::Http1Exchange;
pub(crate) use request::{Http1Request, RequestFraming};
pub(crate) use response_body::Http1Body;
pub(crate) use response_head::Http1ResponseHead;

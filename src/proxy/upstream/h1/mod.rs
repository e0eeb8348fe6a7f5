//! The HTTP/1.1 client towards a subsystem: one request on one connection, driven by the command that sends the
//! request.
//!
//! There is no task, no channel and no lock between a command and its connection: a wake-up of the connection wakes the
//! command. (Measured: hyper's client has all three and costs a command 12,300 of 56,000 instructions.) The future of
//! the command owns the connection. Dropping a command closes its connection, so the server learns that the response is
//! no longer wanted.
//!
//! Guarantees:
//! - Bodies are streamed. At most one piece is held in each direction.
//! - The framing of requests is made here, and the framing of responses is checked here.
//! - A connection is reusable only after both bodies ended exactly where their framing said.
//!
//! Leaves to others: the grammar of heads (`httparse`), and the choice of a connection ([`super::pool`]).

mod body_decoder;
mod connection;
mod exchange;
mod request;
mod response_body;
mod response_head;
mod whole_response;

use super::endpoint::error::ConnectionError;
pub(crate) use connection::Http1Connection;
pub(crate) use exchange::Http1Exchange;
pub(crate) use request::{Http1Request, RequestFraming};
pub(crate) use response_body::Http1Body;
pub(crate) use response_head::Http1ResponseHead;
#[doc(hidden)] // for fuzz/ only
pub use whole_response::{ResponseEnd, WholeResponse, read_whole_response};

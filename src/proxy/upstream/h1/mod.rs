//! HTTP/1.1 towards a subsystem: one request on one connection, driven by the command that sends it.
//!
//! There is no task, no channel and no lock between a command and its connection: what wakes the connection wakes the
//! command. (Measured: hyper's client, which has all three, costs a command 12,300 instructions of 56,000.) The command's
//! future owns its connection, so a command that is dropped closes it, and the server hears that nobody listens.
//!
//! Guarantees: bodies stream, one piece at a time is held in each direction; framing of requests is made here, framing of
//! answers is checked here; a connection can be used again only after both bodies ended exactly where they said.
//! Leaves to `httparse` the grammar of heads, and to [`super::pool`] which connection is used.

mod answer;
mod decode;
mod exchange;
mod head;
mod request;
mod wire;

use super::Broken;
pub(super) use answer::AnswerBody;
pub(super) use exchange::Exchange;
pub(super) use head::Head;
pub(in crate::proxy) use request::{Framing, Outgoing, put_field};
pub(super) use wire::Wire;

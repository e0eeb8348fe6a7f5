//! The access log: one line for each command, written by a thread of its own.
//!
//! Guarantees:
//! - Each command that ends while the access log is on is a line that is written, a line that is dropped and counted,
//!   or one that the sample leaves out and that is counted. Its count in the ledger does not depend on that.
//! - Workers never wait for the output. While the access log is off, no record exists.
//! - The output is open before the settings are live. An output that cannot be opened changes nothing.
//! - At the end of the process the lines that wait are written, within three seconds.
//!
//! ```text
//! worker: record -> batch --(64 records or 100 ms)--> queue (bounded) --> writer: line -> file, pipe or stdout
//! ```
//!
//! Leaves to others: the facts of a command (`proxy::exchange`), and when settings change (`app`).

mod counts;
mod line;
mod live_log;
mod queue;
mod record;
mod recorder;
mod sink;
#[cfg(test)]
mod tests;
mod writer;

pub use counts::{AccessCounts, DropReason};
pub use live_log::{AccessLog, PreparedAccessLog};
pub(super) use record::BoxedRecord;
pub use record::{AccessRecord, RecordText};
pub use recorder::AccessRecorder;
pub use sink::AccessLogOpenError;

//! The book: the SQLite file that finance reads, and every statement that reads or writes the file.
//!
//! Guarantees:
//! - Each update is one transaction.
//! - Rows carry whole sums, so a repeated update changes nothing (idempotent).
//!
//! Leaves to `hash_chain`: the text that a seal covers, and its hash. Leaves to `fold`: the sums.

pub(crate) mod adjustments;
pub(crate) mod book_reader;
pub(crate) mod book_writer;
mod compaction;
mod connection;
pub(crate) mod day_sums;
pub(crate) mod department_names;
pub(crate) mod epoch_end;
pub(crate) mod hour_rows;
mod in_flight_rows;
pub(crate) mod ledger_identity;
mod migration;
mod orphaned_epochs;
pub(crate) mod read_only;
pub(crate) mod schema;
pub(crate) mod schema_check;
mod seal_hours;
mod tally_proof;
pub(crate) mod usage_query;

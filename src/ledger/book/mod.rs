//! The book: the SQLite file that finance reads; every statement that writes or reads it.
//!
//! Guarantees: each update is one transaction; rows carry whole sums, so an update that is repeated changes
//! nothing. Leaves to `hash_chain`: what a seal covers and how it is hashed; to `fold`: the sums.

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
mod migration;
mod orphaned_epochs;
pub(crate) mod read_only;
pub(crate) mod schema;
pub(crate) mod schema_check;
mod seal_hours;
mod tally_proof;
pub(crate) mod usage_query;

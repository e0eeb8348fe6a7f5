//! The ledger's files on disk: paths, locks and identities.
//!
//! Guarantees: one book has one path; one keeper at a time. Leaves to `tally` and `book`: what is in the files.

pub(crate) mod book_path;
pub(crate) mod file_identity;
pub(crate) mod lock;

//! The ledger's files on disk: paths, locks and identities.
//!
//! Guarantees:
//! - One book has one canonical path.
//! - At most one keeper runs at a time.
//!
//! Leaves to `tally` and `book`: the content of the files.

pub(crate) mod book_path;
pub(crate) mod file_identity;
pub(crate) mod lock;

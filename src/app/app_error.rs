//! Why a gateway did not start, or did not stop well (`AppError`).
//!
//! Guarantees: each cause keeps its own type, so that the command line can choose the exit code.
//! Leaves to others: exit codes and texts (`cli`).

use std::io;

use crate::config::ConfigProblems;
use crate::ledger::LedgerError;

use super::binding::BindProblems;

/// Why a gateway did not start, or did not stop well.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigProblems),
    /// The ledger could not be opened or has failed.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// Addresses could not be bound.
    #[error("{0}")]
    Bind(#[from] BindProblems),
    /// The system gave no thread or runtime.
    #[error("the system gave no thread: {0}")]
    Thread(#[from] io::Error),
}

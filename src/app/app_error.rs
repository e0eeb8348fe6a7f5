//! The errors of start and shutdown (`AppError`).
//!
//! Guarantees: each cause keeps its own type, so that the command line can choose the exit code.
//!
//! Leaves to others: exit codes and texts (`cli`).

use std::io;

use crate::config::ConfigProblems;
use crate::kube::api::KubeClientError;
use crate::ledger::LedgerError;

use super::binding::BindProblems;

/// Why a gateway did not start, or failed during shutdown.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration has problems.
    #[error("{0}")]
    Config(#[from] ConfigProblems),
    /// The ledger could not be opened, or has failed.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// Some addresses could not be bound.
    #[error("{0}")]
    Bind(#[from] BindProblems),
    /// There is no access to a Kubernetes cluster.
    #[error("{0}")]
    Cluster(#[from] KubeClientError),
    /// The system could not create a thread or a runtime.
    #[error("cannot create a thread: {0}")]
    Thread(#[from] io::Error),
}

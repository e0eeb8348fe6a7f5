//! Errors of the command line as texts and exit codes.
//!
//! Guarantees: the exit code of an error is that of its first cause that has one.

use std::io;

use crate::app::AppError;
use crate::cli::trial_authority::AuthorityError;
use crate::config::ConfigProblems;
use crate::ledger::LedgerError;
use crate::ledger::audit::ExportError;
use crate::report::{HourSamplesError, ScrapedError};

use super::admin_client::{AdminError, BadAdminUrl};
use super::prometheus::{BadPrometheusOption, PrometheusError};

/// Exit code of a negative result: problems or differences were found.
pub const NOT_SO: u8 = 1;
/// Exit code of a usage error: the command line is wrong.
pub const USAGE: u8 = 2;
/// Exit code of an internal fault, or of a resource that the machine refuses (an address, a thread). A retry may
/// succeed.
pub const INTERNAL: u8 = 70;
/// Exit code of a storage fault: the disk, the ledger on it, or a Prometheus or a gateway that gives no usable
/// answer.
pub const STORAGE: u8 = 74;

/// A usage error: the command line asks for something impossible.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadUsage(pub String);

/// The result was computed but could not be written, for example because of a full disk behind stdout.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the result to stdout")]
pub(crate) struct PrintError(#[source] pub(crate) io::Error);

/// The error with its causes. A cause whose text is already part of the message is not repeated.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// The exit code of an error: that of the first cause that has one.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of_cause).unwrap_or(INTERNAL)
}

fn code_of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = cause.downcast_ref::<AppError>() {
        return Some(match error {
            AppError::Config(_) => NOT_SO,
            AppError::Ledger(_) => STORAGE,
            AppError::Bind(_) | AppError::Cluster(_) | AppError::Thread(_) => INTERNAL,
        });
    }
    if let Some(error) = cause.downcast_ref::<AuthorityError>() {
        return Some(if matches!(error, AuthorityError::Unwritable { .. }) { STORAGE } else { NOT_SO });
    }
    let is_storage = cause.is::<LedgerError>() || cause.is::<ExportError>() || cause.is::<HourSamplesError>();
    if let Some(error) = cause.downcast_ref::<ScrapedError>() {
        return Some(if error.is_choice() { USAGE } else { STORAGE });
    }
    let is_unanswered = cause.is::<PrometheusError>() || cause.is::<AdminError>();
    if is_storage || is_unanswered || cause.is::<PrintError>() {
        return Some(STORAGE);
    }
    if cause.is::<ConfigProblems>() {
        return Some(NOT_SO);
    }
    let is_usage = cause.is::<BadUsage>() || cause.is::<BadPrometheusOption>() || cause.is::<BadAdminUrl>();
    is_usage.then_some(USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::BindProblems;

    #[test]
    fn failure_has_the_exit_code_of_its_cause() {
        let ledger = || LedgerError::Panicked("while it folded".to_owned());
        for (error, code) in [
            (anyhow::Error::new(ledger()).context("while reporting"), STORAGE),
            (AppError::Ledger(ledger()).into(), STORAGE),
            (AppError::Thread(io::ErrorKind::WouldBlock.into()).into(), INTERNAL),
            (AppError::Bind(BindProblems(vec![])).into(), INTERNAL),
            (AppError::Config(ConfigProblems(vec![])).into(), NOT_SO),
            (ConfigProblems(vec![]).into(), NOT_SO),
            (AuthorityError::Exists("ca.pem".into()).into(), NOT_SO),
            (AuthorityError::Unwritable { path: "ca.pem".into(), why: "full".to_owned() }.into(), STORAGE),
            (BadUsage("no".to_owned()).into(), USAGE),
            (PrintError(io::ErrorKind::StorageFull.into()).into(), STORAGE),
            (anyhow::anyhow!("something else"), INTERNAL),
        ] {
            assert_eq!(exit_code(&error), code, "{error:#}");
        }
    }

    #[test]
    fn each_cause_is_printed_once() {
        let error = anyhow::anyhow!("the disk is full").context("writing a: the disk is full").context("folding");
        assert_eq!(error_text(&error), "folding: writing a: the disk is full");
    }

    #[test]
    fn closed_stdout_is_no_error() {
        let broken = PrintError(io::ErrorKind::BrokenPipe.into());
        assert!(is_broken_pipe(&anyhow::Error::new(broken).context("printing")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken")));
    }
}

//! The log: what operators read on stderr, as text or as one JSON object a line.
//!
//! Control characters are escaped by the formatters, so a caller cannot write lines of its own into the log.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Why the log could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no level and no filter.
    #[error(
        "{level:?} is no log level: {source}; write error, warn, info, debug or trace, or a filter such as info,tallygate=debug"
    )]
    Level {
        /// What was written.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Somebody else in this process logs already.
    #[error("the log could not be begun: {0}")]
    Begun(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends what is traced at `level` (a level, or a filter as `tracing_subscriber` has it) to stderr.
pub fn begin(format: LogFormat, level: &str) -> Result<(), LogError> {
    let filter = EnvFilter::try_new(level).map_err(|source| LogError::Level { level: level.to_owned(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Begun)
}

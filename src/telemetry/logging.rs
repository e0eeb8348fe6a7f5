//! The log that operators read on stderr, as text or as one JSON object per line.
//!
//! Guarantees:
//! - One event is one line.
//! - Logging never blocks on the log and never fails because of it (see `log_queue`).
//! - Control characters in logged values are escaped. A hostile name or path cannot forge log lines (log injection) or
//!   send colour codes to an operator's terminal.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::Duration;

use tracing::field::Field;
use tracing::{Subscriber, dispatcher};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt as lines, registry};

use super::log_lines::log_queue::LogQueue;

/// How long the exiting process waits for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Why logging could not be initialised.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is neither a level nor a filter.
    #[error(
        "{level:?} is not a log level: {source}; write error, warn, info, debug or trace, or a filter such as \
         info,tallygate=debug"
    )]
    Level {
        /// The level as written.
        level: String,
        /// The error of the filter parser.
        source: ParseError,
    },
    /// A word that the filter would take for the name of a crate. Such a filter would silence all other crates.
    #[error(
        "{0:?} is not a log level; write error, warn, info, debug, trace or off, or a filter such as \
         info,tallygate::ledger=debug"
    )]
    UnknownWord(String),
    /// Another logger is already installed in this process.
    #[error("cannot start the log: {0}")]
    AlreadyInitialized(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends trace events and panics to stderr. `level` is a level or a filter in the syntax of `tracing_subscriber`.
pub fn init_log(format: LogFormat, level: &str) -> Result<(), LogError> {
    if let Some(word) = level.split(',').find(|part| !is_directive(part.trim())) {
        return Err(LogError::UnknownWord(word.trim().to_owned()));
    }
    let filter = EnvFilter::try_new(level).map_err(|source| LogError::Level { level: level.to_owned(), source })?;
    let queue = LogQueue::start(stderr()).map_err(|error| LogError::AlreadyInitialized(error.into()))?;
    let log = registry().with(filter).with(LogLayer(Arc::clone(&queue)));
    let lines = lines::layer().with_writer(move || LogLineWriter(Arc::clone(&queue))).log_internal_errors(false);
    match format {
        LogFormat::Text => log.with(lines.fmt_fields(plain_fields()).with_ansi(stderr().is_terminal())).try_init(),
        LogFormat::Json => log.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(|error| LogError::AlreadyInitialized(error.into()))?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

/// Writes a line to the log as it is, or to stderr where logging has not been initialised.
pub fn log_line(text: &str) {
    let line = format!("{text}\n");
    if with_log(|queue| queue.push_line(line.as_bytes())).is_none() {
        let _ = stderr().write_all(line.as_bytes()); // stderr is closed: the error cannot be reported anywhere
    }
}

/// Waits for at most `LAST_LINES` until the log has been written. Call this before the process ends.
pub fn flush_log() {
    with_log(|queue| queue.flush(LAST_LINES));
}

/// The number of lines that were dropped, because a write failed or because the queue was full.
pub(crate) fn lines_dropped() -> u64 {
    with_log(LogQueue::dropped).unwrap_or_default()
}

/// Calls `then` with the log of this process. The log is found through the `tracing` dispatcher, which has to be global
/// anyway, so the log needs no global of its own.
fn with_log<T>(then: impl FnOnce(&LogQueue) -> T) -> Option<T> {
    dispatcher::get_default(|tracing| tracing.downcast_ref::<LogLayer>().map(|log| Arc::clone(&log.0)))
        .map(|log| then(&log))
}

/// A layer that makes the log queue reachable through the `tracing` dispatcher.
struct LogLayer(Arc<LogQueue>);

impl<S: Subscriber> Layer<S> for LogLayer {}

/// The writer of one event, which is one line.
struct LogLineWriter(Arc<LogQueue>);

impl Write for LogLineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push_line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether one part of a filter is a valid directive: a level, a target within this program, or any part with a `=` or
/// a span. `EnvFilter` takes every other word for the name of a crate. It would then log everything of that crate and
/// nothing of any other.
fn is_directive(part: &str) -> bool {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    levels.contains(&part.to_ascii_lowercase().as_str())
        || part.is_empty()
        || part.contains(['=', '['])
        || part == "tallygate"
        || part.contains("::")
}

/// The field format `message name=value name=value`, with control characters escaped.
fn plain_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(write_field).delimited(" ")
}

fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{field}=")?;
    }
    for character in format!("{value:?}").chars() {
        if character.is_control() {
            write!(writer, "{}", character.escape_default())?;
        } else {
            writer.write_char(character)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn event_is_one_line_whatever_its_content() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .fmt_fields(plain_fields())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        let evil = "/x\n INFO all is well\u{1b}[31m";
        tracing::subscriber::with_default(log, || tracing::info!(path = %evil, count = 3, "a path: {evil}"));
        let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("text");
        let shown = r"/x\n INFO all is well\u{1b}[31m";
        assert_eq!(text, format!(" INFO a path: {shown} path={shown} count=3\n"));
    }

    #[test]
    fn filter_consists_of_levels_and_targets() {
        for part in
            ["info", "WARN", "off", "tallygate::ledger=debug", "tallygate::ledger", "tallygate", "[span]", "h2=off"]
        {
            assert!(is_directive(part), "{part}");
        }
        for level in ["banana", "info,banana", "infos", "3"] {
            let error = init_log(LogFormat::Text, level).expect_err(level).to_string();
            assert!(error.contains("write error, warn, info, debug, trace or off"), "{error}");
        }
    }

    #[test]
    fn invalid_level_is_reported_with_the_valid_ones() {
        let error = init_log(LogFormat::Text, "tallygate=loud").expect_err("no level").to_string();
        assert!(error.contains("write error, warn, info, debug or trace"), "{error}");
    }
}

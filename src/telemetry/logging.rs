//! The log: what operators read on stderr, as text or as one JSON object a line.
//!
//! Guarantees: one event is one line. Whoever logs never waits for the log, and never fails with it (`log_queue`). Control characters in what is logged are escaped, so nobody whose name or path is
//! logged can write lines of their own or colour an operator's terminal.

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

use super::log_queue::LogQueue;

/// How long the end of the process waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

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
    /// A word that is taken for a part of the program, and so would silence all others.
    #[error(
        "{0:?} is no log level; write error, warn, info, debug, trace or off, or a filter such as \
         info,tallygate::ledger=debug"
    )]
    UnknownWord(String),
    /// Somebody else in this process logs already.
    #[error("the log could not be begun: {0}")]
    AlreadyInitialized(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends what is traced at `level` (a level, or a filter as `tracing_subscriber` has it) to stderr, and panics as well.
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

/// Puts a line of our own into the log, as it is; on stderr where no log was begun.
pub fn log_line(text: &str) {
    let line = format!("{text}\n");
    if with_log(|queue| queue.push_line(line.as_bytes())).is_none() {
        let _ = stderr().write_all(line.as_bytes()); // nobody is left to be told that stderr is closed
    }
}

/// Waits for a moment until the log has what was said last: for those who end the process.
pub fn flush_log() {
    with_log(|queue| queue.flush(LAST_LINES));
}

/// Lines that could not be written, or found no room while the log was slower than those who log.
pub(crate) fn lines_dropped() -> u64 {
    with_log(LogQueue::dropped).unwrap_or_default()
}

/// The log of this process is found through its tracing, which has to be global: so it needs no global of its own.
fn with_log<T>(then: impl FnOnce(&LogQueue) -> T) -> Option<T> {
    dispatcher::get_default(|tracing| tracing.downcast_ref::<LogLayer>().map(|log| Arc::clone(&log.0)))
        .map(|log| then(&log))
}

/// Where the log's queue can be found.
struct LogLayer(Arc<LogQueue>);

impl<S: Subscriber> Layer<S> for LogLayer {}

/// One event, written as one line.
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

/// Whether a part of a filter means what its writer thinks: a level, a part of this program, or anything with a `=` or a
/// span. `EnvFilter` takes every other word for the name of a crate, of which then everything is logged, and nothing else.
fn is_directive(part: &str) -> bool {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    levels.contains(&part.to_ascii_lowercase().as_str())
        || part.is_empty()
        || part.contains(['=', '['])
        || part == "tallygate"
        || part.contains("::")
}

/// `message name=value name=value`, without control characters.
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
    fn an_event_is_one_line_whatever_it_says() {
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
    fn a_filter_is_made_of_levels_and_targets() {
        for part in
            ["info", "WARN", "off", "tallygate::ledger=debug", "tallygate::ledger", "tallygate", "[span]", "h2=off"]
        {
            assert!(is_directive(part), "{part}");
        }
        for level in ["banana", "info,banana", "infos", "3"] {
            let said = init_log(LogFormat::Text, level).expect_err(level).to_string();
            assert!(said.contains("write error, warn, info, debug, trace or off"), "{said}");
        }
    }

    #[test]
    fn a_wrong_level_is_told_with_what_may_be_written() {
        let said = init_log(LogFormat::Text, "tallygate=loud").expect_err("no level").to_string();
        assert!(said.contains("write error, warn, info, debug or trace"), "{said}");
    }
}

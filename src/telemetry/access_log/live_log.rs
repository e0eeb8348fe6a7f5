//! The access log of a gateway: its settings, its queue and its writer (`AccessLog`).
//!
//! Guarantees: settings are live only with an open output, and only with a writer.
//!
//! Leaves to others: records (`recorder`), and writing them (`writer`).

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::clock::Clock;
use crate::config::{AccessLogOutput, AccessLogSettings};
use crate::model::Name;

use super::counts::AccessCounts;
#[cfg(test)]
use super::counts::DropReason;
use super::queue::{AccessQueue, WriterOrder};
use super::record::BoxedRecord;
use super::sink::{AccessLogOpenError, AccessSink};
use super::writer::AccessWriter;

/// How long the end of the process waits for the last lines.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The access log of a gateway, on or off.
#[derive(Debug)]
pub struct AccessLog {
    queue: Arc<AccessQueue>,
    counts: Arc<AccessCounts>,
    clock: Clock,
    gateway: Name,
    /// The live settings; `None` while the access log is off.
    settings: ArcSwapOption<AccessLogSettings>,
    /// Whether the thread of the writer runs. It starts when the access log is first switched on.
    has_writer: Mutex<bool>,
}

/// Settings whose output is open. They are not live yet.
#[derive(Debug)]
pub struct PreparedAccessLog(Prepared);

#[derive(Debug)]
enum Prepared {
    Unchanged,
    Off,
    On(AccessSink, Arc<AccessLogSettings>),
}

impl AccessLog {
    /// An access log that is off. Each line names the gateway.
    pub fn new(counts: &Arc<AccessCounts>, clock: Clock, gateway: Name) -> Arc<Self> {
        Arc::new(Self {
            queue: Arc::default(),
            counts: Arc::clone(counts),
            clock,
            gateway,
            settings: ArcSwapOption::empty(),
            has_writer: Mutex::new(false),
        })
    }

    /// Opens the output of these settings, unless they are live already.
    ///
    /// # Errors
    /// If the output cannot be opened. The access log goes on as before.
    pub fn prepare(&self, settings: Option<&AccessLogSettings>) -> Result<PreparedAccessLog, AccessLogOpenError> {
        Ok(PreparedAccessLog(match settings {
            settings if settings == self.settings.load().as_deref() => Prepared::Unchanged,
            None => Prepared::Off,
            Some(settings) => Prepared::On(AccessSink::open(&settings.output)?, Arc::new(settings.clone())),
        }))
    }

    /// Makes prepared settings live.
    ///
    /// # Errors
    /// If the thread of the writer cannot be started.
    pub fn switch(&self, prepared: PreparedAccessLog) -> io::Result<()> {
        match prepared.0 {
            Prepared::Unchanged => {}
            Prepared::Off => {
                self.settings.store(None);
                self.queue.order(WriterOrder::SwitchOff);
            }
            Prepared::On(sink, settings) => {
                self.start_writer()?;
                self.queue.set_limits(settings.queue);
                self.queue.order(WriterOrder::Switch(sink, settings.format));
                self.settings.store(Some(settings));
            }
        }
        Ok(())
    }

    /// The live settings; `None` while the access log is off.
    pub fn settings(&self) -> Option<Arc<AccessLogSettings>> {
        self.settings.load_full()
    }

    /// Asks the writer to open its file again, because the file was renamed. Returns `false` if there is no file.
    pub fn reopen(&self) -> bool {
        let settings = self.settings.load();
        let has_file = settings.as_ref().is_some_and(|settings| settings.output != AccessLogOutput::Stdout);
        if has_file {
            self.queue.order(WriterOrder::Reopen);
        }
        has_file
    }

    /// Writes the lines that wait, and ends the writer. Blocks until then, at most for 3 s.
    pub fn close(&self) {
        self.settings.store(None);
        if !std::mem::take(&mut *self.lock_writer()) {
            return;
        }
        self.queue.order(WriterOrder::End);
        if let Some(lines) = self.queue.wait_until_ended(CLOSE_TIMEOUT) {
            tracing::error!(lines, "the last lines of the access log could not be written in time");
        }
    }

    /// Hands records to the writer.
    pub(crate) fn push(&self, batch: &mut Vec<BoxedRecord>) {
        if let Some(reason) = self.queue.push(batch, &self.counts) {
            tracing::warn!(reason = reason.name(), "lines of the access log are dropped; traffic goes on");
        }
    }

    pub(crate) fn counts(&self) -> &AccessCounts {
        &self.counts
    }

    /// Why the writer cannot write at the moment.
    #[cfg(test)]
    pub(crate) fn failure(&self) -> Option<DropReason> {
        self.queue.failure()
    }

    fn start_writer(&self) -> io::Result<()> {
        let mut has_writer = self.lock_writer();
        if !*has_writer {
            let shared = (Arc::clone(&self.queue), Arc::clone(&self.counts));
            let writer = AccessWriter::new(shared, (self.clock.clone(), self.gateway.clone()));
            thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run())?;
            *has_writer = true;
        }
        Ok(())
    }

    fn lock_writer(&self) -> MutexGuard<'_, bool> {
        self.has_writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AccessLog {
    /// Ends the writer of a gateway that did not start, without waiting for it.
    fn drop(&mut self) {
        if std::mem::take(&mut *self.lock_writer()) {
            self.queue.order(WriterOrder::End);
        }
    }
}

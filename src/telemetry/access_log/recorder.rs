//! The access log as one worker uses it: records wait in a batch of the worker and are handed over together.
//!
//! Guarantees:
//! - A record is handed over when [`BATCH_MAX`] wait, with the next tick of the worker, or when the worker ends. So the
//!   lock of the queue is taken once for many commands.
//! - A command that the sample leaves out is counted, and its record is dropped.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::AccessLogSettings;

use super::live_log::AccessLog;
use super::record::BoxedRecord;

/// The most records of a batch.
const BATCH_MAX: usize = 64;

/// Collects the records of one worker. Stays on the worker's thread.
#[derive(Debug)]
pub struct AccessRecorder {
    log: Arc<AccessLog>,
    batch: RefCell<Vec<BoxedRecord>>,
    left_out: Cell<u64>,
    _not_send: PhantomData<Rc<()>>,
}

impl AccessRecorder {
    /// The recorder of the calling thread.
    pub fn new(log: Arc<AccessLog>) -> Self {
        Self { log, batch: RefCell::default(), left_out: Cell::new(0), _not_send: PhantomData }
    }

    /// Takes the record of a command that has ended.
    pub fn record(&self, settings: &AccessLogSettings, mut record: BoxedRecord) {
        let Some(sample) = settings.sampling.choose(record.outcome, record.request_id) else {
            return self.left_out.set(self.left_out.get() + 1);
        };
        record.sample = sample;
        let mut batch = self.batch.borrow_mut();
        batch.push(record);
        if batch.len() >= BATCH_MAX {
            self.log.push(&mut batch);
        }
    }

    /// Hands the batch over. Costs nothing while it is empty.
    pub fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if !batch.is_empty() {
            self.log.push(&mut batch);
        }
        let left_out = self.left_out.take();
        if left_out > 0 {
            self.log.counts().add_left_out(left_out);
        }
    }
}

impl Drop for AccessRecorder {
    fn drop(&mut self) {
        self.flush();
    }
}

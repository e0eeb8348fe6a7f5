//! Traces as one worker uses them: records of sampled commands wait in a batch and are handed over together.
//!
//! Guarantees: a record is handed over when [`BATCH_MAX`] wait, with the next tick of the worker, or when the worker
//! ends.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use crate::telemetry::access_log::BoxedRecord;

use super::export::TraceExport;

/// The most records of a batch.
const BATCH_MAX: usize = 64;

/// Collects the records of one worker. Stays on the worker's thread.
#[derive(Debug)]
pub struct SpanRecorder {
    export: Option<Arc<TraceExport>>,
    batch: RefCell<Vec<BoxedRecord>>,
    _not_send: PhantomData<Rc<()>>,
}

impl SpanRecorder {
    /// The recorder of the calling thread. Without `export`, no command is sampled.
    pub fn new(export: Option<Arc<TraceExport>>) -> Self {
        Self { export, batch: RefCell::default(), _not_send: PhantomData }
    }

    /// Takes the record of a sampled command that has ended.
    pub fn record(&self, record: BoxedRecord) {
        let mut batch = self.batch.borrow_mut();
        batch.push(record);
        if batch.len() >= BATCH_MAX {
            self.hand_over(&mut batch);
        }
    }

    /// Hands the batch over. Costs nothing while it is empty.
    pub fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if !batch.is_empty() {
            self.hand_over(&mut batch);
        }
    }

    fn hand_over(&self, batch: &mut Vec<BoxedRecord>) {
        match &self.export {
            Some(export) => export.push(batch),
            None => batch.clear(),
        }
    }
}

impl Drop for SpanRecorder {
    fn drop(&mut self) {
        self.flush();
    }
}

//! The bounded queue between the workers and the writer of the access log.
//!
//! Guarantees:
//! - A worker never waits for the output. It holds the lock while it moves a batch of records, and so does the writer.
//! - At most [`AccessQueueLimits`] wait. A record beyond that is dropped and counted, under the reason why the writer
//!   does not keep up.
//! - An order for the writer (another output, a reopened file, the end) comes after the records that were queued before
//!   it, and before the others. While the writer cannot write, orders come first.
//!
//! Leaves to others: the output and its failures (`writer`).

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{AccessLogFormat, AccessQueueLimits};

use super::counts::{AccessCounts, DropReason};
use super::record::BoxedRecord;
use super::sink::AccessSink;

/// The most records that the writer takes at once. They wait in its memory, beside the queue.
pub(crate) const TAKEN_MAX: usize = 128;

/// The queue of records and orders.
#[derive(Debug, Default)]
pub(crate) struct AccessQueue {
    content: Mutex<QueueContent>,
    /// Signalled when there is work for the writer.
    has_work: Condvar,
    /// Signalled when the writer has ended.
    has_ended: Condvar,
}

#[derive(Debug, Default)]
struct QueueContent {
    records: VecDeque<BoxedRecord>,
    /// The memory of the records.
    bytes: usize,
    limits: AccessQueueLimits,
    /// Orders, each with the number of records that were taken or waited when it was given.
    orders: VecDeque<(u64, WriterOrder)>,
    /// Records that were taken so far.
    taken: u64,
    /// Why the writer cannot write at the moment; `None` while it can.
    failure: Option<DropReason>,
    /// Whether records have been dropped since the writer last caught up.
    is_dropping: bool,
    is_ended: bool,
}

/// An order for the writer.
#[derive(Debug)]
pub(crate) enum WriterOrder {
    /// Write to this output from now on.
    Switch(AccessSink, AccessLogFormat),
    /// The access log is switched off.
    SwitchOff,
    /// Open the file again: it was renamed.
    Reopen,
    /// Write all that waits, and end.
    End,
}

/// Work that the writer takes from the queue.
#[derive(Debug)]
pub(crate) enum WriterWork {
    /// The records are in the buffer of the writer.
    Records,
    Order(WriterOrder),
    /// Nothing came within the time of the wait.
    Nothing,
}

impl AccessQueue {
    /// Moves a batch of records into the queue and leaves the batch empty. Records without room are dropped and
    /// counted. Returns the reason if no others have been dropped since the writer last caught up.
    pub(crate) fn push(&self, batch: &mut Vec<BoxedRecord>, counts: &AccessCounts) -> Option<DropReason> {
        let mut content = self.lock();
        let fitting = content.fitting(batch);
        content.bytes += batch[..fitting].iter().map(|record| record.memory()).sum::<usize>();
        content.records.extend(batch.drain(..fitting));
        let (reason, has_dropped) = (content.failure.unwrap_or(DropReason::QueueFull), !batch.is_empty());
        let is_first = has_dropped && !content.is_dropping;
        content.is_dropping |= has_dropped;
        drop(content);
        self.has_work.notify_one();
        counts.add_dropped(reason, batch.len() as u64);
        batch.clear();
        is_first.then_some(reason)
    }

    /// Gives an order to the writer.
    pub(crate) fn order(&self, order: WriterOrder) {
        let mut content = self.lock();
        let before = content.taken + content.records.len() as u64;
        content.orders.push_back((before, order));
        drop(content);
        self.has_work.notify_one();
    }

    pub(crate) fn set_limits(&self, limits: AccessQueueLimits) {
        self.lock().limits = limits;
    }

    /// Takes the next work: records into the empty `buffer`, or an order. Waits for it, at most `timeout` if there is
    /// one.
    pub(crate) fn take(&self, buffer: &mut Vec<BoxedRecord>, timeout: Option<Duration>) -> WriterWork {
        let is_idle = |content: &mut QueueContent| content.records.is_empty() && content.orders.is_empty();
        let mut content = self.wait_while(is_idle, timeout);
        let until_order = content.orders.front().map(|(before, _)| before.saturating_sub(content.taken));
        if until_order == Some(0) {
            return content.pop_order();
        }
        let available = content.records.len().min(TAKEN_MAX);
        let count =
            until_order.and_then(|until| usize::try_from(until).ok()).map_or(available, |until| available.min(until));
        if count == 0 {
            return WriterWork::Nothing;
        }
        buffer.extend(content.records.drain(..count));
        content.bytes -= buffer.iter().map(|record| record.memory()).sum::<usize>();
        content.taken += count as u64;
        WriterWork::Records
    }

    /// Takes the next order, whatever waits before it. Waits for it for at most `timeout`.
    pub(crate) fn take_order(&self, timeout: Duration) -> WriterWork {
        self.wait_while(|content| content.orders.is_empty(), Some(timeout)).pop_order()
    }

    /// Notes why the writer cannot write at the moment. Records without room are counted under this reason.
    pub(crate) fn set_failure(&self, failure: Option<DropReason>) {
        self.lock().failure = failure;
    }

    #[cfg(test)]
    pub(crate) fn failure(&self) -> Option<DropReason> {
        self.lock().failure
    }

    /// Notes that the writer has caught up.
    pub(crate) fn end_dropping(&self) {
        self.lock().is_dropping = false;
    }

    /// Removes all records and returns their number.
    pub(crate) fn discard(&self) -> u64 {
        let mut content = self.lock();
        let count = content.records.len() as u64;
        (content.bytes, content.taken) = (0, content.taken + count);
        content.records.clear();
        count
    }

    /// Notes that the writer has ended: nothing is taken any more.
    pub(crate) fn end(&self) {
        self.lock().is_ended = true;
        self.has_ended.notify_all();
    }

    /// Waits until the writer has ended, for at most `timeout`. Returns the number of records that still wait then.
    pub(crate) fn wait_until_ended(&self, timeout: Duration) -> Option<usize> {
        let waiting = self.has_ended.wait_timeout_while(self.lock(), timeout, |content| !content.is_ended);
        let (content, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        (!content.is_ended).then(|| content.records.len())
    }

    fn wait_while(
        &self,
        is_idle: impl FnMut(&mut QueueContent) -> bool,
        timeout: Option<Duration>,
    ) -> MutexGuard<'_, QueueContent> {
        let content = self.lock();
        match timeout {
            None => self.has_work.wait_while(content, is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.has_work.wait_timeout_while(content, timeout, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Locks the queue and ignores poisoning: the queue is consistent between any two statements.
    fn lock(&self) -> MutexGuard<'_, QueueContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueContent {
    /// The number of records of a batch that have room.
    fn fitting(&self, batch: &[BoxedRecord]) -> usize {
        let lines = self.limits.lines.saturating_sub(self.records.len());
        let mut bytes = self.limits.bytes.saturating_sub(self.bytes);
        let fits = |memory: &usize| match bytes.checked_sub(*memory) {
            Some(rest) => {
                bytes = rest;
                true
            }
            None => false,
        };
        batch.iter().take(lines).map(|record| record.memory()).take_while(fits).count()
    }

    fn pop_order(&mut self) -> WriterWork {
        self.orders.pop_front().map_or(WriterWork::Nothing, |(_, order)| WriterWork::Order(order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::access_log::record::AccessRecord;
    use jiff::Timestamp;
    use std::net::SocketAddr;

    fn records(ids: std::ops::Range<u128>) -> Vec<BoxedRecord> {
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        ids.map(|id| Box::new(AccessRecord::new(Timestamp::UNIX_EPOCH, id, peer))).collect()
    }

    fn queue(lines: usize, bytes: usize) -> (AccessQueue, AccessCounts) {
        let queue = AccessQueue::default();
        queue.set_limits(AccessQueueLimits { lines, bytes });
        (queue, AccessCounts::default())
    }

    /// The ids of the records that are taken next, or the name of the order.
    fn take(queue: &AccessQueue) -> Result<Vec<u128>, String> {
        let mut buffer = Vec::new();
        match queue.take(&mut buffer, Some(Duration::ZERO)) {
            WriterWork::Records => Ok(buffer.iter().map(|record| record.request_id).collect()),
            WriterWork::Order(order) => Err(format!("{order:?}")),
            WriterWork::Nothing => Err("Nothing".to_owned()),
        }
    }

    #[test]
    fn records_beyond_the_lines_are_dropped_and_counted_and_the_first_drop_is_reported() {
        let (queue, counts) = queue(3, usize::MAX);
        assert_eq!(queue.push(&mut records(0..2), &counts), None);
        assert_eq!(queue.push(&mut records(2..5), &counts), Some(DropReason::QueueFull));
        assert_eq!(queue.push(&mut records(5..6), &counts), None, "reported already");
        assert_eq!(counts.dropped(DropReason::QueueFull), 3);
        assert_eq!(take(&queue), Ok(vec![0, 1, 2]), "the oldest are kept");
        queue.end_dropping();
        queue.set_failure(Some(DropReason::DiskFull));
        assert_eq!(queue.push(&mut records(6..10), &counts), Some(DropReason::DiskFull));
        assert_eq!(counts.dropped(DropReason::DiskFull), 1);
    }

    #[test]
    fn records_beyond_the_bytes_are_dropped() {
        let each = records(0..1)[0].memory();
        let (queue, counts) = queue(usize::MAX, 2 * each + 1);
        queue.push(&mut records(0..3), &counts);
        assert_eq!((take(&queue), counts.dropped_total()), (Ok(vec![0, 1]), 1));
        queue.push(&mut records(3..5), &counts);
        assert_eq!((take(&queue), counts.dropped_total()), (Ok(vec![3, 4]), 1), "taken bytes are free again");
    }

    #[test]
    fn orders_come_between_the_records_before_and_after_them() {
        let (queue, counts) = queue(usize::MAX, usize::MAX);
        queue.push(&mut records(0..200), &counts);
        queue.order(WriterOrder::Reopen);
        queue.push(&mut records(200..201), &counts);
        queue.order(WriterOrder::End);
        assert_eq!(take(&queue), Ok((0..128).collect()));
        assert_eq!(take(&queue), Ok((128..200).collect()));
        assert_eq!(take(&queue), Err("Reopen".to_owned()));
        assert_eq!(take(&queue), Ok(vec![200]));
        assert_eq!(take(&queue), Err("End".to_owned()));
        assert_eq!(take(&queue), Err("Nothing".to_owned()));
    }

    #[test]
    fn writer_that_cannot_write_gets_its_orders_first() {
        let (queue, counts) = queue(usize::MAX, usize::MAX);
        queue.push(&mut records(0..2), &counts);
        queue.order(WriterOrder::Reopen);
        let WriterWork::Order(WriterOrder::Reopen) = queue.take_order(Duration::ZERO) else { panic!("an order") };
        assert_eq!((queue.discard(), take(&queue)), (2, Err("Nothing".to_owned())));
        queue.push(&mut records(2..3), &counts);
        assert_eq!(take(&queue), Ok(vec![2]));
    }

    #[test]
    fn end_of_the_writer_is_waited_for() {
        let (queue, counts) = queue(usize::MAX, usize::MAX);
        queue.push(&mut records(0..2), &counts);
        assert_eq!(queue.wait_until_ended(Duration::ZERO), Some(2));
        queue.end();
        assert_eq!(queue.wait_until_ended(Duration::ZERO), None);
    }
}

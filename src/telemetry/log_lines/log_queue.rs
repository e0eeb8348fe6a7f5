//! The bounded queue between the threads that log and the log's sink, with a writer thread of its own.
//!
//! Guarantees:
//! - Logging never blocks and never fails, even if the log's reader has exited, its disk is full or its reader stalls.
//! - At most [`LINES_MAX`] lines and [`BYTES_MAX`] bytes wait in the queue.
//! - A line that finds no room or cannot be written is dropped and counted. The log reports the number of dropped lines
//!   once the writer has caught up.
//!
//! Leaves to `logging`: the format of a line.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Limit of queued lines: some seconds of a busy log at `debug`.
const LINES_MAX: usize = 8 * 1024;
/// Limit of queued bytes. A Linux pipe holds 64 KiB more.
const BYTES_MAX: usize = 1024 * 1024;
/// The pause after a failed write before the next line is tried. The same pause applies before a retry of the same line
/// where its reader stalls (EAGAIN).
const PAUSE: Duration = Duration::from_millis(100);

/// A bounded queue of log lines, shared by the threads that log and the thread that writes.
#[derive(Debug, Default)]
pub(crate) struct LogQueue {
    queued: Mutex<QueuedLines>,
    /// Signalled when a line is added.
    not_empty: Condvar,
    /// Signalled when the queue is empty and no line is being written.
    empty: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct QueuedLines {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Whether the writer thread is writing a line that it has already taken from the queue.
    is_writing: bool,
    /// Dropped lines that the log has not reported yet.
    unreported: u64,
}

impl LogQueue {
    /// Starts the thread that writes to `sink`. The thread ends with the process.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let lines = Arc::clone(&queue);
        let writing = move || LogWriter { log: sink, is_torn: false }.run(&lines);
        thread::Builder::new().name("log".to_owned()).spawn(writing)?;
        Ok(queue)
    }

    /// Adds a line, including its line end, or drops it. Never waits for the sink.
    pub(crate) fn push_line(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() >= LINES_MAX || waiting.bytes + line.len() > BYTES_MAX {
            return self.drop_line(&mut waiting);
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.into());
        drop(waiting);
        self.not_empty.notify_one();
    }

    /// Waits until all lines are written, for at most `timeout`.
    pub(crate) fn flush(&self, timeout: Duration) {
        let has_more = |waiting: &mut QueuedLines| waiting.is_writing || !waiting.lines.is_empty();
        // The result of the wait is ignored: the caller goes on after a timeout as well.
        drop(self.empty.wait_timeout_while(self.lock(), timeout, has_more).unwrap_or_else(PoisonError::into_inner));
    }

    /// The number of lines dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Takes the next line; blocks until there is one.
    fn next_line(&self) -> Box<[u8]> {
        let mut waiting = self.lock();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= line.len();
                waiting.is_writing = true;
                return line;
            }
            waiting = self.not_empty.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Marks the current line as finished. Returns the number of lines dropped earlier if the queue is now empty,
    /// otherwise 0.
    fn line_done(&self, was_written: bool) -> u64 {
        let mut waiting = self.lock();
        if !was_written {
            self.drop_line(&mut waiting);
        }
        waiting.is_writing = false;
        if !waiting.lines.is_empty() {
            return 0;
        }
        self.empty.notify_all();
        if was_written { std::mem::take(&mut waiting.unreported) } else { 0 }
    }

    fn drop_line(&self, waiting: &mut QueuedLines) {
        waiting.unreported += 1;
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Locks the queue and ignores poisoning: the queue is consistent between any two statements.
    fn lock(&self) -> MutexGuard<'_, QueuedLines> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer of the log's sink, used by one thread.
struct LogWriter<W> {
    log: W,
    /// Whether a line was written in part, so that the next write must begin with a line end.
    is_torn: bool,
}

impl<W: Write> LogWriter<W> {
    fn run(mut self, queue: &LogQueue) {
        loop {
            let line = queue.next_line();
            let was_written = self.write_line(&line).is_ok();
            let dropped = queue.line_done(was_written);
            if dropped > 0 {
                tracing::warn!(lines = dropped, "the log could not be written for some time: lines were dropped");
            }
            if !was_written {
                thread::sleep(PAUSE);
            }
        }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_piece(b"\n")?;
            self.is_torn = false;
        }
        self.write_piece(line)
    }

    /// Writes a piece, and retries while the reader of the sink stalls.
    fn write_piece(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            match self.log.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    piece = &piece[written..];
                    self.is_torn = !piece.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A sink whose writes return scripted results.
    struct Told {
        results: Receiver<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let length = self.results.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().expect("not poisoned").extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A started queue with the results that its sink will return and the bytes that were written.
    type Begun = (Arc<LogQueue>, Sender<io::Result<usize>>, Arc<Mutex<Vec<u8>>>);

    fn begun() -> Begun {
        let (tell, results) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Told { results, written: Arc::clone(&written) };
        (LogQueue::start(sink).expect("a thread"), tell, written)
    }

    fn text(written: &Arc<Mutex<Vec<u8>>>) -> String {
        String::from_utf8(written.lock().expect("not poisoned").clone()).expect("text")
    }

    #[test]
    fn lines_are_written_in_order_for_partial_writes() {
        let (queue, tell, written) = begun();
        for result in [Ok(2), Err(io::ErrorKind::Interrupted.into()), Err(io::ErrorKind::WouldBlock.into()), Ok(1)] {
            tell.send(result).expect("it is written to");
        }
        drop(tell);
        ["one\n", "two\n", "three\n"].into_iter().for_each(|line| queue.push_line(line.as_bytes()));
        queue.flush(PATIENCE);
        assert_eq!((text(&written).as_str(), queue.dropped()), ("one\ntwo\nthree\n", 0));
    }

    #[test]
    fn unwritable_lines_are_dropped_and_counted_and_the_next_line_starts_clean() {
        let (queue, tell, written) = begun();
        for result in [Ok(2), Err(io::ErrorKind::StorageFull.into()), Err(io::ErrorKind::BrokenPipe.into())] {
            tell.send(result).expect("it is written to");
        }
        drop(tell);
        ["one\n", "two\n", "three\n"].into_iter().for_each(|line| queue.push_line(line.as_bytes()));
        queue.flush(PATIENCE);
        assert_eq!((text(&written).as_str(), queue.dropped()), ("on\nthree\n", 2));
    }

    #[test]
    fn stalled_log_holds_a_bounded_number_of_lines_and_blocks_no_writer() {
        let (queue, tell, written) = begun();
        queue.push_line(b"held\n");
        while !queue.lock().is_writing {
            thread::yield_now();
        }
        (0..LINES_MAX + 3).for_each(|_| queue.push_line(b"line\n"));
        assert_eq!((queue.dropped(), queue.lock().lines.len()), (3, LINES_MAX));
        queue.flush(Duration::from_millis(10)); // returns although nothing is written
        assert_eq!(text(&written), "");
        drop(tell);
        queue.flush(PATIENCE);
        assert_eq!(text(&written).lines().count(), 1 + LINES_MAX);

        let large = vec![b'a'; BYTES_MAX / 2 + 1];
        let (queue, _tell, _) = begun();
        queue.push_line(b"held\n");
        while !queue.lock().is_writing {
            thread::yield_now();
        }
        [&large, &large].into_iter().for_each(|line| queue.push_line(line));
        assert_eq!((queue.dropped(), queue.lock().bytes), (1, large.len()));
    }
}

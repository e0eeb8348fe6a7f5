//! The end of a gateway's life, and the content of the disk afterwards.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::ledger::LedgerError;
use crate::ledger::book::epoch_end::fallback_window;
use crate::ledger::files::book_path::TALLY_EXTENSION;
use crate::ledger::keeper::requests::KeeperRequest;
use crate::ledger::keeper::run_keeper;
use crate::ledger::tally::file::TallyImage;

use super::super::books;
use super::{PAGE, SimulatedWorld};

impl SimulatedWorld {
    pub(crate) fn close(&mut self) {
        let Some(mut life) = self.life.take() else { return };
        self.auditor.take();
        life.drain();
        let floor = life.open_rows().floor;
        let last = fallback_window(self.clock.wall(), life.keeper.shared.sealing());
        life.requests.send(KeeperRequest::Close).expect("a keeper");
        run_keeper(life.keeper, &life.inbox, Box::new(|error| panic!("{error}"))).expect("closed");
        self.model.interrupt(self.clock.monotonic().nanoseconds(), floor, last);
        assert!(!self.path.with_extension(TALLY_EXTENSION).exists(), "a clean end leaves no tally");
    }

    pub(crate) fn kill(&mut self) {
        if self.life.is_some() {
            let image = self.tally();
            self.bury(&image);
        }
    }

    pub(crate) fn lose_power(&mut self, some_newer: bool) {
        if self.life.is_none() {
            return;
        }
        let (mut image, most) = (self.disk.synced(), self.model.clone());
        self.model = self.synced.clone();
        if some_newer {
            self.between = Some((self.model.clone(), most));
            self.mix(&mut image);
        }
        image[16 * 8 + 1] ^= 1; // another boot: the first character of its id
        self.bury(&image);
    }

    /// Copies some pages that were not synced but reached the disk all the same.
    pub(crate) fn mix(&mut self, image: &mut Vec<u8>) {
        let present = self.tally();
        image.resize(present.len(), 0);
        for (old, new) in image.chunks_mut(PAGE).zip(present.chunks(PAGE)) {
            if self.rng.bool() {
                old.copy_from_slice(new);
            }
        }
    }

    pub(crate) fn lose_sync(&mut self) {
        let Some(life) = &mut self.life else { return };
        life.drain();
        self.disk.loses_syncs.store(true, Ordering::Relaxed);
        let Some(life) = self.life.take() else { return };
        let (reply, _answer) = oneshot::channel();
        life.requests.send(KeeperRequest::Fold(reply)).expect("a keeper");
        let (failed, failures) = mpsc::channel();
        let kept = run_keeper(life.keeper, &life.inbox, Box::new(move |error| failed.send(error).expect("a listener")));
        assert!(matches!(kept, Err(LedgerError::Stopped)), "{kept:?}");
        assert!(matches!(failures.recv(), Ok(LedgerError::Sync { .. })), "the error has its cause");
        assert!(failures.recv().is_err(), "the error is reported once");
        let image = self.tally();
        drop((life.tickets, life.meters, life._lock));
        self.bury(&image);
    }

    pub(crate) fn tally(&self) -> Vec<u8> {
        std::fs::read(self.path.with_extension(TALLY_EXTENSION)).expect("a tally")
    }

    /// Ends the process. Its files stay as they were at the moment of the crash.
    pub(crate) fn bury(&mut self, image: &[u8]) {
        self.auditor.take();
        let book = ["db", "db-wal"].map(|extension| self.path.with_extension(extension));
        let kept = book.clone().map(|path| std::fs::read(path).ok());
        self.life = None; // closes the book and ends the tickets, unlike a crash
        for (path, bytes) in book.iter().zip(kept) {
            match bytes {
                Some(bytes) => std::fs::write(path, bytes).expect("the book is restored"),
                None => assert!(!path.exists(), "a log from nowhere"),
            }
        }
        let _ = std::fs::remove_file(self.path.with_extension("db-shm"));
        let tally = File::options().write(true).open(self.path.with_extension(TALLY_EXTENSION)).expect("the tally");
        tally.set_len(0).and_then(|()| tally.write_all_at(image, 0)).expect("the tally is restored");
        let header = TallyImage::parse(image).expect("a tally").header;
        let floor = books::floor(self.book(), header.epoch);
        self.model.interrupt(header.synced_ns, floor, fallback_window(header.synced_at, floor));
    }
}

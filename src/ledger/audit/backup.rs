//! Backup: copies a ledger that is open, a ledger whose gateway died, or a closed ledger.
//!
//! Guarantees:
//! - The copy is a book of one moment. It passes `ledger verify`, and its reports equal those of the ledger at that
//!   moment.
//! - If a gateway keeps the ledger, the counts of its tally are folded into the copy. So the copy needs no tally and no
//!   log.
//! - The tally of a dead gateway is copied unchanged, and a start on the copy recovers it.
//! - Nothing is overwritten. The copy appears under its name complete and synced, or not at all.
//! - The ledger is not changed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde::Serialize;

use crate::ledger::book::book_reader::open_for_reading;
use crate::ledger::book::book_writer::{BookUpdate, BookWriter};
use crate::ledger::files::book_path::{self, DRAFT_SUFFIX, TALLY_EXTENSION, path_with_suffix};
use crate::ledger::files::lock;
use crate::ledger::keeper::recovery::fold_image;
use crate::ledger::values::error::LedgerError;

use super::findings::{ChainHead, ProgressCallback};
use super::ledger_info;
use super::ledger_snapshot::{LedgerSnapshot, TallyReadings, TallyState, revision};

/// The most attempts of a copy, when the gateway seals, begins or ends an epoch in the middle of an attempt.
const COPY_ATTEMPTS_MAX: u32 = 5;
/// The interval between progress checks of a copy.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// A completed copy.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerBackup {
    /// The canonical path of the copied book.
    pub ledger: PathBuf,
    /// The copy.
    pub book: PathBuf,
    /// The copied tally, if the ledger's gateway had died and its epoch was not recovered.
    pub tally: Option<PathBuf>,
    /// Bytes of the copy.
    pub bytes: u64,
    /// Whether a gateway kept the ledger: then the copy ends in the middle of its epoch.
    pub is_kept: bool,
    /// The head of the chain in the copy, to be noted elsewhere.
    pub head: ChainHead,
}

/// The reason why no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target exists; nothing is overwritten.
    #[error("{0} already exists; a backup overwrites nothing, so name a new file or a folder without it")]
    Exists(PathBuf),
    /// The name is not UTF-8, and SQLite accepts only UTF-8.
    #[error("{0} is not a name in UTF-8; choose another one")]
    Name(PathBuf),
    /// The ledger could not be read, or the copy could not be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Copies the ledger at `path` to the file `to`, or into the folder `to` under the book's own name.
pub fn backup(path: &Path, to: &Path, progress: &mut ProgressCallback<'_>) -> Result<LedgerBackup, BackupError> {
    let ledger = book_path::canonical_path(path)?;
    let target = BackupTarget::new(&ledger, to)?;
    for _ in 0..COPY_ATTEMPTS_MAX {
        target.remove_drafts();
        copy_book(&ledger, &target, progress)?;
        let snapshot = LedgerSnapshot::read_consistent(&ledger)?;
        if is_same_revision(&snapshot, &target.draft)? {
            return target.publish(&snapshot);
        }
    }
    Err(LedgerError::ChangedWhileRead(ledger).into())
}

/// Returns whether nothing was sealed, begun or ended between the copy and the snapshot. Then the snapshot's tally
/// matches the copy.
fn is_same_revision(snapshot: &LedgerSnapshot, draft: &Path) -> Result<bool, LedgerError> {
    let copied = revision(&open_for_reading(draft)?).map_err(|error| LedgerError::book("read", draft, error))?;
    Ok(copied == revision(&snapshot.connection).map_err(|error| snapshot.book_error(error))?)
}

/// Copies the book's pages as of one moment, including its log, into a new file without a log
/// (sqlite.org/lang_vacuum.html, "VACUUM with an INTO clause").
fn copy_book(ledger: &Path, target: &BackupTarget, progress: &mut ProgressCallback<'_>) -> Result<(), BackupError> {
    let failed = |error| LedgerError::book("copy", ledger, error);
    let connection = open_for_reading(ledger)?;
    let all = book_bytes(&connection).map_err(failed)?;
    let to = target.draft.to_str().ok_or_else(|| BackupError::Name(target.draft.clone()))?;
    let copied = std::thread::scope(|scope| {
        let copying = scope.spawn(move || connection.execute("VACUUM INTO ?1", [to]));
        while !copying.is_finished() {
            let done = fs::metadata(to).map_or(0, |draft| draft.len());
            progress("copied", done.min(all), all);
            std::thread::sleep(PROGRESS_INTERVAL);
        }
        copying.join()
    });
    match copied {
        Ok(copied) => Ok(copied.map(drop).map_err(failed)?),
        Err(_) => Err(LedgerError::Panicked("while the book was copied".to_owned()).into()),
    }
}

fn book_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pages: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    Ok(u64::from(pages) * u64::from(size))
}

/// The target of the copy; incomplete drafts are removed.
struct BackupTarget {
    book: PathBuf,
    draft: PathBuf,
    tally: PathBuf,
    tally_draft: PathBuf,
}

impl BackupTarget {
    fn new(ledger: &Path, to: &Path) -> Result<Self, BackupError> {
        let name = ledger.file_name().unwrap_or_default();
        let book = if to.is_dir() { to.join(name) } else { to.to_owned() };
        let tally = book.with_extension(TALLY_EXTENSION);
        for path in [&book, &tally] {
            if path.symlink_metadata().is_ok() {
                return Err(BackupError::Exists(path.clone()));
            }
        }
        Ok(Self {
            draft: path_with_suffix(&book, DRAFT_SUFFIX),
            tally_draft: path_with_suffix(&tally, DRAFT_SUFFIX),
            book,
            tally,
        })
    }

    /// Removes the files of an attempt.
    fn remove_drafts(&self) {
        for draft in [&self.draft, &self.tally_draft, &path_with_suffix(&self.draft, "-journal")] {
            let _ = fs::remove_file(draft); // usually there is none; if one cannot be removed, the next step fails
        }
    }

    fn publish(&self, snapshot: &LedgerSnapshot) -> Result<LedgerBackup, BackupError> {
        let has_tally = match (&snapshot.tally, snapshot.is_kept) {
            (TallyState::Open(readings), true) => fold_tally_into(&self.draft, readings).map(|()| false)?,
            (TallyState::Open(_), false) => self.copy_tally(&snapshot.path).map(|()| true)?,
            _ => false, // all its counts are in the book
        };
        let read = open_for_reading(&self.draft)?;
        let head = ledger_info::chain_head(&read).map_err(|error| LedgerError::book("read", &self.draft, error))?;
        drop(read);
        if has_tally {
            publish(&self.tally_draft, &self.tally)?;
        }
        publish(&self.draft, &self.book)?;
        let failed = |error| LedgerError::file("inspect", &self.book, error);
        Ok(LedgerBackup {
            ledger: snapshot.path.clone(),
            book: self.book.clone(),
            tally: has_tally.then(|| self.tally.clone()),
            bytes: fs::metadata(&self.book).map_err(failed)?.len(),
            is_kept: snapshot.is_kept,
            head,
        })
    }

    /// Copies the tally of a dead gateway, which gets no more counts. If a gateway starts now, it recovers and removes
    /// the tally, and this attempt is repeated.
    fn copy_tally(&self, ledger: &Path) -> Result<(), LedgerError> {
        let from = ledger.with_extension(TALLY_EXTENSION);
        fs::copy(&from, &self.tally_draft).map_err(|error| LedgerError::file("copy", &from, error))?;
        if lock::is_held(ledger)? { Err(LedgerError::ChangedWhileRead(ledger.to_owned())) } else { Ok(()) }
    }
}

impl Drop for BackupTarget {
    fn drop(&mut self) {
        self.remove_drafts();
    }
}

/// Folds the tally's counts into the copy, as the keeper's next fold would have done.
fn fold_tally_into(draft: &Path, readings: &TallyReadings) -> Result<(), LedgerError> {
    let (mut book, image) = (BookWriter::open_copy(draft)?, &readings.newer);
    book.begin_epoch(&image.header)?;
    let fold = fold_image(book.reader().series()?, image, readings.first_unsealed);
    let saved = book.apply(&BookUpdate {
        fold: &fold,
        in_flight: fold.in_flight(image.header.synced_ns),
        epoch: image.header.epoch,
        synced_at: image.header.synced_at,
        now: image.header.synced_at,
        seal_before: None,
        ending: None,
    });
    saved.map(drop) // nothing is sealed, so no comparison with the tally is needed
}

/// Renames a synced draft to its name, unless the name exists by now.
fn publish(draft: &Path, name: &Path) -> Result<(), BackupError> {
    let failed = |error| LedgerError::file("write", name, error);
    File::open(draft).and_then(|file| file.sync_all()).map_err(failed)?;
    match fs::hard_link(draft, name) {
        Ok(()) => fs::remove_file(draft).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(BackupError::Exists(name.to_owned())),
        Err(_) => fs::rename(draft, name).map_err(failed)?, // a file system without hard links
    }
    let folder = name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?)
}

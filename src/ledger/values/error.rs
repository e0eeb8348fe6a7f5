//! Errors of the ledger, with advice for the operator.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::Window;

/// The reason why the ledger could not be opened, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file operation failed.
    #[error("ledger: could not {action} {path}: {source}. {advice}")]
    File {
        /// The operation.
        action: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
        /// Advice for the operator.
        advice: &'static str,
    },
    /// A sync of the tally failed. Never retried: the next sync might succeed without the lost data.
    #[error(
        "ledger: could not sync {path} to the disk: {source}. Check the disk, then start again: the counts in it are \
         recovered"
    )]
    Sync {
        /// The tally.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An operation of SQLite on the book failed.
    #[error("ledger: could not {action} the book {path}: {source}. {advice}")]
    Book {
        /// The operation.
        action: &'static str,
        /// The book.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
        /// Advice for the operator.
        advice: &'static str,
    },
    /// Another gateway keeps this ledger.
    #[error(
        "ledger: {path} is in use by another gateway, process {holder}. Stop that process, or give this gateway a \
         `ledger.path` of its own; two gateways never share a ledger"
    )]
    KeptByOtherProcess {
        /// The book.
        path: PathBuf,
        /// The process id that the holder wrote into the lock file.
        holder: String,
    },
    /// Another gateway keeps the same file under another name or mount.
    #[error(
        "ledger: {0} is the same file as the book of another running gateway, under another name or in another \
         container (`grep FLOCK /proc/locks` shows its process on this machine). Stop that gateway, or give this one a \
         `ledger.path` of its own; two gateways never share a ledger"
    )]
    KeptUnderOtherName(PathBuf),
    /// The book has several hard links, and each would have its own lock, log and tally.
    #[error(
        "ledger: the book {path} has {links} hard links, so its log, tally and lock may lie beside another name. Find the \
         other names with `find / -xdev -samefile {path}`, remove them, or give the gateway a copy of its own: \
         `cp {path} NEW && mv NEW {path}`"
    )]
    HardLinked {
        /// The book.
        path: PathBuf,
        /// The number of hard links.
        links: u64,
    },
    /// The path is a symbolic link whose target does not exist.
    #[error(
        "ledger: {0} is a symbolic link to a file that is not there. Mount or restore its target, or set `ledger.path` \
         to the book itself"
    )]
    DanglingLink(PathBuf),
    /// A file of an open ledger was removed, renamed or replaced.
    #[error(
        "ledger: {path} was {} while the gateway was using it: further counts would be lost with the process. The \
         files that were open contain all counts until now, wherever they are. Put the ledger's files back \
         (docs/ledger.md, \"Files that are taken away\"), then start again", how.verb()
    )]
    Displaced {
        /// The file.
        path: PathBuf,
        /// How the file was displaced.
        how: FileDisplacement,
    },
    /// The log beside a book can be read only by a reader with write permission.
    #[error(
        "ledger: the book {path} has a log, {path}-wal, which SQLite can read only with write permission: {source}. \
         Copy the book, its -wal and its .tally into a writable folder, and read them there"
    )]
    UnreadableLog {
        /// The book.
        path: PathBuf,
        /// The cause.
        source: rusqlite::Error,
    },
    /// A tally lies beside an empty book.
    #[error(
        "ledger: {0} is empty, but there is a tally beside it: this is a copy without the book's log. Copy the file \
         that ends with -wal too; `tallygate ledger backup` copies everything"
    )]
    LogMissing(PathBuf),
    /// The file is not a book.
    #[error("ledger: {0} is not a Tallygate ledger. Check the path; it should name the .db file of `ledger.path`")]
    NotABook(PathBuf),
    /// The book was written by a newer Tallygate.
    #[error(
        "ledger: the book {path} has format {found}, this Tallygate supports formats up to {known}. Use the version \
         that wrote it, or a newer one"
    )]
    NewerFormat {
        /// The book.
        path: PathBuf,
        /// The format of the book.
        found: u32,
        /// The newest format that this program supports.
        known: u32,
    },
    /// The book was written by an older Tallygate; only a gateway migrates a book's format.
    #[error(
        "ledger: the book {path} has format {found}, this Tallygate reads format {known}. Start the gateway on it \
         once: it migrates the book to the new format"
    )]
    OlderFormat {
        /// The book.
        path: PathBuf,
        /// The format of the book.
        found: u32,
        /// The format that this program reads.
        known: u32,
    },
    /// The book's schema differs from the schema of its format.
    #[error(
        "ledger: the schema of the book {path} is not that of Tallygate, so no number in it can be trusted: \
         {differences}. Find out what changed it; remove the additions, or restore a backup (`tallygate ledger verify` \
         lists every difference). Keep your own views and tables in a separate file, and ATTACH the book to it"
    )]
    Altered {
        /// The book.
        path: PathBuf,
        /// The differences.
        differences: String,
    },
    /// A range of time begins or ends within a day whose hours were removed by compaction.
    #[error(
        "ledger: hours before {before} are kept only as sums of days, and the requested range splits the day that \
         begins at {day}. Use a range that begins and ends with a day"
    )]
    RangeCutsDay {
        /// The first window of the day.
        day: Window,
        /// The first window that is kept as an hour.
        before: Window,
    },
    /// A correction is invalid.
    #[error("ledger: {0}")]
    Adjustment(#[from] BadAdjustment),
    /// The SQLite in this program has a defect that can lose commits.
    #[error(
        "ledger: this program was built with SQLite {0}, which can lose a commit; at least 3.51.3 is needed. Build \
         Tallygate with its bundled SQLite"
    )]
    OldSqlite(&'static str),
    /// A reader from another process could not get a consistent view.
    #[error("ledger: {0} kept changing while it was read; retry, or read a copy")]
    ChangedWhileRead(PathBuf),
    /// The keeper has stopped: the ledger was closed, or the disk has failed.
    #[error("ledger: the keeper thread has stopped, so no operation is possible; see the log for the cause")]
    Stopped,
    /// A defect in Tallygate.
    #[error("ledger: the keeper thread panicked: {0}. This is a defect in Tallygate; please report it")]
    Panicked(String),
}

const ADVICE_FILE: &str =
    "Check that the folder exists, that the gateway has write permission there and that the disk has space";
const ADVICE_BOOK: &str =
    "Check the disk and the file's permissions; `sqlite3 FILE 'PRAGMA integrity_check'` checks the file";

impl LedgerError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source, advice: ADVICE_FILE }
    }

    pub(crate) fn sync(path: &Path, source: io::Error) -> Self {
        Self::Sync { path: path.to_owned(), source }
    }

    pub(crate) fn book(action: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        Self::Book { action, path: path.to_owned(), source, advice: ADVICE_BOOK }
    }

    /// Returns whether a retry may succeed later with nothing lost: the disk is full, or another process holds the book
    /// for a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Book { source, .. } => is_transient_book_error(source),
            _ => false,
        }
    }
}

fn is_transient_book_error(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{self, ErrorCode};
    let Some(failure) = error.sqlite_error() else { return false };
    match failure.code {
        ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => true,
        // When the disk is full, growing the shared memory of the write-ahead log fails with this code.
        ErrorCode::SystemIoFailure => failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE,
        _ => false,
    }
}

/// How a file was displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDisplacement {
    /// No file exists under its name, or its folder is gone.
    Removed,
    /// Another file exists under its name.
    Replaced,
}

impl FileDisplacement {
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Replaced => "replaced",
        }
    }
}

/// The reason why a correction is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAdjustment {
    /// The correction would change nothing.
    #[error("a correction of 0 units has no effect; give the units to add (5) or to subtract (-5)")]
    Nothing,
    /// The period does not exist.
    #[error("{0:?} is not a period; write a month, 2026-10, or a day, 2026-10-05")]
    Period(String),
    /// The text is not one line.
    #[error("the {0} must be one line of 1 to 1000 bytes, without tabs")]
    Text(&'static str),
    /// A command without its subsystem.
    #[error("a correction of a command requires its subsystem; name it too")]
    CommandAlone,
    /// The department, subsystem or command was never seen.
    #[error("the book has no record of {0}; `ledger info` and `report usage` show the known names")]
    Unknown(String),
}

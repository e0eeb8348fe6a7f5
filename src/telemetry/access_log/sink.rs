//! The output of the access log: a file that is appended to, a named pipe, or the standard output.
//!
//! Guarantees:
//! - A new file has the permissions 0640, whatever the umask: the group of the gateway's user may read it, others may
//!   not. A file that exists keeps its permissions.
//! - A named pipe without a reader is an error, and never a wait.
//! - A pipe, a socket or a terminal gets whole lines, each piece at most [`PIECE_MAX`] bytes unless one line is longer:
//!   the kernel does not mix such a piece with those of other programs (pipe(7)).
//!
//! Leaves to others: when to try again (`writer`).

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::config::AccessLogOutput;

use super::counts::DropReason;

/// The largest piece that a pipe takes as a whole (PIPE_BUF of Linux).
const PIECE_MAX: usize = 4096;

/// The permissions of a new file.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP);

/// An open output.
#[derive(Debug)]
pub(crate) struct AccessSink {
    output: AccessLogOutput,
    file: File,
    /// Whether all of a buffer may be written at once.
    is_regular: bool,
}

/// Why the output of the access log could not be opened.
#[derive(Debug, thiserror::Error)]
pub struct AccessLogOpenError {
    output: AccessLogOutput,
    error: io::Error,
}

impl AccessSink {
    /// Opens an output.
    pub(crate) fn open(output: &AccessLogOutput) -> Result<Self, AccessLogOpenError> {
        let open = || {
            let file = File::from(open_descriptor(output)?);
            let is_regular = file.metadata()?.is_file();
            Ok(Self { output: output.clone(), file, is_regular })
        };
        open().map_err(|error| AccessLogOpenError { output: output.clone(), error })
    }

    /// Opens the output again: a file that was renamed, or a pipe that has another reader. If that fails, the open one
    /// stays. The standard output stays in any case.
    pub(crate) fn reopen(&mut self) -> Result<(), AccessLogOpenError> {
        if self.output != AccessLogOutput::Stdout {
            *self = Self::open(&self.output)?;
        }
        Ok(())
    }

    pub(crate) fn output(&self) -> &AccessLogOutput {
        &self.output
    }

    /// Writes the lines of a buffer from `position` on, and moves `position` behind the bytes that were written.
    pub(crate) fn write_lines(&mut self, lines: &[u8], position: &mut usize) -> io::Result<()> {
        while *position < lines.len() {
            let rest = &lines[*position..];
            let piece = if self.is_regular { rest } else { &rest[..piece_length(rest)] };
            match self.file.write(piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => *position += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The length of the lines that fit into one piece, or of the first line if it is longer.
fn piece_length(lines: &[u8]) -> usize {
    let limit = lines.len().min(PIECE_MAX);
    let end_of_last = lines[..limit].iter().rposition(|byte| *byte == b'\n');
    let end_of_first = || lines.iter().position(|byte| *byte == b'\n');
    end_of_last.or_else(end_of_first).map_or(lines.len(), |end| end + 1)
}

fn open_descriptor(output: &AccessLogOutput) -> io::Result<OwnedFd> {
    match output {
        AccessLogOutput::Stdout => io::stdout().as_fd().try_clone_to_owned(),
        AccessLogOutput::File(path) => open_path(path),
    }
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    // A pipe without a reader would otherwise block the open, and a stalled reader a write.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    match rustix::fs::open(path, flags | OFlags::CREATE | OFlags::EXCL, FILE_MODE) {
        Err(Errno::EXIST) => Ok(rustix::fs::open(path, flags, Mode::empty())?), // another program was faster
        created => {
            let created = created?;
            rustix::fs::fchmod(&created, FILE_MODE)?; // whatever the umask leaves
            Ok(created)
        }
    }
}

/// The reason under which lines are dropped after an error.
pub(crate) fn drop_reason(error: &io::Error) -> DropReason {
    match Errno::from_io_error(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => DropReason::DiskFull,
        Some(Errno::PIPE | Errno::NXIO) => DropReason::ReaderGone,
        Some(Errno::AGAIN) => DropReason::QueueFull,
        _ => DropReason::WriteFailed,
    }
}

impl AccessLogOpenError {
    /// The error of the system.
    pub(crate) fn error(&self) -> &io::Error {
        &self.error
    }

    /// What was tried, and why it failed.
    pub fn message(&self) -> String {
        format!("cannot open {} for the access log: {}", self.output.to_text(), self.error)
    }

    /// A remedy, for the error numbers that have a clear one.
    pub fn hint(&self) -> Option<String> {
        let AccessLogOutput::File(path) = &self.output else { return None };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.map_or_else(|| ".".to_owned(), |folder| folder.display().to_string());
        let user = rustix::process::geteuid().as_raw();
        let hint = match Errno::from_io_error(&self.error)? {
            Errno::NOENT => format!("create the folder {folder}, writable by this user (uid {user})"),
            Errno::ACCESS | Errno::PERM => {
                format!(
                    "give this user (uid {user}) permission to write in {folder}, and to write the file if it exists"
                )
            }
            Errno::ISDIR => {
                format!("it is a folder; name a file in it, such as {}", path.join("access.log").display())
            }
            Errno::ROFS => "the file system is read-only for this process; in systemd, LogsDirectory= or \
                            ReadWritePaths= make a folder writable"
                .to_owned(),
            Errno::NXIO => "it is a named pipe that no program reads; start its reader first".to_owned(),
            Errno::NOSPC | Errno::DQUOT => "the disk is full; free space, or choose another disk".to_owned(),
            _ => return None,
        };
        Some(hint)
    }
}

impl fmt::Display for AccessLogOpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match self.hint() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FileType;
    use std::os::unix::fs::PermissionsExt as _;

    fn output(path: &Path) -> AccessLogOutput {
        AccessLogOutput::File(path.to_owned())
    }

    fn message(path: &Path) -> String {
        AccessSink::open(&output(path)).expect_err("it fails").to_string()
    }

    #[test]
    fn new_file_is_readable_by_its_group_alone_and_an_old_one_is_appended_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        for text in [&b"one\n"[..], b"two\n"] {
            let (mut sink, mut position) = (AccessSink::open(&output(&path)).expect("it opens"), 0);
            sink.write_lines(text, &mut position).expect("it is written");
            assert_eq!(position, 4);
        }
        assert_eq!(std::fs::read(&path).expect("a file"), b"one\ntwo\n");
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{mode:o}");
    }

    #[test]
    fn errors_name_the_path_and_a_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("no/access.log");
        let shown = message(&missing);
        assert!(shown.starts_with(&format!("cannot open {} for the access log: No such file", missing.display())));
        assert!(shown.contains(&format!("create the folder {}", folder.path().join("no").display())), "{shown}");
        assert!(message(folder.path()).contains("name a file in it"), "{}", message(folder.path()));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
        assert!(message(&pipe).contains("a named pipe that no program reads"), "{}", message(&pipe));
    }

    #[test]
    fn renamed_file_is_opened_again_and_a_failed_reopen_keeps_the_open_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("log");
        std::fs::create_dir(&inner).expect("a folder");
        let mut sink = AccessSink::open(&output(&inner.join("a"))).expect("it opens");
        std::fs::rename(inner.join("a"), inner.join("b")).expect("it is renamed");
        sink.reopen().expect("it opens");
        sink.write_lines(b"new\n", &mut 0).expect("it is written");
        assert_eq!(std::fs::read(inner.join("a")).expect("a file"), b"new\n");
        std::fs::rename(&inner, folder.path().join("moved")).expect("it is renamed");
        assert!(sink.reopen().is_err());
        sink.write_lines(b"more\n", &mut 0).expect("it is written");
        assert_eq!(std::fs::read(folder.path().join("moved/a")).expect("a file"), b"new\nmore\n");
    }

    #[test]
    fn pieces_are_whole_lines() {
        let line = |length: usize| [vec![b'x'; length - 1], vec![b'\n']].concat();
        for (lines, length) in [
            (vec![line(10)], 10),
            (vec![line(2000), line(2000), line(97)], 4000),
            (vec![line(2000), line(2096), line(9)], 4096),
            (vec![line(5000), line(9)], 5000),
        ] {
            assert_eq!(piece_length(&lines.concat()), length);
        }
        assert_eq!(piece_length(b"rest"), 4);
    }

    #[test]
    fn full_disk_and_missing_reader_are_told_apart() {
        for (errno, reason) in [
            (Errno::NOSPC, DropReason::DiskFull),
            (Errno::DQUOT, DropReason::DiskFull),
            (Errno::PIPE, DropReason::ReaderGone),
            (Errno::NXIO, DropReason::ReaderGone),
            (Errno::AGAIN, DropReason::QueueFull),
            (Errno::IO, DropReason::WriteFailed),
        ] {
            assert_eq!(drop_reason(&errno.into()), reason);
        }
    }
}

//! What a bug report needs, as texts by name, and the archive of them (tar, gzip).
//!
//! Guarantees:
//! - Every text was redacted when it was added; one that still holds a private key is left out.
//! - The archive is a new file that its owner alone can read. One that could not be written whole is removed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::redaction::{holds_key, redact_text};

/// The texts of an archive, and what is not in it.
#[derive(Debug, Default)]
pub(super) struct DiagnosisBundle {
    entries: Vec<(String, String)>,
    left_out: Vec<(String, String)>,
}

impl DiagnosisBundle {
    /// Adds a text without its secrets.
    pub(super) fn add(&mut self, name: &str, text: &str) {
        let redacted = redact_text(text);
        match holds_key(&redacted) {
            true => self.leave_out(name, "it holds a private key"),
            false => self.entries.push((name.to_owned(), redacted)),
        }
    }

    /// Notes what is not in the archive, and why.
    pub(super) fn leave_out(&mut self, name: &str, why: impl ToString) {
        self.left_out.push((name.to_owned(), redact_text(&why.to_string())));
    }

    /// Adds a text, or notes why there is none.
    pub(super) fn add_result<E: ToString>(&mut self, name: &str, text: Result<String, E>) {
        match text {
            Ok(text) => self.add(name, &text),
            Err(error) => self.leave_out(name, error),
        }
    }

    /// Lines about each text and each that is missing.
    pub(super) fn contents(&self) -> String {
        let width = self.entries.iter().chain(&self.left_out).map(|(name, _)| name.len()).max().unwrap_or_default();
        let mut lines = String::new();
        for (name, text) in &self.entries {
            lines += &format!("  {name:<width$}  {} bytes\n", text.len());
        }
        if !self.left_out.is_empty() {
            lines += "not in it:\n";
        }
        for (name, why) in &self.left_out {
            lines += &format!("  {name:<width$}  {why}\n");
        }
        lines
    }

    /// Writes the archive; all texts are below `folder`, with the time `made_at` in Unix seconds. Returns its bytes.
    ///
    /// # Errors
    /// The file exists, or cannot be written.
    pub(super) fn write(&self, file: &Path, (folder, made_at): (&str, u64)) -> io::Result<u64> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        let written = self.pack(opened, (folder, made_at));
        if written.is_err() {
            let _ = fs::remove_file(file); // the error of the write counts
        }
        written.and_then(|()| Ok(fs::metadata(file)?.len()))
    }

    fn pack(&self, file: fs::File, (folder, made_at): (&str, u64)) -> io::Result<()> {
        let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
        for (name, text) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_size(u64::try_from(text.len()).map_err(io::Error::other)?);
            header.set_mode(0o600);
            header.set_mtime(made_at);
            archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()?.sync_all()
    }
}

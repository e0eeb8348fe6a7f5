//! Placeholder: written elsewhere.
#![allow(missing_docs, clippy::todo, reason = "placeholder")]
use std::io::Write;
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct PkiArgs {}
pub fn run(_args: &PkiArgs, _now: jiff::Timestamp, _out: &mut impl Write) -> anyhow::Result<ExitCode> {
    todo!()
}

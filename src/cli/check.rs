//! Placeholder: written elsewhere.
#![allow(missing_docs, clippy::todo, reason = "placeholder")]
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct CheckArgs {}
pub fn check(_args: &CheckArgs) -> anyhow::Result<ExitCode> {
    todo!()
}

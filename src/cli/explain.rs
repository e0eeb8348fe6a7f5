//! Placeholder: written elsewhere.
#![allow(missing_docs, clippy::todo, reason = "placeholder")]
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {}
pub fn explain(_args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    todo!()
}

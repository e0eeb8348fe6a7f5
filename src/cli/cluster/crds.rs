//! `tallygate crds`: the CustomResourceDefinitions of our own kinds, for `kubectl apply`.
//!
//! Guarantees: the output is a function of the program alone.
//!
//! Leaves to others: what they say (`kube::crds`).

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::kube::crds::{definitions, field_table, yaml_text};

/// Arguments of `tallygate crds`.
#[derive(Debug, clap::Args)]
pub struct CrdsArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: CrdFormat,
}

/// The form of the definitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CrdFormat {
    /// For kubectl: one document for each kind
    #[default]
    Yaml,
    /// For programs: a List
    Json,
    /// For people: the fields of each kind
    Markdown,
}

/// Prints the definitions.
pub fn crds(args: &CrdsArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match args.format {
        CrdFormat::Yaml => write!(out, "{}", yaml_text()?)?,
        CrdFormat::Json => {
            let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": definitions() });
            writeln!(out, "{list:#}")?;
        }
        CrdFormat::Markdown => write!(out, "{}", field_table())?,
    }
    Ok(ExitCode::SUCCESS)
}

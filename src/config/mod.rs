//! The configuration: from the files (the document) to its meaning (settings and policy snapshot).
//!
//! Guarantees:
//! - Reading a configuration has no other effects.
//! - Every problem is reported in one run, with its file, line and path.
//! - A returned configuration is valid.

mod compile;
mod document;
mod warnings;

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::model::NameInterner;

pub use self::loading::configuration::Configuration;
pub use self::settings::access_log::{
    AccessLogFormat, AccessLogOutput, AccessLogSettings, AccessQueueLimits, SampleRates,
};
pub use self::settings::gateway_settings::CapacitySettings;
pub use self::settings::gateway_settings::GatewaySettings;
pub use self::settings::gateway_settings::ListenerSettings;
pub use self::settings::gateway_settings::ShutdownSettings;
pub use self::settings::gateway_settings::TrustedProxies;
pub(crate) use loading::command_check::check_commands;
pub use loading::file_watcher::FileWatcher;
pub use loading::loader::{ConfigLoader, LoadResult, configuration_files};
pub use loading::source_set::ExcludedSource;
pub(crate) use loading::source_set::{MemoryDocument, MemoryDocuments, SharedDocuments};
pub use loading::tls_loader::LoadedTls;
pub use parse::json_schema::json_schema;
pub use parse::problem::{ConfigProblem, ConfigProblems, ProblemSite, RelatedPath};
pub use parse::source_files::SourceFiles;
pub(crate) use parse::yaml::parse_values;
pub use settings::pending_restart::PendingSetting;
pub use settings::tracing::{TraceEndpoint, TracingSettings};
pub(crate) use warnings::UNVERIFIED_ACCEPTED;
pub use warnings::warnings;

/// Reads and compiles the file at `path` and the files that it includes. Relative paths are relative to the folder of
/// the file that contains them. The named files are read too: a certificate that does not match its key, or that is not
/// current by `clock`, is a problem of the configuration.
pub fn load_configuration(
    path: &Path,
    interner: &NameInterner,
    clock: &Clock,
) -> Result<Configuration, ConfigProblems> {
    ConfigLoader::new(path, clock.clone()).load(interner).configuration
}

/// Compiles the text of a main file alone. The files that it names are not read, so the configuration has no TLS
/// settings.
pub fn compile_text(text: &str, folder: &Path, interner: &NameInterner) -> Result<Configuration, ConfigProblems> {
    let (document, problems) = parse::yaml::parse_document(text);
    let Some(document) = document else { return Err(ConfigProblems(problems)) };
    let version = loading::loader::short_hash(&Sha256::digest(text));
    let sources = SourceFiles::new(&folder.join("tallygate.yaml"));
    let context =
        compile::CompileContext { sources: &sources, version: &version, numbers: interner, may_be_empty: false };
    let compiled = compile::compile_document(&document, context, None);
    Configuration::new(&compiled, (LoadedTls::default(), Vec::new()), sources, problems)
}

mod loading;
mod parse;
mod settings;
#[cfg(test)]
pub(crate) mod test_fixtures;
#[cfg(test)]
mod tests;

//! Configurations for tests, also of other rooms.

use std::path::Path;

use crate::model::NameInterner;

use super::{Configuration, compile_text};

/// The example of the documentation.
pub(crate) const EXAMPLE: &str = include_str!("testdata/example.yaml");

/// The required sections that most tests are not about.
const LEDGER_AND_LISTENER: &str = "ledger: { path: l.db }
listeners: [{ name: a, address: \"127.0.0.1:1\", tls: { certificate: c, key: k } }]
";

/// Returns the text of a configuration with a ledger, a listener, and these sections.
pub(crate) fn config_text(sections: &str) -> String {
    format!("{LEDGER_AND_LISTENER}{sections}")
}

/// Compiles a text that has no problems.
pub(crate) fn compile_valid(text: &str) -> Configuration {
    compile_with(text, &NameInterner::default())
}

/// Like [`compile_valid`], with the numbers of earlier configurations.
pub(crate) fn compile_with(text: &str, interner: &NameInterner) -> Configuration {
    compile_text(text, Path::new("/"), interner).expect("no problems")
}

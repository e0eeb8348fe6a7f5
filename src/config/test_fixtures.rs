//! Configurations for tests, also of other rooms.

use std::path::Path;
use std::sync::Arc;

use crate::clock::Clock;
use crate::model::NameInterner;
use crate::policy::PolicySnapshot;

use super::{ConfigLoader, Configuration, MemoryDocument, MemoryDocuments, SharedDocuments, compile_text};

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

/// Compiles these documents, as JSON, of a controller. They have no problems.
pub(crate) fn compile_with_documents(documents: &[&str]) -> Arc<PolicySnapshot> {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("tallygate.yaml");
    std::fs::write(&main, "ledger: { path: l.db }\n").expect("a file");
    let parse = |text: &&str| {
        let value = serde_json::from_str(text).expect("JSON");
        MemoryDocument::from_json("a document", &value).unwrap_or_else(|problem| panic!("{problem}"))
    };
    let shared = SharedDocuments::default();
    let documents = documents.iter().map(parse).collect();
    shared.store(Arc::new(MemoryDocuments { version: "1".to_owned(), documents }));
    let mut loader = ConfigLoader::new(&main, Clock::system()).with_documents(shared);
    let Configuration { snapshot, excluded, .. } = loader.load(&NameInterner::default()).configuration.expect("valid");
    assert!(excluded.is_empty(), "{excluded:?}");
    snapshot
}

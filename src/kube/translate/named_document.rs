//! Documents of the configuration, each with the name of its object.
//!
//! Guarantees:
//! - A document that is the same as in the last translation is the same [`Arc`], so that nobody compares its content.
//! - A document is kept as text: a tenth of the memory of parsed JSON.
//!
//! Leaves to others: what documents say, and what becomes of them (`config`).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model::PagedList;

/// A document of the configuration with the name of its object, such as `HTTPRoute shop/cart`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDocument {
    name: Arc<str>,
    text: Box<str>,
    digest: [u8; 32],
}

/// Documents in the order in which earlier ones win.
pub type DocumentList = PagedList<Arc<NamedDocument>>;

impl NamedDocument {
    /// Makes a document.
    pub fn new(name: &str, content: &Value) -> Self {
        let text = content.to_string().into_boxed_str();
        let mut digest = Sha256::new_with_prefix(name);
        digest.update([0]);
        digest.update(text.as_bytes());
        Self { name: name.into(), text, digest: digest.finalize().into() }
    }

    /// The name of its object. A clone shares the text.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The document as the text of its JSON, in one line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The document as JSON.
    pub fn content(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default() // it was written by `new`
    }

    /// This document, or `before` if it is the same.
    pub(super) fn shared_with(self, before: Option<&Arc<Self>>) -> Arc<Self> {
        before.filter(|before| ***before == self).map(Arc::clone).unwrap_or_else(|| Arc::new(self))
    }

    /// The SHA-256 of name and content.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// The documents of one translation and of the one before.
#[derive(Debug, Default)]
pub(super) struct DocumentPool {
    before: HashMap<Arc<str>, Arc<NamedDocument>>,
    now: HashMap<Arc<str>, Arc<NamedDocument>>,
}

impl DocumentPool {
    /// Begins a translation. Documents that the last one did not use are dropped.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// The document with this name and content: that of the last translation, if it is the same.
    pub(super) fn take(&mut self, name: &str, content: &Value) -> Arc<NamedDocument> {
        let document = NamedDocument::new(name, content).shared_with(self.before.get(name));
        self.now.insert(Arc::clone(document.name()), Arc::clone(&document));
        document
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_documents_of_two_translations_are_one() {
        let mut pool = DocumentPool::default();
        let first = pool.take("a", &json!({ "x": 1 }));
        assert_eq!((&**first.name(), first.content()), ("a", json!({ "x": 1 })));
        pool.begin();
        assert!(Arc::ptr_eq(&first, &pool.take("a", &json!({ "x": 1 }))));
        pool.begin();
        let changed = pool.take("a", &json!({ "x": 2 }));
        assert!(!Arc::ptr_eq(&first, &changed) && first.digest() != changed.digest());
        pool.begin();
        pool.begin();
        assert!(!Arc::ptr_eq(&changed, &pool.take("a", &json!({ "x": 2 }))), "it was not used meanwhile");
    }

    #[test]
    fn digests_keep_names_and_contents_apart() {
        let digests = [("a", json!("b")), ("a\"b\"", json!("")), ("", json!("ab"))];
        let digests = digests.map(|(name, content)| *NamedDocument::new(name, &content).digest());
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
    }
}

//! What the sections of a document need to know beside the document (`CompileContext`, `ServerDocuments`), and lists of
//! compiled parts
//! that a later document may use again (`PartList`).
//!
//! Guarantees:
//! - A part is used again only if its document is the same value and all its other inputs are the same: those of all
//!   parts ([`CommonInputs`]), and those that it names itself (`backends`, `subsystems`, `grants`, `departments`).
//! - Only parts of a document without problems are kept.
//! - No part depends on a position in the document.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::document::{BackendDocument, ConfigDocument, SubsystemDocument};
use crate::config::parse::source_files::SourceFiles;
use crate::config::settings::gateway_settings::{GatewaySettings, ListenerSettings};
use crate::model::{IdentityToken, Name, NameInterner};
use crate::policy::{Backend, DownstreamProtocol, Durability};

/// The context in which a document is compiled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompileContext<'a> {
    /// The files of the document. Relative paths are relative to the file that contains them.
    pub(crate) sources: &'a SourceFiles,
    /// The document's version.
    pub(crate) version: &'a str,
    /// The interner that assigns numbers to names.
    pub(crate) numbers: &'a NameInterner,
    /// Whether listeners and departments may be missing: another part of the process adds them later.
    pub(crate) may_be_empty: bool,
}

/// The documents that name servers or settings of TLS towards them, each with its position. One look at each subsystem
/// serves all sections: most subsystems of a cluster name only backends.
#[derive(Debug)]
pub(crate) struct ServerDocuments<'a> {
    pub(crate) subsystems: Vec<(usize, &'a Arc<SubsystemDocument>)>,
    pub(crate) backends: &'a [Arc<BackendDocument>],
}

impl<'a> ServerDocuments<'a> {
    pub(crate) fn new(document: &'a ConfigDocument) -> Self {
        let names_any = |written: &SubsystemDocument| written.tls.is_some() || !written.upstreams.is_empty();
        let subsystems = document.subsystems.iter().enumerate().filter(|(_, written)| names_any(written));
        Self { subsystems: subsystems.collect(), backends: &document.backends }
    }
}

/// The backends: those of the subsystems, and those of `backends`.
#[derive(Debug, Default)]
pub(crate) struct BackendParts {
    pub(crate) own: PartList<SubsystemDocument, Arc<Backend>>,
    pub(crate) named: PartList<BackendDocument, Arc<Backend>>,
}

/// What every part may depend on, beside its own document.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommonInputs {
    numbers: IdentityToken,
    workers: usize,
    durability: Durability,
    listeners: Vec<ListenerInputs>,
}

/// What parts may depend on of a listener.
#[derive(Debug, PartialEq, Eq)]
struct ListenerInputs {
    name: Name,
    protocol: DownstreamProtocol,
    has_tls: bool,
    accepts_anonymous: bool,
    virtual_hosts: Vec<Name>,
}

impl CommonInputs {
    pub(crate) fn new(settings: &GatewaySettings, numbers: &NameInterner) -> Self {
        Self {
            numbers: numbers.identity().clone(),
            workers: settings.workers,
            durability: settings.durability,
            listeners: settings.listeners.iter().map(ListenerInputs::new).collect(),
        }
    }
}

impl ListenerInputs {
    fn new(listener: &ListenerSettings) -> Self {
        Self {
            name: listener.name.clone(),
            protocol: listener.protocol,
            has_tls: listener.tls.is_some(),
            accepts_anonymous: listener.accepts_anonymous(),
            virtual_hosts: listener.virtual_hosts.iter().map(|host| host.name.clone()).collect(),
        }
    }
}

/// Parts with their documents, in the order of the documents.
#[derive(Debug)]
pub(crate) struct PartList<D, T>(Vec<(Arc<D>, T)>);

/// A search for parts, which documents in the same order as before make cheap.
pub(crate) struct PartSearch<'a, D, T> {
    known: &'a [(Arc<D>, T)],
    next: usize,
    positions: Option<HashMap<*const D, usize, RandomState>>,
}

impl<D, T> Default for PartList<D, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<D, T> PartList<D, T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn push(&mut self, document: &Arc<D>, part: T) {
        self.0.push((Arc::clone(document), part));
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, part)| part)
    }
}

impl<'a, D, T> PartSearch<'a, D, T> {
    /// A search among these parts; without them nothing is found.
    pub(crate) fn new(list: Option<&'a PartList<D, T>>) -> Self {
        Self { known: list.map(|list| &list.0[..]).unwrap_or_default(), next: 0, positions: None }
    }

    /// The part of the same document.
    pub(crate) fn find(&mut self, document: &Arc<D>) -> Option<&'a T> {
        Some(self.find_placed(document)?.1)
    }

    /// The part of the same document, with its position.
    pub(crate) fn find_placed(&mut self, document: &Arc<D>) -> Option<(usize, &'a T)> {
        let (known, next) = (self.known, self.next);
        let is_same = |position: &usize| known.get(*position).is_some_and(|(one, _)| Arc::ptr_eq(one, document));
        // In most documents that differ from the one before, one item is new, gone or in the place of another.
        let near = [next, next + 1].into_iter().find(is_same);
        let position = near.or_else(|| self.position_of(document))?;
        self.next = position + 1;
        Some((position, &known[position].1))
    }

    fn position_of(&mut self, document: &Arc<D>) -> Option<usize> {
        let known = self.known;
        let positions = self.positions.get_or_insert_with(|| {
            known.iter().enumerate().map(|(position, (document, _))| (Arc::as_ptr(document), position)).collect()
        });
        positions.get(&Arc::as_ptr(document)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_any_order() {
        let documents: Vec<Arc<usize>> = (0..6).map(Arc::new).collect();
        let mut list = PartList::default();
        documents[..5].iter().for_each(|document| list.push(document, **document));
        for order in [&[0, 1, 2, 3, 4][..], &[0, 5, 1, 2, 4, 3], &[4, 0, 0, 5, 1], &[2, 3], &[5]] {
            let mut search = PartSearch::new(Some(&list));
            for at in order {
                let expected = Some(at).filter(|at| **at < 5);
                assert_eq!(search.find(&documents[*at]), expected, "{order:?}");
            }
        }
        assert_eq!(PartSearch::<usize, usize>::new(None).find(&documents[0]), None);
        assert_eq!(PartSearch::new(Some(&list)).find(&Arc::new(0)), None, "an equal document is another one");
    }
}

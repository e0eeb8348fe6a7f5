//! What the sections of a document need to know beside the document (`CompileContext`, `ServerDocuments`), and lists of
//! compiled parts
//! that a later document may use again (`PartList`).
//!
//! Guarantees:
//! - A part is used again only if its document is the same value and all its other inputs are the same: those of all
//!   parts ([`CommonInputs`]), and those that it names itself (`backends`, `subsystems`, `grants`, `departments`).
//! - Only parts of a document without problems are kept.
//! - No part depends on a position in the document.

mod part_list;

use std::sync::Arc;

use crate::config::document::{BackendDocument, ConfigDocument, SubsystemDocument};
use crate::config::parse::source_files::SourceFiles;
use crate::config::settings::gateway_settings::{GatewaySettings, ListenerSettings};
use crate::model::{IdentityToken, Name, NameInterner};
use crate::policy::{Backend, DownstreamProtocol, Durability};

pub(crate) use self::part_list::{PartList, RenewedParts};

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

    /// The subsystems that name servers of their own.
    pub(crate) fn with_upstreams(&self) -> impl Iterator<Item = &'a Arc<SubsystemDocument>> {
        self.subsystems.iter().map(|(_, written)| *written).filter(|written| !written.upstreams.is_empty())
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

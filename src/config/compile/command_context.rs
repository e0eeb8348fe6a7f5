//! The context shared by all commands of a document while they are compiled.

use std::sync::Arc;

use crate::config::document::{HeadersDocument, SubsystemDocument};
use crate::model::{BandwidthLimit, NameInterner};
use crate::policy::{
    BackendShare, CommandShape, CommandTimeouts, CorsPolicy, Durability, FieldEdits, MirrorTarget, RedirectTarget,
    RequestRewrite,
};

use super::backends::CompiledBackends;
use super::command_shape::add_edits;
use super::doc_path::DocPath;

/// The context shared by all commands of a document.
pub(crate) struct CommandContext<'a> {
    /// The interner that assigns numbers to names.
    pub(crate) name_interner: &'a NameInterner,
    /// The durability of commands that set none.
    pub(crate) durability: Durability,
    /// The settings of the current subsystem for all its commands.
    pub(crate) common: CommonShape,
    /// The timeouts of the current subsystem's commands that set none.
    pub(crate) timeouts: CommandTimeouts,
    /// All backends.
    pub(crate) backends: &'a CompiledBackends<'a>,
    /// The number of the backend of the current subsystem's own servers.
    pub(crate) own_backend: Option<u32>,
    /// The backends of the current subsystem's commands that name none.
    pub(crate) default_shares: Option<Vec<BackendShare>>,
    /// Whether a command of the current subsystem needs servers of the subsystem, which has none.
    pub(crate) lacks_servers: bool,
    /// All subsystems, as written.
    pub(crate) subsystems: &'a [Arc<SubsystemDocument>],
}

/// The settings of a subsystem for all its commands.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommonShape {
    request: FieldEdits,
    response: FieldEdits,
    pub(crate) cors: Option<Arc<CorsPolicy>>,
    pub(crate) compress: bool,
    pub(crate) bandwidth: Option<BandwidthLimit>,
}

impl CommonShape {
    /// The shape of a command without settings of its own.
    pub(crate) fn shape(
        self,
        rewrite: Option<RequestRewrite>,
        redirect: Option<RedirectTarget>,
        mirrors: Vec<MirrorTarget>,
    ) -> Option<Box<CommandShape>> {
        let Self { request, response, cors, compress, bandwidth } = self;
        let is_edited = !request.is_empty() || !response.is_empty();
        let is_shaped = is_edited || rewrite.is_some() || redirect.is_some() || cors.is_some();
        let is_shaped = is_shaped || compress || bandwidth.is_some() || !mirrors.is_empty();
        let shape = CommandShape { request, response, rewrite, redirect, cors, mirrors, compress, bandwidth };
        is_shaped.then(|| Box::new(shape))
    }

    pub(crate) fn add_headers(&mut self, headers: Option<&HeadersDocument>, place: &DocPath<'_>) {
        let Some(headers) = headers else { return };
        add_edits(&mut self.request, headers.request.as_ref(), &place.key("request"));
        add_edits(&mut self.response, headers.response.as_ref(), &place.key("response"));
    }
}

//! Compiles a configuration document into settings and policy: one file per section, pure, all problems reported at
//! once.
//!
//! A section that finds a problem records it and continues with a placeholder, so that later problems are found as
//! well. The `config` module never uses the result if a problem was recorded.
//!
//! Parts of an earlier document without problems are used again where nothing that they depend on has changed
//! ([`CompiledParts`]). The result is the same as without them.

mod backends;
mod command_backends;
mod command_context;
mod command_match;
mod command_shape;
mod commands;
mod compile_context;
mod connections;
mod cors;
mod departments;
mod doc_path;
mod grants;
mod limits;
mod listeners;
mod scalars;
mod settings;
mod subsystem_tls;
mod subsystems;
mod upstreams;
mod values;

use std::sync::Arc;

use crate::model::{Name, NameInterner};
use crate::policy::{MatchPlace, PolicyConflict, PolicySnapshot, SnapshotDraft, UsagePage, UsagePageNumbers};

use super::document::{ConfigDocument, GrantDocument, MatchListDocument, SubsystemDocument};
use super::parse::problem::ConfigProblem;
use super::settings::gateway_settings::{GatewaySettings, ListenerSettings, SubsystemTlsSettings};
pub(crate) use compile_context::CompileContext;
use compile_context::{BackendParts, CommonInputs, PartList, ServerDocuments};
use departments::{KeptDepartments, KnownDepartments};
use doc_path::{DocPath, ProblemList};
use grants::GrantPart;
use subsystems::SubsystemPart;

/// The parts of a document without problems, each with what it was compiled from.
#[derive(Debug)]
pub(crate) struct CompiledParts {
    pub(crate) inputs: CommonInputs,
    pub(crate) departments: KeptDepartments,
    pub(crate) backends: BackendParts,
    pub(crate) subsystems: PartList<SubsystemDocument, SubsystemPart>,
    pub(crate) grants: PartList<GrantDocument, GrantPart>,
    pub(crate) snapshot: Arc<PolicySnapshot>,
    /// The number of subsystems that were compiled, and not used again.
    #[cfg(test)]
    pub(crate) compiled_subsystems: usize,
}

/// Compiles a document to its meaning and all its problems. If there are problems, the settings contain placeholders.
/// `before` are the parts of an earlier document, perhaps to be used again.
pub(crate) fn compile_document(
    document: &ConfigDocument,
    context: CompileContext<'_>,
    before: Option<&CompiledParts>,
) -> CompiledDocument {
    let findings = ProblemList::default();
    let root = findings.root();
    let servers = ServerDocuments::new(document);
    let settings = settings::compile_settings(document, &servers, context, &root);
    let parts = compile_parts((document, &servers), (&settings, before), context, &root);
    let subsystem_tls = subsystem_tls::compile_subsystem_tls(&servers, context.sources, &root);
    CompiledDocument { settings, parts, subsystem_tls, problems: findings.into_problems() }
}

/// The compiled meaning of a document. Parts with problems hold placeholders.
pub(crate) struct CompiledDocument {
    pub(crate) settings: GatewaySettings,
    /// The policy; `None` if it has conflicts.
    pub(crate) parts: Option<CompiledParts>,
    pub(crate) subsystem_tls: Vec<SubsystemTlsSettings>,
    pub(crate) problems: Vec<ConfigProblem>,
}

fn compile_parts(
    (document, servers): (&ConfigDocument, &ServerDocuments<'_>),
    (settings, before): (&GatewaySettings, Option<&CompiledParts>),
    context: CompileContext<'_>,
    root: &DocPath<'_>,
) -> Option<CompiledParts> {
    let inputs = CommonInputs::new(settings, context.numbers);
    let before = before.filter(|before| before.inputs == inputs);
    let place = root.key("departments");
    let departments = departments::compile_departments(
        &document.departments,
        &settings.listeners,
        (context, before.map(|before| &before.departments)),
        &place,
    );
    let known_departments = KnownDepartments {
        all: &departments.departments,
        are_as_before: before
            .is_some_and(|before| Arc::ptr_eq(&before.departments.1.departments, &departments.departments)),
    };
    let known = before.map(|before| (&before.backends, &before.subsystems));
    let (backends, backend_parts) =
        backends::compile_backends((document, servers), (settings.workers, context.numbers), known, root);
    let known = before.map(|before| &before.subsystems);
    let named = (known_departments, &backends);
    let (subsystems, renewed) =
        subsystems::compile_subsystems(document, (settings, context.numbers), named, known, root);
    let limited = renewed.list.parts().enumerate();
    limits::check_zones(limited.filter_map(|(index, part)| Some((index, part.with_address_limits()?))), root);
    let names = grants::KnownNames::new(context.numbers, known_departments, &subsystems);
    let known = before.map(|before| &before.grants);
    let grants = grants::compile_grants(&document.grants, known, &names, &root.key("grants"));
    let total = limits::compile_total_limit(document.limits.as_ref(), &root.key("limits"));
    let rules = grants.parts().map(|part| Arc::clone(part.rule())).collect();
    let draft = SnapshotDraft {
        version: context.version.to_owned(),
        total_rate: total,
        departments: Arc::clone(&departments.departments),
        callers: Arc::clone(&departments.callers),
        anonymous: Arc::clone(&departments.anonymous),
        unclaimed: Arc::clone(&departments.unclaimed),
        forwards_certificates: settings.tls_listeners().any(|(.., files)| files.forwards_certificates()),
        listeners: settings.listeners.iter().map(ListenerSettings::routing).collect(),
        subsystems: subsystems.all,
        backends: backends.all,
        usage_page: document.usage_page.unwrap_or(true).then(|| compile_usage_page(context.numbers)),
        grants: rules,
    };
    let compiled = draft.compile(before.map(|before| &*before.snapshot));
    let report = |conflicts: Vec<PolicyConflict>| {
        conflicts.iter().for_each(|conflict| report_conflict(conflict, document, root));
    };
    Some(CompiledParts {
        snapshot: Arc::new(compiled.map_err(report).ok()?),
        inputs,
        departments: (document.departments.clone(), departments),
        backends: backend_parts,
        #[cfg(test)]
        compiled_subsystems: renewed.compiled,
        subsystems: renewed.list,
        grants,
    })
}

/// The page on which departments read their own usage. Its numbers are those of its names.
fn compile_usage_page(numbers: &NameInterner) -> UsagePage {
    let number = |command: &str| numbers.intern(&format!("c/{}/{command}", Name::GATEWAY));
    UsagePage::new(UsagePageNumbers { subsystem: number(Name::UNKNOWN), command: number(UsagePage::COMMAND) })
}

/// Reports a conflict between two parts of the document at their paths.
fn report_conflict(conflict: &PolicyConflict, document: &ConfigDocument, root: &DocPath<'_>) {
    let subsystems = root.key("subsystems");
    match conflict {
        PolicyConflict::SameSubsystemPath { subsystem, with, host } => {
            let host = host.as_ref().map_or("any host".to_owned(), |host| format!("the host {host}"));
            let message = format!("the same path on {host} already belongs to {}", document.subsystems[*with].id);
            subsystems.item(*subsystem).key("path").problem_beside(message, &subsystems.item(*with));
        }
        PolicyConflict::SameServerName { subsystem, with, host } => {
            let host = host.as_ref().map_or("any server name".to_owned(), |host| format!("the server name {host}"));
            let message = format!("{host} already belongs to {}", document.subsystems[*with].id);
            subsystems.item(*subsystem).key("hosts").problem_beside(message, &subsystems.item(*with));
        }
        PolicyConflict::SameRoute { place, with: Some(with) } => {
            let message = match (with.subsystem == place.subsystem, with.command == place.command) {
                (true, true) => format!("{} already matches the same requests", match_key(*with, document)),
                (true, false) => format!("commands[{}] already matches the same method and path", with.command),
                (false, _) => {
                    let other = &document.subsystems[with.subsystem];
                    format!("{} of {} already matches the same requests", other.commands[with.command].id, other.id)
                }
            };
            match_path(*place, document, root).problem_beside(message, &match_path(*with, document, root));
        }
        PolicyConflict::SameRoute { place, with: None } => {
            let message =
                "{name} and {*name} cannot be in the same position of two paths: the match would be ambiguous";
            match_path(*place, document, root).problem(message);
        }
    }
}

/// The path of a match in the document.
fn match_path<'a>(place: MatchPlace, document: &ConfigDocument, root: &DocPath<'a>) -> DocPath<'a> {
    let subsystem = root.key("subsystems").item(place.subsystem);
    subsystem.key("commands").item(place.command).key(&match_key(place, document))
}

/// `match`, or `match[1]` in a list.
fn match_key(place: MatchPlace, document: &ConfigDocument) -> String {
    match document.subsystems[place.subsystem].commands[place.command].r#match {
        Some(MatchListDocument::Any(_)) => format!("match[{}]", place.position),
        Some(MatchListDocument::One(_)) | None => "match".to_owned(),
    }
}

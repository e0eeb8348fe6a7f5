//! From the document to what it means: one file per section, pure, all problems at once.
//!
//! A section that finds a problem notes it and goes on with a stand-in, so that the next problem is found as well; the
//! floor above runs nothing in which a problem was noted.

mod commands;
mod cors;
mod departments;
mod grants;
mod limits;
mod listeners;
mod place;
mod servers;
mod settings;
mod shaping;
mod subsystem_tls;
mod subsystems;

use std::sync::Arc;

use crate::model::Numbers;
use crate::policy::{Draft, Misfit, Snapshot};

use super::document::Document;
use super::problem::Problem;
use super::sources::Sources;
use super::{Settings, SubsystemTlsSettings};
use place::{Findings, Place};

/// What a document is compiled with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    /// The files it is written in: relative paths are relative to the file they stand in.
    pub(super) sources: &'a Sources,
    /// The document's version.
    pub(super) version: &'a str,
    /// Gives names their numbers.
    pub(super) numbers: &'a Numbers,
}

/// Compiles a document: what it means, and all its problems. Where there are problems, the settings hold stand-ins.
pub(super) fn compile(document: &Document, context: Context<'_>) -> Compiled {
    let findings = Findings::default();
    let root = findings.root();
    let settings = settings::compile(document, context.sources.folder(), &root);
    let snapshot = snapshot(document, &settings, context, &root).map(Arc::new);
    let subsystem_tls = subsystem_tls::compile(&document.subsystems, context.sources, &root.key("subsystems"));
    Compiled { settings, snapshot, subsystem_tls, problems: findings.into_problems() }
}

/// What a document means, as far as it means anything.
pub(super) struct Compiled {
    pub(super) settings: Settings,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) subsystem_tls: Vec<SubsystemTlsSettings>,
    pub(super) problems: Vec<Problem>,
}

fn snapshot(document: &Document, settings: &Settings, context: Context<'_>, root: &Place<'_>) -> Option<Snapshot> {
    let (departments, callers) = departments::compile(&document.departments, context.numbers, &root.key("departments"));
    let subsystems = subsystems::compile(document, settings, context.numbers, root);
    let known = grants::Known::new(&departments, &subsystems);
    let grants = grants::compile(&document.grants, &known, &root.key("grants"));
    let total = limits::total(document.limits.as_ref(), &root.key("limits"));
    let draft = Draft { version: context.version.to_owned(), total, departments, callers, subsystems, grants };
    draft.compile().map_err(|misfits| misfits.iter().for_each(|misfit| tell(misfit, document, root))).ok()
}

/// Says where in the document two parts do not fit together.
fn tell(misfit: &Misfit, document: &Document, root: &Place<'_>) {
    let subsystems = root.key("subsystems");
    match misfit {
        Misfit::SamePlace { subsystem, with, host } => {
            let host = host.as_ref().map_or("any host".to_owned(), |host| format!("the host {host}"));
            let message = format!("the same path on {host} belongs to {} already", document.subsystems[*with].id);
            subsystems.item(*subsystem).key("path").problem_beside(message, &subsystems.item(*with));
        }
        Misfit::SameRoute { subsystem, command, with: Some(with) } => {
            let message = format!("commands[{with}] answers to the same method and path already");
            subsystems.item(*subsystem).key("commands").item(*command).key("match").problem(message);
        }
        Misfit::SameRoute { subsystem, command, with: None } => {
            let message =
                "{name} and {*name} cannot stand in the same place of two paths: nobody could tell which is meant";
            subsystems.item(*subsystem).key("commands").item(*command).key("match").problem(message);
        }
        Misfit::IdleGlob { grant, glob } => {
            let written = &document.grants[*grant];
            let message = format!("{:?} matches no command of {}", written.commands[*glob], written.subsystem);
            root.key("grants").item(*grant).key("commands").item(*glob).problem(message);
        }
    }
}

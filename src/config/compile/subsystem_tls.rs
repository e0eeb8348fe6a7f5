//! Compiles `subsystems[].tls`: mutual authentication between the gateway and a subsystem.

use std::path::Path;
use std::sync::Arc;

use crate::config::document::{SubsystemDocument, SubsystemTlsDocument};
use crate::config::parse::source_files::SourceFiles;
use crate::config::settings::gateway_settings::SubsystemTlsSettings;
use crate::identity::SubsystemTlsFiles;
use crate::model::Name;

use super::doc_path::DocPath;
use super::listeners::{resolve_path, resolve_paths};

pub(crate) fn compile_subsystem_tls(
    subsystems: &[Arc<SubsystemDocument>],
    sources: &SourceFiles,
    place: &DocPath<'_>,
) -> Vec<SubsystemTlsSettings> {
    let one = |(index, subsystem): (usize, &Arc<SubsystemDocument>)| {
        tls_settings_of(subsystem, index, sources.folder_of_subsystem(index), &place.item(index))
    };
    subsystems.iter().enumerate().filter_map(one).collect()
}

fn tls_settings_of(
    subsystem: &SubsystemDocument,
    index: usize,
    folder: &Path,
    place: &DocPath<'_>,
) -> Option<SubsystemTlsSettings> {
    let secure = subsystem.upstreams.iter().filter(|upstream| upstream.url.starts_with("https:")).count();
    if secure != 0 && secure != subsystem.upstreams.len() {
        place.key("upstreams").problem("some servers have https URLs and some do not; a subsystem has all or none");
    }
    let place = place.key("tls");
    let Some(written) = &subsystem.tls else {
        if secure != 0 {
            place.problem_with_hint("is missing", "an https URL needs tls: { authorities: [FILE] }");
        }
        return None;
    };
    if secure == 0 {
        place.problem_with_hint("has no effect without https URLs", "give the upstreams https URLs");
    }
    let name = Name::parse(&subsystem.id).ok()?;
    let protocol = if subsystem.protocol.as_deref() == Some("http2") { "h2" } else { "http/1.1" };
    Some(SubsystemTlsSettings { index, name, files: tls_files_of(written, protocol, folder, &place) })
}

fn tls_files_of(
    written: &SubsystemTlsDocument,
    protocol: &'static str,
    folder: &Path,
    place: &DocPath<'_>,
) -> SubsystemTlsFiles {
    let authorities = place.key("authorities");
    if written.authorities.is_empty() {
        authorities.problem("at least one authority is required to verify the subsystem's certificate");
    }
    let own = match (&written.certificate, &written.key) {
        (Some(certificate), Some(key)) => Some((
            resolve_path(certificate, folder, &place.key("certificate")),
            resolve_path(key, folder, &place.key("key")),
        )),
        (None, None) => None,
        (Some(_), None) => place.key("key").missing("a certificate requires its key"),
        (None, Some(_)) => place.key("certificate").missing("a key requires its certificate"),
    };
    let authorities = resolve_paths(&written.authorities, folder, &authorities);
    SubsystemTlsFiles { authorities, client_certificate: own, server_name: written.server_name.clone(), protocol }
}

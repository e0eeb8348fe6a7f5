//! Compiles `tls` of subsystems and backends: mutual authentication between the gateway and servers.

use std::path::Path;

use crate::config::document::{ServerGroup, SubjectAltNameDocument, SubsystemTlsDocument};
use crate::config::parse::source_files::SourceFiles;
use crate::config::settings::gateway_settings::SubsystemTlsSettings;
use crate::identity::{SubjectAltName, SubsystemTlsFiles};
use crate::model::Name;

use super::compile_context::ServerDocuments;
use super::doc_path::DocPath;
use super::listeners::{resolve_path, resolve_paths};

pub(crate) fn compile_subsystem_tls(
    documents: &ServerDocuments<'_>,
    sources: &SourceFiles,
    root: &DocPath<'_>,
) -> Vec<SubsystemTlsSettings> {
    let subsystems = documents.subsystems.iter().filter(|(_, written)| names_tls(written.servers()));
    let subsystems = subsystems.filter_map(|(index, written)| {
        let place = root.key("subsystems").item(*index);
        tls_settings_of(written.servers(), sources.folder_of_subsystem(*index), &place)
    });
    let backends = documents.backends.iter().enumerate().filter(|(_, written)| names_tls(written.servers()));
    let backends = backends.filter_map(|(index, written)| {
        let place = root.key("backends").item(index);
        tls_settings_of(written.servers(), sources.folder_of_backend(index), &place)
    });
    subsystems.chain(backends).collect()
}

/// Whether there is anything to check: settings of TLS, or servers that may need them.
fn names_tls(written: ServerGroup<'_>) -> bool {
    let is_secure = |url: &str| url.starts_with("https:") || url.starts_with("tls:");
    written.tls.is_some()
        || written.endpoints.is_some_and(|endpoints| endpoints.secure)
        || written.upstreams.iter().any(|upstream| is_secure(&upstream.url))
}

fn tls_settings_of(written: ServerGroup<'_>, folder: &Path, place: &DocPath<'_>) -> Option<SubsystemTlsSettings> {
    let (scheme, protocol) = match written.protocol {
        Some("tcp") => ("tls", None),
        Some("http2") => ("https", Some("h2")),
        _ => ("https", Some("http/1.1")),
    };
    let is_secure = |url: &str| url.strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':'));
    let secure = written.upstreams.iter().filter(|upstream| is_secure(&upstream.url)).count();
    if secure != 0 && secure != written.upstreams.len() {
        let message = format!("some servers have {scheme} URLs and some do not; all have, or none");
        place.key("upstreams").problem(message);
    }
    let place = place.key("tls");
    let is_secure = secure != 0 || written.endpoints.is_some_and(|endpoints| endpoints.secure);
    let Some(tls) = written.tls else {
        if is_secure {
            place.problem_with_hint(
                "is missing",
                format!("a URL with {scheme} needs tls: {{ authorities: [FILE] }} or {{ systemAuthorities: true }}"),
            );
        }
        return None;
    };
    let has_servers = !written.upstreams.is_empty() || written.endpoints.is_some();
    if !is_secure && has_servers {
        let message = format!("has no effect without {scheme} URLs");
        place.problem_with_hint(message, format!("give the upstreams {scheme} URLs"));
    }
    let name = Name::parse(written.id).ok()?;
    let files = tls_files_of(tls, protocol, folder, &place);
    Some(SubsystemTlsSettings { place: place.to_string(), name, files })
}

fn tls_files_of(
    written: &SubsystemTlsDocument,
    protocol: Option<&'static str>,
    folder: &Path,
    place: &DocPath<'_>,
) -> SubsystemTlsFiles {
    let authorities = place.key("authorities");
    let system = written.system_authorities.unwrap_or(false);
    match (written.authorities.is_empty(), system) {
        (true, false) => authorities.problem_with_hint(
            "at least one authority is required to verify the subsystem's certificate",
            "or write systemAuthorities: true for those that the system trusts",
        ),
        (false, true) => place.key("systemAuthorities").problem("cannot be combined with authorities"),
        _ => {}
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
    SubsystemTlsFiles {
        authorities,
        system_authorities: system,
        subject_alt_names: compile_names(&written.subject_alt_names, &place.key("subjectAltNames")),
        client_certificate: own,
        server_name: written.server_name.clone(),
        protocol,
    }
}

fn compile_names(written: &[SubjectAltNameDocument], place: &DocPath<'_>) -> Vec<SubjectAltName> {
    if written.len() > SubjectAltName::MAX {
        place.problem(format!("has {} names; at most {} are allowed", written.len(), SubjectAltName::MAX));
    }
    let one = |(index, name): (usize, &SubjectAltNameDocument)| {
        let place = place.item(index);
        match (&name.dns, &name.uri) {
            (Some(dns), None) => place.key("dns").value_or_problem(SubjectAltName::parse_dns(dns)),
            (None, Some(uri)) => place.key("uri").value_or_problem(SubjectAltName::parse_uri(uri)),
            _ => place.missing("write exactly one of dns and uri"),
        }
    };
    written.iter().take(SubjectAltName::MAX).enumerate().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::compile_text;
    use crate::config::test_fixtures::config_text;
    use crate::model::NameInterner;

    #[test]
    fn problems_name_their_place() {
        let names = ["{ dns: a.example }"; 6].join(", ");
        let crowd = format!("systemAuthorities: true, subjectAltNames: [{names}]");
        for (tls, place, message) in [
            ("serverName: a.example", "tls.authorities", "at least one authority"),
            ("authorities: [ca.pem], systemAuthorities: true", "tls.systemAuthorities", "cannot be combined"),
            ("systemAuthorities: true, subjectAltNames: [{}]", "tls.subjectAltNames[0]", "exactly one of dns and uri"),
            (
                "systemAuthorities: true, subjectAltNames: [{ dns: a.example, uri: \"a:b\" }]",
                "tls.subjectAltNames[0]",
                "exactly one of dns and uri",
            ),
            (
                "systemAuthorities: true, subjectAltNames: [{ dns: \"*.example\" }]",
                "tls.subjectAltNames[0].dns",
                "without wildcards",
            ),
            (
                "systemAuthorities: true, subjectAltNames: [{ dns: a.example }, { uri: cameras }]",
                "tls.subjectAltNames[1].uri",
                "is not a URI",
            ),
            (crowd.as_str(), "tls.subjectAltNames", "at most 5"),
            ("systemAuthorities: true, certificate: c.pem", "tls.key", "a certificate requires its key"),
        ] {
            let server = format!("upstreams: [{{ url: \"https://127.0.0.1:1\" }}], tls: {{ {tls} }}");
            let commands = "commands: [{ id: c, match: { path: /c } }]";
            for (written, list) in [
                (format!("subsystems: [{{ id: s, {server}, {commands} }}]"), "subsystems"),
                (format!("subsystems: []\nbackends: [{{ id: b, {server} }}]"), "backends"),
            ] {
                let text = config_text(&format!(
                    "departments: [{{ id: d, callers: [{{ dns: d.example }}] }}]\n{written}\ngrants: []\n"
                ));
                let problems = compile_text(&text, Path::new("/"), &NameInterner::default()).expect_err(message).0;
                let place = format!("{list}[0].{place}");
                let found =
                    problems.iter().any(|problem| problem.path == place && problem.to_string().contains(message));
                assert!(found, "{place}: {message}: {problems:?}");
            }
        }
    }
}

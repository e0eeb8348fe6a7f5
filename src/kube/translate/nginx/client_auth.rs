//! Client certificates: `auth-tls-*`.
//!
//! Guarantees: what cannot be verified as the annotations ask refuses the Ingress.
//!
//! Leaves to others: the Secret, and the certificates of the hosts (`ingress_listeners`).

use serde_json::{Value, json};

use super::annotation_reader::AnnotationReader;
use super::values::{parse_count, parse_switch};
use crate::identity::SubjectPattern;
use crate::kube::objects::Ingress;

/// `auth-tls-verify-depth` without the annotation, or with 0.
const DEPTH: u64 = 1;
/// The largest depth: that of OpenSSL.
const DEPTH_MAX: u64 = 100;

/// The client certificates of the hosts of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kube::translate) struct ClientAuthPlan {
    /// The Secret with `ca.crt`, in the namespace of the Ingress.
    pub(in crate::kube::translate) secret: String,
    /// `clientAuth` without `authorities`.
    pub(in crate::kube::translate) settings: Value,
}

pub(super) fn read_client_auth(reader: &mut AnnotationReader<'_>, ingress: &Ingress) -> Option<ClientAuthPlan> {
    if reader.value("auth-tls-secret").is_none() {
        without_effect(reader, "has no effect without auth-tls-secret");
        return None;
    }
    let mode = match reader.value("auth-tls-verify-client") {
        None | Some("on") => "required",
        Some("optional") => "optional",
        Some("optional_no_ca") => "anyAuthority",
        Some("off") => {
            without_effect(reader, "off");
            return None;
        }
        Some(_) => {
            reader.refused("auth-tls-verify-client", "the value is none of on, off, optional and optional_no_ca");
            "required"
        }
    };
    let secret = reader.own_object("auth-tls-secret");
    if secret.is_some() {
        judge_secret(reader, ingress);
    }
    judge_mode(reader);
    let mut settings = json!({ "mode": mode, "refusal": "response", "maxDepth": read_depth(reader) });
    settings["forward"] = json!(read_forward(reader));
    if let Some(page) = read_error_page(reader) {
        settings["errorPage"] = json!(page);
    }
    if let Some(subject) = read_subject(reader, mode) {
        settings["subject"] = json!(subject);
    }
    Some(ClientAuthPlan { secret: secret?, settings })
}

fn without_effect(reader: &mut AnnotationReader<'_>, sentence: &str) {
    let parts = ["secret", "verify-client", "verify-depth", "error-page", "match-cn"];
    for part in parts.into_iter().chain(["pass-certificate-to-upstream"]) {
        reader.taken(&format!("auth-tls-{part}"), sentence);
    }
}

fn judge_secret(reader: &mut AnnotationReader<'_>, ingress: &Ingress) {
    let hosts: Vec<&str> = ingress.rules.iter().map(|rule| rule.host.as_deref().unwrap_or_default()).collect();
    let has_wildcard = hosts.iter().any(|host| host.is_empty() || host.starts_with('*'));
    if has_wildcard || hosts.is_empty() {
        let why = "client certificates belong to a server name, so each rule needs a host without wildcard";
        return reader.refused("auth-tls-secret", why);
    }
    if ingress.default_backend.is_some() {
        return reader.refused("auth-tls-secret", "a default backend would answer other hosts without a certificate");
    }
    if reader.value("ssl-redirect").is_some_and(|value| parse_switch(value) == Some(false)) {
        let sentence = "the authorities of the host; requests over plain HTTP are redirected to HTTPS nonetheless, as \
                        they have no certificate";
        return reader.differs("auth-tls-secret", sentence);
    }
    reader.taken("auth-tls-secret", "the authorities of the host; 400 for requests without a valid certificate");
}

fn judge_mode(reader: &mut AnnotationReader<'_>) {
    let sentence = match reader.value("auth-tls-verify-client") {
        Some("on") => "no request without a certificate",
        Some("optional") => "requests without a certificate are accepted; a wrong one gets 400",
        Some("optional_no_ca") => {
            "a certificate of an unknown authority is accepted, as FAILED and without an identity"
        }
        _ => return,
    };
    reader.taken("auth-tls-verify-client", sentence);
}

fn read_depth(reader: &mut AnnotationReader<'_>) -> u64 {
    let depth = reader.value("auth-tls-verify-depth").and_then(parse_count).filter(|depth| *depth > 0);
    if depth.is_some() {
        reader.taken(
            "auth-tls-verify-depth",
            "the most certificates between the caller's and the root, as OpenSSL counts",
        );
    } else {
        reader.taken("auth-tls-verify-depth", "no number above 0; the depth is 1, as in ingress-nginx");
    }
    depth.unwrap_or(DEPTH).min(DEPTH_MAX)
}

fn read_forward(reader: &mut AnnotationReader<'_>) -> &'static str {
    let name = "auth-tls-pass-certificate-to-upstream";
    if reader.value(name).and_then(parse_switch) == Some(true) {
        reader.taken(name, "ssl-client-cert has the certificate; ssl-client-* of callers is removed on all hosts");
        return "certificate";
    }
    reader.taken(name, "off; ssl-client-verify, ssl-client-subject-dn and ssl-client-issuer-dn are set nonetheless");
    "names"
}

fn read_error_page(reader: &mut AnnotationReader<'_>) -> Option<String> {
    let Some(page) = reader.value("auth-tls-error-page").filter(|page| !page.is_empty()) else {
        reader.taken("auth-tls-error-page", "empty");
        return None;
    };
    let uri = page.parse::<http::Uri>().ok();
    let is_url = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if !is_url || page.contains('$') {
        reader.lost("auth-tls-error-page", "only a URL without variables can be a page; 400 without it");
        return None;
    }
    reader.taken("auth-tls-error-page", "302 to this URL instead of 400");
    Some(page.to_owned())
}

fn read_subject(reader: &mut AnnotationReader<'_>, mode: &str) -> Option<String> {
    let name = "auth-tls-match-cn";
    let Some(pattern) = reader.value(name).filter(|pattern| !pattern.is_empty()) else {
        reader.taken(name, "empty");
        return None;
    };
    if SubjectPattern::parse(pattern).is_err() {
        reader.refused(name, "is not a regular expression in the syntax of RE2");
        return None;
    }
    match mode {
        "anyAuthority" => {
            reader.differs(name, "403 for other subjects, and for every certificate that is not verified")
        }
        _ => reader.taken(name, "403 for other subjects"),
    }
    Some(pattern.to_owned())
}

//! Client certificates: `auth-tls-*`.
//!
//! Guarantees: what cannot be verified as the annotations ask refuses the Ingress.
//!
//! Leaves to others: the Secret, and the certificates of the hosts (`ingress_listeners`).

use super::annotation_reader::AnnotationReader;
use super::values::{parse_count, parse_switch};
use crate::kube::objects::Ingress;

/// The fields in which ingress-nginx forwards the certificate to servers. Those of callers are removed.
pub(in crate::kube::translate) const CLIENT_AUTH_FIELDS: [&str; 4] =
    ["ssl-client-cert", "ssl-client-issuer-dn", "ssl-client-subject-dn", "ssl-client-verify"];

/// The client certificates of the hosts of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kube::translate) struct ClientAuthPlan {
    /// The Secret with `ca.crt`, in the namespace of the Ingress.
    pub(in crate::kube::translate) secret: String,
    /// `clientAuth.mode`.
    pub(in crate::kube::translate) mode: &'static str,
}

pub(super) fn read_client_auth(reader: &mut AnnotationReader<'_>, ingress: &Ingress) -> Option<ClientAuthPlan> {
    if reader.value("auth-tls-secret").is_none() {
        without_effect(reader, "has no effect without auth-tls-secret");
        return None;
    }
    let mode = match reader.value("auth-tls-verify-client") {
        None | Some("on") => "required",
        Some("optional") => "optional",
        Some("optional_no_ca") => "allowInsecureFallback",
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
    judge_details(reader);
    Some(ClientAuthPlan { secret: secret?, mode })
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
    let sentence = "the authorities of the host; a wrong certificate fails the handshake instead of getting 400, and \
                    plain requests are redirected to HTTPS";
    reader.differs("auth-tls-secret", sentence);
}

fn judge_mode(reader: &mut AnnotationReader<'_>) {
    match reader.value("auth-tls-verify-client") {
        Some("on") => reader.taken("auth-tls-verify-client", "no request without a certificate"),
        Some("optional") => {
            let sentence = "callers without a certificate are accepted; a wrong one fails the handshake";
            reader.differs("auth-tls-verify-client", sentence);
        }
        Some("optional_no_ca") => {
            let sentence = "any certificate is accepted, but servers are not told about it";
            reader.differs("auth-tls-verify-client", sentence);
        }
        _ => {}
    }
}

fn judge_details(reader: &mut AnnotationReader<'_>) {
    if reader.value("auth-tls-verify-depth").is_some_and(|depth| parse_count(depth).is_some()) {
        let sentence = "chains may have up to 6 intermediate certificates that the authority vouches for; \
                        pathLenConstraint of the authority bounds them";
        reader.differs("auth-tls-verify-depth", sentence);
    } else {
        reader.refused("auth-tls-verify-depth", "the value is not a number");
    }
    match reader.value("auth-tls-pass-certificate-to-upstream").map(parse_switch) {
        Some(Some(true)) => {
            let sentence = "servers get X-Tallygate-Caller, the identity in the certificate, and none of ssl-client-*";
            reader.lost("auth-tls-pass-certificate-to-upstream", sentence);
        }
        _ => reader.taken("auth-tls-pass-certificate-to-upstream", "off"),
    }
    if reader.value("auth-tls-error-page").is_some_and(|page| !page.is_empty()) {
        reader.lost("auth-tls-error-page", "a wrong certificate fails the handshake, so no page can be shown");
    } else {
        reader.taken("auth-tls-error-page", "empty");
    }
    if reader.value("auth-tls-match-cn").is_some_and(|pattern| !pattern.is_empty()) {
        reader.refused("auth-tls-match-cn", "every certificate of the authority would be accepted");
    } else {
        reader.taken("auth-tls-match-cn", "empty");
    }
}

//! Annotations of ingress-nginx (`nginx.ingress.kubernetes.io/*`), as keys of the configuration and as findings.
//!
//! Guarantees:
//! - Pure: an Ingress and its annotations in, a plan and findings out. No index, no clock.
//! - Every annotation with the prefix has exactly one finding: taken, differs or lost, with one sentence.
//! - What would let more callers through if it were ignored refuses the Ingress: it fails closed.
//!
//! Leaves to others: Secrets, ConfigMaps, backends and documents (`ingresses`).

mod address_limits;
mod annotation_reader;
mod bandwidth;
mod canary;
mod catalogue;
mod client_auth;
mod commands;
mod paths;
mod redirects;
mod session_cookie;
#[cfg(test)]
mod tests;
mod upstream;
mod values;

use serde_json::{Map, Value};

pub use self::annotation_reader::{AnnotationCounts, AnnotationMap, FindingVerdict, NginxFinding, PREFIX};
pub(super) use self::canary::CanaryPlan;
pub use self::catalogue::global_findings;
pub(super) use self::client_auth::ClientAuthPlan;
pub(super) use self::paths::{PathPlan, held_paths};
pub(super) use self::redirects::{HttpsScope, RedirectPlan};
pub(super) use self::upstream::UpstreamPlan;

use self::annotation_reader::AnnotationReader;
use crate::kube::objects::Ingress;

/// What the annotations of an Ingress ask for.
#[derive(Clone, Debug, Default)]
pub struct NginxPlan {
    /// What becomes of each annotation.
    pub findings: Vec<NginxFinding>,
    /// Redirects instead of forwarding.
    pub(super) redirects: RedirectPlan,
    /// For each rule of the Ingress, and for each of its paths, the match and the rewrite.
    pub(super) paths: Vec<Vec<PathPlan>>,
    /// More hosts.
    pub(super) aliases: Vec<String>,
    /// Keys of all commands that are forwarded.
    pub(super) command: Map<String, Value>,
    /// The host that is forwarded.
    pub(super) upstream_host: Option<String>,
    /// The ConfigMap with fields of responses.
    pub(super) custom_headers: Option<String>,
    /// How servers are called.
    pub(super) upstream: UpstreamPlan,
    /// Client certificates.
    pub(super) client_auth: Option<ClientAuthPlan>,
    /// This Ingress is a canary of another one.
    pub(super) canary: Option<CanaryPlan>,
}

impl NginxPlan {
    /// Whether the Ingress is refused.
    pub fn refuses(&self) -> bool {
        self.findings.iter().any(|finding| finding.refuses)
    }

    /// Whether the annotations ask for client certificates, whatever becomes of them.
    pub(super) fn asks_for_client_certificates(&self) -> bool {
        let mut findings = self.findings.iter().filter(|finding| finding.verdict != FindingVerdict::Taken);
        self.client_auth.is_some() || findings.any(|finding| finding.annotation == "auth-tls-secret")
    }

    /// Whether paths are regular expressions.
    pub(super) fn uses_regex(&self) -> bool {
        self.findings.iter().any(|finding| matches!(finding.annotation.as_str(), "use-regex" | "rewrite-target"))
    }
}

/// Reads the annotations of an Ingress in this namespace.
pub fn read_annotations(namespace: &str, ingress: &Ingress, annotations: &AnnotationMap) -> NginxPlan {
    let mut reader = AnnotationReader { namespace, annotations, findings: Vec::new() };
    let canary = canary::read_canary(&mut reader);
    let client_auth = client_auth::read_client_auth(&mut reader, ingress);
    let mut plan = NginxPlan {
        redirects: redirects::read_redirects(&mut reader, ingress),
        paths: paths::read_paths(&mut reader, ingress),
        aliases: commands::read_aliases(&mut reader),
        command: commands::read_command_keys(&mut reader),
        upstream_host: commands::read_upstream_host(&mut reader),
        custom_headers: commands::read_custom_headers(&mut reader),
        upstream: upstream::read_upstream(&mut reader),
        client_auth,
        canary,
        findings: Vec::new(),
    };
    catalogue::judge_others(&mut reader);
    plan.findings = reader.findings;
    plan.findings.sort_by(|a, b| a.annotation.cmp(&b.annotation));
    plan
}

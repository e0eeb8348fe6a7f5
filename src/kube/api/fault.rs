//! What can go wrong with a request to the API server, and what an operator does about it.
//!
//! Guarantees:
//! - The text of each fault names the kind and the remedy.
//! - No text holds the body of an answer: that could be a Secret.
//!
//! Leaves to others:
//! - when to log and when to try again: the caller.

use kube::core::Status;

use crate::kube::objects::{ApiVersions, OWN_GROUP, ObjectKind};

/// The longest message of the API server in a text, in bytes.
const MESSAGE_BYTES_MAX: usize = 300;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// The cluster serves no version of the kind that we can read.
    MissingApi,
    /// The path is not there: the version was withdrawn, or its CRD was removed.
    NotFound,
    /// The service account lacks a permission.
    Forbidden(String),
    /// The credentials were refused.
    Unauthorized(String),
    /// The version from which to go on is too old. A new list follows.
    Expired,
    /// Another write came first (409).
    Conflict,
    /// Another refusal, with its HTTP status.
    Refused(u16, String),
    /// Nothing came for longer than the watch lasts, or a request was not answered.
    Silent,
    /// An answer was not what the API promises.
    Malformed(String),
    /// No connection, or a broken one.
    Unreachable(String),
}

/// What a request needs: a resource of the API, and the permission for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequiredAccess {
    /// The place of the resource in the API.
    pub(crate) api: ApiVersions,
    /// The subresource with its slash, or empty: `/status`.
    pub(crate) part: &'static str,
    /// The verbs of the permission, as in a rule of RBAC.
    pub(crate) verbs: &'static [&'static str],
    /// The kind of object that holds the permission.
    pub(crate) role: &'static str,
}

impl RequiredAccess {
    /// Reading the objects of a kind.
    pub(crate) fn watch(kind: ObjectKind) -> Self {
        Self { api: kind.api(), part: "", verbs: &["get", "list", "watch"], role: "ClusterRole" }
    }

    /// Writing the status of a kind.
    pub(crate) fn status(kind: ObjectKind) -> Self {
        Self { part: "/status", verbs: &["patch"], ..Self::watch(kind) }
    }

    /// Applying and deleting the objects of a kind.
    pub(crate) fn apply(kind: ObjectKind) -> Self {
        Self { verbs: &["create", "patch", "delete"], ..Self::watch(kind) }
    }
}

impl ApiFault {
    /// What happened and what to do, for the log.
    pub(crate) fn advice(&self, access: &RequiredAccess) -> String {
        let RequiredAccess { api, part, verbs, role } = access;
        let (kind, group, plural) = (api.kind, api.group, api.plural);
        match self {
            Self::NotFound if verbs.contains(&"create") => {
                format!("{kind} cannot be written: its namespace does not exist")
            }
            Self::MissingApi | Self::NotFound if group == OWN_GROUP => format!(
                "the cluster does not serve {kind} ({group}, {}): install it with `tallygate crds | kubectl apply \
                 --server-side -f -`, or ignore this if no {kind} is used. It is looked for again",
                api.versions.join(", ")
            ),
            Self::MissingApi | Self::NotFound => format!(
                "the cluster does not serve {kind} ({group}, {}): install its CRD, or ignore this if no {kind} is used. \
                 It is looked for again",
                api.versions.join(", ")
            ),
            Self::Forbidden(message) => format!(
                "no permission for {kind}{part}: add to the {role} of the service account the rule {{apiGroups: \
                 [\"{group}\"], resources: [\"{plural}{part}\"], verbs: {verbs:?}}} ({message})"
            ),
            Self::Unauthorized(message) => format!(
                "the API server refused the credentials for {kind}: look at the token of the service account \
                 ({message})"
            ),
            Self::Expired => format!("the watch of {kind} is too far behind: all objects are listed again"),
            Self::Conflict => format!("another write to {kind}{part} came first"),
            Self::Refused(status, message) => {
                format!("the API server answered {status} to a request for {kind}{part}: {message}")
            }
            Self::Silent => format!("nothing came for {kind}{part} in time"),
            Self::Malformed(why) => format!("an answer for {kind}{part} is malformed: {why}"),
            Self::Unreachable(why) => {
                format!("the API server cannot be reached for {kind}{part}: {why}. Traffic goes on with what is known")
            }
        }
    }
}

impl From<&Status> for ApiFault {
    fn from(status: &Status) -> Self {
        let message = bounded(&status.message);
        match status.code {
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            404 => Self::NotFound,
            409 => Self::Conflict,
            410 => Self::Expired,
            _ if status.reason == "Expired" || status.reason == "Gone" => Self::Expired,
            code => Self::Refused(code, message),
        }
    }
}

impl From<kube::Error> for ApiFault {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(&*status),
            kube::Error::SerdeError(error) => Self::Malformed(bounded(&error.to_string())),
            kube::Error::FromUtf8(_) => Self::Malformed("not UTF-8".to_owned()),
            error => Self::Unreachable(bounded(&with_sources(&error))),
        }
    }
}

/// The text of an error with the texts of its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

fn bounded(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_permission_names_the_rule_that_the_request_needs() {
        let rule = |access: RequiredAccess| ApiFault::Forbidden("denied".to_owned()).advice(&access);

        let status = rule(RequiredAccess::status(ObjectKind::HttpRoute));
        assert!(status.contains(r#"resources: ["httproutes/status"], verbs: ["patch"]}"#), "{status}");
        let apply = rule(RequiredAccess::apply(ObjectKind::EndpointSlice));
        assert!(apply.contains(r#"["discovery.k8s.io"], resources: ["endpointslices"]"#), "{apply}");
        assert!(apply.contains(r#"verbs: ["create", "patch", "delete"]}"#), "{apply}");
    }
}

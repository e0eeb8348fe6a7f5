//! Which version of a kind the cluster serves, and the path of its objects.
//!
//! Guarantees:
//! - Of the versions that the types can read, the newest that the cluster serves.
//! - Kinds that every cluster has are not asked for.
//!
//! Leaves to others:
//! - what to do about a missing kind: the caller.

use std::time::Duration;

use kube::Client;
use tokio::time::timeout;

use super::fault::ApiFault;
use crate::kube::objects::{ApiVersions, ObjectKey, ObjectKind};

/// The time for the answer to a question about versions.
const DISCOVERY_TIME: Duration = Duration::from_secs(10);

/// Finds the version and the path of a kind.
///
/// # Errors
///
/// [`ApiFault::MissingApi`] if the cluster serves none of the versions, and faults of the connection.
pub(crate) async fn find_path(client: &Client, kind: ObjectKind) -> Result<ApiPath, ApiFault> {
    let api = kind.api();
    if !is_custom(&api) {
        return Ok(ApiPath::new(api, api.versions[0]));
    }
    for version in api.versions {
        let group_version = format!("{}/{version}", api.group);
        let question = client.list_api_group_resources(&group_version);
        let answer = timeout(DISCOVERY_TIME, question).await.map_err(|_| ApiFault::Silent)?;
        match answer.map_err(ApiFault::from) {
            Ok(list) if list.resources.iter().any(|resource| resource.name == api.plural) => {
                return Ok(ApiPath::new(api, version));
            }
            Ok(_) | Err(ApiFault::NotFound) => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(ApiFault::MissingApi)
}

/// Whether the kind comes with a CRD.
fn is_custom(api: &ApiVersions) -> bool {
    !matches!(api.group, "" | "networking.k8s.io" | "discovery.k8s.io")
}

/// The version of a kind that the cluster serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiPath {
    api: ApiVersions,
    version: &'static str,
}

impl ApiPath {
    fn new(api: ApiVersions, version: &'static str) -> Self {
        Self { api, version }
    }

    /// The group and the version as objects carry them.
    pub(crate) fn api_version(&self) -> String {
        if self.api.group.is_empty() {
            return self.version.to_owned();
        }
        format!("{}/{}", self.api.group, self.version)
    }

    /// The path of the objects in one namespace, or in all.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let (root, plural) = (self.root(), self.api.plural);
        namespace
            .map_or_else(|| format!("{root}/{plural}"), |namespace| format!("{root}/namespaces/{namespace}/{plural}"))
    }

    /// The path of the status of an object.
    pub(crate) fn status(&self, key: &ObjectKey) -> String {
        let (root, plural) = (self.root(), self.api.plural);
        if self.api.namespaced {
            return format!("{root}/namespaces/{}/{plural}/{}/status", key.namespace, key.name);
        }
        format!("{root}/{plural}/{}/status", key.name)
    }

    fn root(&self) -> String {
        let prefix = if self.api.group.is_empty() { "/api" } else { "/apis" };
        format!("{prefix}/{}", self.api_version())
    }
}

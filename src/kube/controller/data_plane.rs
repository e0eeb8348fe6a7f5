//! The data plane of this process, as the controller sees it.
//!
//! Guarantees: `apply` returns when the configuration is live, or when it is known why it is not.
//!
//! Leaves to others: the implementation (`app`).

use std::collections::BTreeSet;

use crate::config::{ConfigProblems, ExcludedSource};
use crate::kube::objects::ObjectKey;
use crate::kube::translate::{DocumentList, MemoryTextMap};
use crate::policy::ServiceEndpoints;

/// Services, each with all its endpoints.
pub type EndpointList = Vec<(ObjectKey, ServiceEndpoints)>;

/// The data plane of this process.
pub trait DataPlane: Send + Sync {
    /// Replaces the documents of the cluster and the texts that they name, and waits until they are live. `version`
    /// differs whenever the documents or texts differ.
    ///
    /// # Errors
    /// The problems, if the configuration is rejected as a whole. The previous one stays live.
    fn apply(
        &self,
        version: &str,
        documents: &DocumentList,
        texts: &MemoryTextMap,
    ) -> Result<Vec<ExcludedSource>, ConfigProblems>;

    /// Replaces the endpoints of these services, at once: the next command sees them. A backend of the documents names
    /// a service and a port, and has the endpoints that were set last, before or after the documents.
    fn set_endpoints(&self, changes: EndpointList);

    /// Replaces the endpoints of all services.
    fn replace_endpoints(&self, all: EndpointList);

    /// Sets the endpoints of an earlier process. Does nothing once those of the cluster are known: these are newer.
    fn seed_endpoints(&self, all: EndpointList);

    /// The names of the listeners that are bound and accept connections.
    fn live_listeners(&self) -> BTreeSet<String>;

    /// Makes the gateway ready: a configuration of the cluster is live. It stays ready.
    fn set_ready(&self);
}

/// What became of the last configuration.
#[derive(Clone, Debug, Default)]
pub struct AppliedConfig {
    /// The documents that are left out, with their problems.
    pub excluded: Vec<ExcludedSource>,
    /// Why the configuration was rejected as a whole, if it was.
    pub rejected: Option<String>,
    /// The listeners that are bound.
    pub live_listeners: BTreeSet<String>,
}

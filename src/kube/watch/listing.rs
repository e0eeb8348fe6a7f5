//! Requests of a watch: a page of a list, and a stream of events.
//!
//! Guarantees:
//! - Each request has a time; the wait for the next event has one too.
//! - Objects stay JSON.
//!
//! Leaves to others:
//! - the order of requests: `kind_watch`.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::kube::api::{ApiFault, ApiPath};
use crate::kube::objects::{ObjectKey, ObjectKind};

/// The time for a page.
const PAGE_TIME: Duration = Duration::from_secs(60);

/// The time until the head of the answer to a watch.
const OPEN_TIME: Duration = Duration::from_secs(30);

/// Objects of a page.
const PAGE_OBJECTS: u32 = 500;

/// Objects of a page of Secrets or ConfigMaps, which can have 1 MiB each.
const PAGE_LARGE_OBJECTS: u32 = 50;

/// Without Secrets that hold no certificate, CA or list of ours: releases of Helm and tokens are most of the bytes of a
/// cluster.
const SECRET_SELECTOR: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                               type!=kubernetes.io/dockerconfigjson,type!=kubernetes.io/dockercfg,\
                               type!=bootstrap.kubernetes.io/token";

/// The CA of the API server, which lies in every namespace.
const CONFIG_MAP_SELECTOR: &str = "metadata.name!=kube-root-ca.crt";

/// Events of a watch.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<WatchEvent<Value>, kube::Error>> + Send>>;

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct ListPage {
    #[serde(default)]
    pub(super) metadata: PagePosition,
    #[serde(default)]
    pub(super) items: Option<Vec<Value>>,
}

/// Where a list stands.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PagePosition {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next_page: Option<String>,
}

/// What is listed and watched.
#[derive(Debug)]
pub(super) struct ListedKind {
    pub(super) kind: ObjectKind,
    pub(super) path: ApiPath,
    /// The namespace; `None` for the whole cluster.
    pub(super) namespace: Option<String>,
}

impl ListedKind {
    /// Reads a page.
    ///
    /// # Errors
    ///
    /// Refusals, and faults of the connection.
    pub(super) async fn read_page(&self, client: &Client, page: Option<String>) -> Result<ListPage, ApiFault> {
        let params = ListParams {
            field_selector: self.selector(),
            limit: Some(self.page_objects()),
            continue_token: page,
            ..ListParams::default()
        };
        let request = Request::new(self.path.collection(self.namespace.as_deref())).list(&params);
        let request = request.map_err(|error| ApiFault::from(kube::Error::BuildRequest(error)))?;
        // The client would log the text of an answer that it cannot parse, and this may be Secrets.
        let text = timeout(PAGE_TIME, client.request_text(request)).await;
        let text = text.map_err(|_| ApiFault::Silent)??;
        serde_json::from_str(&text).map_err(|error| kube::Error::SerdeError(error).into())
    }

    /// Opens a watch that begins after `version`; without a version it begins with all objects and a bookmark.
    ///
    /// # Errors
    ///
    /// Refusals, and faults of the connection.
    pub(super) async fn open(
        &self,
        client: &Client,
        version: Option<&str>,
        time: Duration,
    ) -> Result<EventStream, ApiFault> {
        let params = WatchParams {
            field_selector: self.selector(),
            timeout: u32::try_from(time.as_secs()).ok(),
            send_initial_events: version.is_none(),
            ..WatchParams::default()
        };
        let request =
            Request::new(self.path.collection(self.namespace.as_deref())).watch(&params, version.unwrap_or_default());
        let request = request.map_err(|error| ApiFault::from(kube::Error::BuildRequest(error)))?;
        let stream = timeout(OPEN_TIME, client.request_events::<Value>(request)).await;
        Ok(stream.map_err(|_| ApiFault::Silent)??.boxed())
    }

    fn selector(&self) -> Option<String> {
        match self.kind {
            ObjectKind::Secret => Some(SECRET_SELECTOR.to_owned()),
            ObjectKind::ConfigMap => Some(CONFIG_MAP_SELECTOR.to_owned()),
            _ => None,
        }
    }

    fn page_objects(&self) -> u32 {
        match self.kind {
            ObjectKind::Secret | ObjectKind::ConfigMap => PAGE_LARGE_OBJECTS,
            _ => PAGE_OBJECTS,
        }
    }
}

/// Waits for the next event. `None`: the server ended the watch.
///
/// # Errors
///
/// [`ApiFault::Silent`] after `idle`, errors in the stream, and faults of the connection.
pub(super) async fn next_event(
    stream: &mut EventStream,
    idle: Duration,
) -> Result<Option<WatchEvent<Value>>, ApiFault> {
    match timeout(idle, stream.next()).await {
        Err(_) => Err(ApiFault::Silent),
        Ok(None) => Ok(None),
        Ok(Some(Ok(WatchEvent::Error(status)))) => Err(ApiFault::from(&*status)),
        Ok(Some(event)) => Ok(Some(event?)),
    }
}

/// The key in the metadata of an object.
pub(super) fn key_of(object: &Value) -> ObjectKey {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

/// The resource version in the metadata of an object.
pub(super) fn version_of(object: &Value) -> Option<&str> {
    object["metadata"]["resourceVersion"].as_str().filter(|version| !version.is_empty())
}

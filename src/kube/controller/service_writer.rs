//! Writes the Services of Gateways with their EndpointSlices: those that differ from what they should be, and the end
//! of abandoned ones.
//!
//! Guarantees:
//! - A Service that is as it should be is not written. A write is a server-side apply under a name of our own, so
//!   fields that others set (node ports, addresses) stay.
//! - At most one round of writes at a time, each write with a time limit.
//!
//! Leaves to others: what the Services are (`translate`), and who leads (`lease`).

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::kube::api::{ApiFault, RequiredAccess};
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::translate::{ServicePlan, Translation};

/// The name under which fields are applied.
const FIELD_MANAGER: &str = "tallygate";
/// The time for one write.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// Writes Services.
#[derive(Clone)]
pub(super) struct ServiceWriter {
    client: Client,
    /// One permit: a round of writes at a time.
    rounds: Arc<Semaphore>,
}

impl ServiceWriter {
    pub(super) fn new(client: Client) -> Self {
        Self { client, rounds: Arc::new(Semaphore::new(1)) }
    }

    /// Starts a round of writes, unless one is running or nothing differs. The next translation starts another one.
    pub(super) fn start_round(&self, translation: &Translation) {
        let is_stale = |service: &&ServicePlan| !service.is_current || !service.is_slice_current;
        let stale: Vec<ServicePlan> = translation.services.iter().filter(is_stale).cloned().collect();
        let abandoned = translation.abandoned_services.clone();
        if stale.is_empty() && abandoned.is_empty() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.rounds).try_acquire_owned() else { return };
        let client = self.client.clone();
        tokio::spawn(async move {
            for service in &stale {
                note(&service.service, write_service(&client, service).await);
            }
            for service in &abandoned {
                note(service, delete_service(&client, service).await);
            }
            drop(permit);
        });
    }
}

/// Logs the end of a write; a failed one has the kind of the object that could not be written.
fn note(service: &ObjectKey, result: Result<(), (ObjectKind, ApiFault)>) {
    match result {
        Ok(()) => tracing::debug!(%service, "the Service of a Gateway was written"),
        Err((kind, fault)) => {
            let advice = fault.advice(&RequiredAccess::apply(kind));
            tracing::warn!(%service, advice, "the Service of a Gateway could not be written; it is tried again");
        }
    }
}

/// Writes the Service, then its EndpointSlice, as far as each differs.
async fn write_service(client: &Client, plan: &ServicePlan) -> Result<(), (ObjectKind, ApiFault)> {
    if !plan.is_current {
        let written = apply(client, &service_path(&plan.service), &plan.wanted).await;
        written.map_err(|fault| (ObjectKind::Service, fault))?;
    }
    if !plan.is_slice_current {
        let written = apply(client, &slice_path(&plan.service), &plan.wanted_slice).await;
        written.map_err(|fault| (ObjectKind::EndpointSlice, fault))?;
    }
    Ok(())
}

async fn apply(client: &Client, path: &str, wanted: &Value) -> Result<(), ApiFault> {
    let path = format!("{path}?fieldManager={FIELD_MANAGER}&force=true");
    request(client, (Method::PATCH, &path), wanted.to_string().into_bytes()).await
}

async fn delete_service(client: &Client, service: &ObjectKey) -> Result<(), (ObjectKind, ApiFault)> {
    let paths = [(ObjectKind::Service, service_path(service)), (ObjectKind::EndpointSlice, slice_path(service))];
    for (kind, path) in paths {
        match request(client, (Method::DELETE, &path), Vec::new()).await {
            Ok(()) | Err(ApiFault::NotFound) => {}
            Err(fault) => return Err((kind, fault)),
        }
    }
    Ok(())
}

fn service_path(service: &ObjectKey) -> String {
    format!("/api/v1/namespaces/{}/services/{}", service.namespace, service.name)
}

fn slice_path(service: &ObjectKey) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{}", service.namespace, service.name)
}

async fn request(client: &Client, (method, path): (Method, &str), body: Vec<u8>) -> Result<(), ApiFault> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/apply-patch+yaml")
        .body(body)
        .map_err(|error| ApiFault::Malformed(error.to_string()))?;
    let answer = timeout(WRITE_TIME, client.request::<Value>(request)).await.map_err(|_| ApiFault::Silent)?;
    answer.map(|_| ()).map_err(ApiFault::from)
}

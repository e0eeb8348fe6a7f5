//! Leadership: a Lease that one of several gateways holds.
//!
//! Guarantees:
//! - Every change is a PUT with the version that was read: of two gateways that try at once one is refused.
//! - A holder that could not renew for [`LeaseTimes::renew`] does not lead any more; others take over only after
//!   [`LeaseTimes::duration`]. Whether a lease has run out is measured on the own monotonic clock, from the moment at
//!   which a change of it was seen: clocks of machines need not agree.
//! - Traffic does not depend on it. Whatever fails is tried again.
//!
//! Leaves to others:
//! - what only a leader does: the receiver.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::api::{ApiFault, RequiredAccess};
use super::objects::ApiVersions;
use crate::clock::Clock;

/// What the requests for the Lease need. It is only used in the gateway's own namespace.
const LEASE_ACCESS: RequiredAccess = RequiredAccess {
    api: ApiVersions {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        versions: &["v1"],
        namespaced: true,
    },
    part: "",
    verbs: &["get", "create", "update"],
    role: "Role",
};

/// The times of a lease. Each must be well below the one before: duration, renew, retry.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTimes {
    /// After this time without a renewal others may take over. At least 1 s.
    pub duration: Duration,
    /// After this time without a renewal the holder stops leading.
    pub renew: Duration,
    /// The time between two tries.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// Which Lease, and who we are.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub name: String,
    /// Our name, different for each process: the name of the pod and something random.
    pub identity: String,
    /// The times.
    pub times: LeaseTimes,
}

/// A running election.
#[derive(Debug)]
pub struct LeaseElection {
    /// Whether this process leads.
    pub is_leader: watch::Receiver<bool>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl LeaseElection {
    /// Starts to compete for the lease. Must be called on a tokio runtime.
    pub fn start(client: Client, settings: LeaseSettings, clock: Clock) -> Self {
        let (leads, is_leader) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let candidate = Candidate { client, settings: Arc::new(settings), clock, leads, seen: None, is_faulty: false };
        Self { is_leader, stop: Some(stop), task: tokio::spawn(candidate.run(stopped)) }
    }

    /// Stops leading and releases the lease, so that another gateway leads at once. Takes at most the retry time.
    pub async fn release(mut self) {
        self.stop.take();
        // The task ends by itself; it cannot fail but by a panic, which leaves nothing to release.
        let _ = (&mut self.task).await;
    }
}

impl Drop for LeaseElection {
    fn drop(&mut self) {
        if self.stop.is_some() {
            self.task.abort();
        }
    }
}

struct Candidate {
    client: Client,
    settings: Arc<LeaseSettings>,
    clock: Clock,
    leads: watch::Sender<bool>,
    /// The version of the lease that was seen last, and when it was first seen.
    seen: Option<(String, Instant)>,
    is_faulty: bool,
}

/// A lease as it was read.
struct ReadLease {
    object: Value,
    version: String,
}

impl Candidate {
    async fn run(mut self, stopped: oneshot::Receiver<()>) {
        let times = self.settings.times;
        let mut renewed: Option<Instant> = None;
        let compete = async {
            loop {
                let begun = Instant::now();
                // A holder must notice in time that it cannot renew, also while a request hangs.
                let end = renewed.map_or(begun + times.renew, |renewed| renewed + times.renew);
                match timeout_at(end, timeout(times.renew / 2, self.try_once())).await {
                    Ok(Ok(Ok(true))) => {
                        renewed = Some(begun);
                        self.note(None);
                    }
                    Ok(Ok(Ok(false))) => {
                        renewed = None;
                        self.note(None);
                    }
                    Ok(Ok(Err(fault))) => self.note(Some(&fault)),
                    Ok(Err(_)) | Err(_) => self.note(Some(&ApiFault::Silent)),
                }
                renewed = renewed.filter(|renewed| renewed.elapsed() < times.renew);
                self.leads.send_if_modified(|leads| std::mem::replace(leads, renewed.is_some()) != renewed.is_some());
                let pause = renewed
                    .map_or(times.retry, |renewed| times.retry.min(times.renew.saturating_sub(renewed.elapsed())));
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = compete => {}
            _ = stopped => {}
        }
        if self.leads.send_replace(false) {
            let _ = timeout(times.retry, self.give_back()).await;
        }
    }

    /// Reads the lease, and takes or renews it if that is permitted. Returns whether we hold it. After a conflict the
    /// lease is read again: it may have been another one's change of a label.
    async fn try_once(&mut self) -> Result<bool, ApiFault> {
        match self.take_or_renew().await {
            Err(ApiFault::Conflict) => match self.take_or_renew().await {
                Err(ApiFault::Conflict) => Ok(false),
                result => result,
            },
            result => result,
        }
    }

    async fn take_or_renew(&mut self) -> Result<bool, ApiFault> {
        let Some(lease) = self.read().await? else {
            return self.create().await.map(|()| true);
        };
        let holder = lease.object["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let is_ours = holder == self.settings.identity;
        if !is_ours && !holder.is_empty() && !self.has_run_out(&lease) {
            return Ok(false);
        }
        self.write(lease, &self.settings.identity, !is_ours).await.map(|()| true)
    }

    /// Whether the lease was not renewed for its whole duration, as far as we have seen.
    fn has_run_out(&mut self, lease: &ReadLease) -> bool {
        let now = Instant::now();
        let seconds = lease.object["spec"]["leaseDurationSeconds"].as_u64();
        let duration = seconds.map_or(self.settings.times.duration, Duration::from_secs);
        match &self.seen {
            Some((version, since)) if *version == lease.version => now.duration_since(*since) >= duration,
            _ => {
                self.seen = Some((lease.version.clone(), now));
                false
            }
        }
    }

    async fn read(&self) -> Result<Option<ReadLease>, ApiFault> {
        match self.request(Method::GET, &self.path(), None).await {
            Ok(object) if object.is_object() && (object["spec"].is_object() || object["spec"].is_null()) => {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
                Ok(Some(ReadLease { object, version }))
            }
            Ok(_) => Err(ApiFault::Malformed("the lease is no object".to_owned())),
            Err(ApiFault::NotFound) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn create(&self) -> Result<(), ApiFault> {
        let now = self.now();
        let body = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": self.settings.name, "namespace": self.settings.namespace },
            "spec": {
                "holderIdentity": self.settings.identity,
                "leaseDurationSeconds": self.settings.times.duration.as_secs().max(1),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        });
        self.request(Method::POST, &self.collection(), Some(&body)).await.map(|_| ())
    }

    /// Writes the lease that was read, with another holder or another time.
    async fn write(&self, lease: ReadLease, holder: &str, is_transition: bool) -> Result<(), ApiFault> {
        let mut object = lease.object;
        let now = self.now();
        let spec = &mut object["spec"];
        let transitions = spec["leaseTransitions"].as_u64().unwrap_or_default();
        if is_transition {
            spec["acquireTime"] = json!(now);
            spec["leaseTransitions"] = json!(transitions + 1);
        }
        spec["holderIdentity"] = json!(holder);
        spec["leaseDurationSeconds"] = json!(self.settings.times.duration.as_secs().max(1));
        spec["renewTime"] = json!(now);
        self.request(Method::PUT, &self.path(), Some(&object)).await.map(|_| ())
    }

    async fn give_back(&self) -> Result<(), ApiFault> {
        let lease = self.read().await?;
        match lease.filter(|lease| lease.object["spec"]["holderIdentity"] == *self.settings.identity) {
            Some(lease) => self.write(lease, "", false).await,
            None => Ok(()),
        }
    }

    async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ApiFault> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = Request::builder().method(method).uri(path);
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        Ok(self.client.request(request.map_err(kube::Error::HttpError)?).await?)
    }

    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.settings.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.settings.name)
    }

    /// The time as the API writes it for leases.
    fn now(&self) -> String {
        self.clock.wall().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    /// Logs a fault when it begins and when it is over.
    fn note(&mut self, fault: Option<&ApiFault>) {
        let was_faulty = std::mem::replace(&mut self.is_faulty, fault.is_some());
        let LeaseSettings { namespace, name, .. } = &*self.settings;
        match fault {
            Some(fault) if !was_faulty => tracing::warn!(
                "the lease {namespace}/{name} cannot be renewed: {}. Another gateway may write status meanwhile; traffic \
                 does not depend on it",
                fault.advice(&LEASE_ACCESS)
            ),
            None if was_faulty => tracing::info!("the lease {namespace}/{name} works again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;

//! The same against a real API server: what no fake can prove.
//!
//! Needs a cluster with the CRDs of the Gateway API, and its kubeconfig. `make cluster-test` runs it
//! (`tests/cluster/real-api.sh`) in the network namespace of a test cluster.

use std::time::Duration;

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::CONTROLLER_NAME;
use super::api::connect;
use super::events::{EventReporter, ObjectEvent};
use super::index::Index;
use super::lease::{LeaseElection, LeaseSettings, LeaseTimes};
use super::objects::{ObjectKey, ObjectKind, ParentReference};
use super::status::{
    StatusQueue, WantedCondition, WantedIngress, WantedParent, WantedStatus, WriteTimes, compare_status,
    run_status_writer,
};
use super::watch::{RunningWatches, WatchTimes, start_watches};
use crate::clock::Clock;

const WAIT_MAX: Duration = Duration::from_secs(30);

async fn send(client: &Client, method: &str, path: &str, body: Value) -> Value {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap()
}

/// Applies events until `is_done`.
async fn follow(watches: &mut RunningWatches, index: &mut Index, is_done: impl Fn(&Index) -> bool) {
    let events = async {
        while !is_done(index) {
            let change = tokio::select! {
                event = watches.events.recv() => index.take(event.unwrap()),
                event = watches.endpoint_events.recv() => index.take(event.unwrap()),
            };
            drop(change);
        }
    };
    timeout(WAIT_MAX, events).await.unwrap_or_else(|_| panic!("{:?}", watches.gauge.health()));
}

fn accepted() -> WantedCondition {
    WantedCondition::new("Accepted", true, "Accepted", "in order", 1)
}

fn route_status() -> WantedStatus {
    let parent: ParentReference = serde_json::from_value(json!({ "name": "g" })).unwrap();
    WantedStatus::Route(vec![WantedParent { parent, conditions: vec![accepted()] }])
}

#[tokio::test]
#[ignore = "needs a cluster: make cluster-test"]
async fn watches_status_lease_and_events_work_with_a_real_api_server() {
    let client = connect().await.unwrap();
    let (routes, ingresses) = (
        "/apis/gateway.networking.k8s.io/v1/namespaces/default/httproutes",
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
    );
    let mut watches = start_watches(&client, &ObjectKind::ALL, WatchTimes::default());
    let mut index = Index::default();
    follow(&mut watches, &mut index, |index| ObjectKind::ALL.iter().all(|kind| index.is_synced(*kind))).await;
    assert!(index.namespaces().valid(&ObjectKey::cluster_wide("default")).is_some());
    assert!(!index.endpoints_of("default", "kubernetes", 443).is_empty());

    let name = format!("t{:x}", Clock::system().wall().as_millisecond());
    let key = ObjectKey::new("default", &name);
    send(
        &client,
        "POST",
        routes,
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": name }, "spec": { "parentRefs": [{ "name": "g" }], "hostnames": ["a.example"] } }),
    )
    .await;
    send(
        &client,
        "POST",
        ingresses,
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": { "name": name, "annotations": { "of": "others" }, "labels": { "of": "others" } },
        "spec": { "rules": [{ "host": "b.example" }] } }),
    )
    .await;
    let are_there =
        |index: &Index| index.http_routes().valid(&key).is_some() && index.ingresses().valid(&key).is_some();
    follow(&mut watches, &mut index, are_there).await;

    let queue = StatusQueue::default();
    let writer = tokio::spawn(run_status_writer(client.clone(), queue.clone(), WriteTimes::default()));
    queue.set_leader(true);
    let now = Clock::system().wall();
    let address = serde_json::from_value(json!({ "ip": "10.1.2.3" })).unwrap();
    let ingress_status = WantedStatus::Ingress(WantedIngress { addresses: vec![address], former: vec![] });
    let route_update = |index: &Index| {
        let fact = index.http_routes().get(&key).unwrap();
        compare_status(ObjectKind::HttpRoute, fact, &route_status(), CONTROLLER_NAME, now)
    };
    let ingress_update = |index: &Index| {
        let fact = index.ingresses().get(&key).unwrap();
        compare_status(ObjectKind::Ingress, fact, &ingress_status, CONTROLLER_NAME, now)
    };
    queue.submit(route_update(&index).unwrap());
    queue.submit(ingress_update(&index).unwrap());
    let are_equal = |index: &Index| route_update(index).is_none() && ingress_update(index).is_none();
    follow(&mut watches, &mut index, are_equal).await;
    let spec = send(&client, "GET", &format!("{routes}/{name}"), Value::Null).await;
    assert_eq!(spec["spec"]["hostnames"], json!(["a.example"]), "the specification is as it was");
    let metadata = send(&client, "GET", &format!("{ingresses}/{name}"), Value::Null).await["metadata"].take();
    let of_others = json!({ "of": "others" });
    assert_eq!((&metadata["annotations"], &metadata["labels"]), (&of_others, &of_others), "they are as they were");
    assert_eq!((queue.counts().written, queue.counts().failed), (2, 0));
    writer.abort();

    let mut reporter = EventReporter::start(client.clone(), "test", Clock::system());
    let meta = &index.http_routes().get(&key).unwrap().meta;
    let fault = ("UnsupportedValue".into(), "rule 1".to_owned());
    reporter.report(ObjectEvent::about(ObjectKind::HttpRoute, meta, fault));
    let counters = std::sync::Arc::clone(reporter.counters());
    let written = async {
        while counters.written.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WAIT_MAX, written).await.unwrap();

    let settings = LeaseSettings {
        namespace: "default".to_owned(),
        name: name.clone(),
        identity: "test".to_owned(),
        times: LeaseTimes::default(),
    };
    let mut election = LeaseElection::start(client.clone(), settings, Clock::system());
    timeout(WAIT_MAX, election.is_leader.wait_for(|leads| *leads)).await.unwrap().unwrap();
    election.release().await;
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/default/leases/{name}");
    // The server omits an empty holder.
    assert_eq!(
        send(&client, "GET", &lease, Value::Null).await["spec"]["holderIdentity"].as_str().unwrap_or_default(),
        ""
    );

    for path in [format!("{routes}/{name}"), format!("{ingresses}/{name}"), lease] {
        send(&client, "DELETE", &path, json!({})).await;
    }
    let are_gone = |index: &Index| index.http_routes().get(&key).is_none() && index.ingresses().get(&key).is_none();
    follow(&mut watches, &mut index, are_gone).await;
}

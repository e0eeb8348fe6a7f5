//! Events against an API server that takes and refuses.

use super::*;
use crate::kube::fake_api::{FakeAnswer, SeenRequests, fake_api};

const WAIT_MAX: Duration = Duration::from_secs(20);

fn event(name: &str, generation: i64, reason: &'static str) -> ObjectEvent {
    let (key, note) = (ObjectKey::new("apps", name), "ü".repeat(600));
    ObjectEvent { kind: ObjectKind::HttpRoute, key, uid: "u".into(), generation, reason, note }
}

async fn until(is_so: impl Fn() -> bool) {
    let poll = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(WAIT_MAX, poll).await.unwrap();
}

fn seen(requests: &SeenRequests) -> Vec<(String, String)> {
    let requests = requests.lock().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    requests.iter().map(|request| (text(&request.body["regarding"]["name"]), text(&request.body["reason"]))).collect()
}

#[tokio::test]
async fn event_is_written_once_for_each_object_generation_and_reason() {
    let (client, requests) = fake_api(|_| FakeAnswer::ok(json!({})));
    let mut reporter = EventReporter::start(client, "pod-1", Clock::system());
    for _ in 0..3 {
        reporter.report(event("a", 1, "Invalid"));
        reporter.report(event("a", 1, "RefNotPermitted"));
        reporter.report(event("a", 2, "Invalid"));
        reporter.report(event("b", 1, "Invalid"));
    }
    until(|| reporter.counters().written.load(Ordering::Relaxed) == 4).await;
    assert_eq!(seen(&requests).len(), 4);
    let first = requests.lock().unwrap()[0].clone();
    assert_eq!(first.path, "/apis/events.k8s.io/v1/namespaces/apps/events");
    assert_eq!(
        first.body["regarding"],
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "namespace": "apps", "name": "a", "uid": "u" })
    );
    assert_eq!(first.body["note"].as_str().unwrap().len(), NOTE_BYTES_MAX);
    assert!(first.body["metadata"]["name"].as_str().unwrap().starts_with("a."));
}

#[tokio::test]
async fn refused_event_is_counted_and_later_ones_are_written() {
    let (client, _) = fake_api(|request| match request.body["regarding"]["name"].as_str() {
        Some("a") => FakeAnswer::status(403, "Forbidden"),
        _ => FakeAnswer::ok(json!({})),
    });
    let mut reporter = EventReporter::start(client, "pod-1", Clock::system());
    reporter.report(event("a", 1, "Invalid"));
    let mut class = event("class", 1, "Invalid");
    class.kind = ObjectKind::GatewayClass;
    class.key = ObjectKey::cluster_wide("class");
    reporter.report(class);
    until(|| reporter.counters().written.load(Ordering::Relaxed) == 1).await;
    assert_eq!(reporter.counters().dropped.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn events_without_a_place_are_dropped_and_may_be_reported_again() {
    let (client, _) = fake_api(|_| FakeAnswer::Silence);
    let mut reporter = EventReporter::start(client, "pod-1", Clock::system());
    for number in 0..2 * WAITING_MAX {
        reporter.report(event(&number.to_string(), 1, "Invalid"));
    }
    assert!(reporter.counters().dropped.load(Ordering::Relaxed) >= (WAITING_MAX - 1) as u64);
    assert!(reporter.remembered.known.len() <= WAITING_MAX + 1);
}

#[test]
fn memory_of_events_is_bounded_and_forgets_the_oldest() {
    let mut remembered = RememberedEvents::default();
    let id = |number: usize| (ObjectKind::Ingress, ObjectKey::new("n", &number.to_string()), 1, "Invalid");
    for number in 0..=REMEMBERED_MAX {
        remembered.insert(id(number));
    }
    assert_eq!((remembered.known.len(), remembered.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    assert!(!remembered.contains(&id(0)) && remembered.contains(&id(1)) && remembered.contains(&id(REMEMBERED_MAX)));
}

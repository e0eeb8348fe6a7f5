//! Events against an API server that takes and refuses.

use super::*;
use crate::kube::fake_api::{FakeAnswer, SeenRequests, fake_api};

const WAIT_MAX: Duration = Duration::from_secs(20);

fn event(name: &str, number: u8, reason: &'static str) -> ObjectEvent {
    let (key, note) = (ObjectKey::new("apps", name), format!("{}{number}", "ü".repeat(600)));
    ObjectEvent { kind: ObjectKind::HttpRoute, key, uid: "u".into(), reason: reason.into(), note }
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
async fn event_is_written_once_for_each_object_reason_and_note() {
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
    let id = |number: usize| -> EventId {
        ((ObjectKind::Ingress, ObjectKey::new("n", &number.to_string())), "Invalid".into(), 1)
    };
    for number in 0..=REMEMBERED_MAX {
        remembered.insert(id(number));
    }
    assert_eq!((remembered.known.len(), remembered.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    assert!(!remembered.contains(&id(0)) && remembered.contains(&id(1)) && remembered.contains(&id(REMEMBERED_MAX)));
}

#[tokio::test]
async fn fault_is_reported_when_it_begins_or_changes_and_not_while_it_stays() {
    let (client, requests) = fake_api(|_| FakeAnswer::ok(json!({})));
    let mut reporter = EventReporter::start(client, "pod-1", Clock::system());
    let meta = Metadata { namespace: "apps".into(), name: "cart".into(), ..Metadata::default() };
    let fault = |reason: &'static str, note: &str| (Cow::Borrowed(reason), note.to_owned());
    let (first, other, second) = (fault("A", "one"), fault("B", "x"), fault("A", "two"));
    for (faults, written) in [
        (vec![first.clone(), other.clone()], 2),
        (vec![first.clone(), other.clone()], 2), // at rest
        (vec![second.clone(), other.clone()], 3),
        (vec![other.clone()], 3), // one is over
        (vec![second, other.clone()], 4),
        (vec![], 4),
        (vec![other], 5),
    ] {
        let meta_of_another = Metadata { name: "cartoon".into(), ..meta.clone() };
        reporter.follow(ObjectKind::HttpRoute, &meta_of_another, vec![]);
        reporter.follow(ObjectKind::HttpRoute, &meta, faults);
        until(|| reporter.counters().written.load(Ordering::Relaxed) == written).await;
        assert_eq!(seen(&requests).len() as u64, written);
    }
    let remembered = &reporter.remembered;
    assert_eq!((remembered.known.len(), remembered.order.len()), (1, 1));
}

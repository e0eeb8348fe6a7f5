//! The writer against an API server that takes, refuses, conflicts, hangs and breaks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::kube::fake_api::{FakeAnswer, SeenRequest, SeenRequests, fake_api};
use crate::kube::objects::{ObjectKey, ObjectKind};
use crate::kube::status::*;

const WAIT_MAX: Duration = Duration::from_secs(20);

const TIMES: WriteTimes = WriteTimes {
    write: Duration::from_millis(300),
    first_pause: Duration::from_millis(5),
    spacing: Duration::from_millis(20),
    in_flight: 4,
};

/// An Ingress needs no discovery.
fn update(name: &str, version: &str, status: &str) -> StatusUpdate {
    StatusUpdate {
        kind: ObjectKind::Ingress,
        key: ObjectKey::new("apps", name),
        uid: name.into(),
        resource_version: version.into(),
        patch: json!({ "said": status }),
    }
}

fn taken(version: &str) -> FakeAnswer {
    FakeAnswer::ok(json!({ "metadata": { "resourceVersion": version } }))
}

struct Running {
    queue: StatusQueue,
    seen: SeenRequests,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start(answer: impl Fn(&SeenRequest) -> FakeAnswer + Send + Sync + 'static) -> Self {
        Self::start_with(TIMES, answer)
    }

    fn start_with(times: WriteTimes, answer: impl Fn(&SeenRequest) -> FakeAnswer + Send + Sync + 'static) -> Self {
        let (client, seen) = fake_api(answer);
        let queue = StatusQueue::default();
        queue.set_leader(true);
        Self { task: tokio::spawn(run_status_writer(client, queue.clone(), times)), queue, seen }
    }

    async fn until(&self, is_so: impl Fn(WriteCounts) -> bool) {
        let poll = async {
            while !is_so(self.queue.counts()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(WAIT_MAX, poll).await.unwrap_or_else(|_| panic!("{:?} {:?}", self.queue.counts(), self.seen));
    }

    fn said(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|request| request.body["status"]["said"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test]
async fn write_is_a_patch_of_the_status_alone_with_the_version_that_was_compared() {
    let running = Running::start(|_| taken("2"));
    running.queue.submit(update("a", "1", "x"));
    running.until(|counts| counts.written == 1 && counts.waiting == 0).await;
    let seen = running.seen.lock().unwrap();
    assert_eq!((&seen[0].method, seen.len()), (&Method::PATCH, 1));
    assert_eq!(seen[0].path, "/apis/networking.k8s.io/v1/namespaces/apps/ingresses/a/status");
    // The API server takes labels, annotations and finalizers of an Ingress from a whole object: they would be lost.
    assert_eq!(seen[0].content_type, "application/merge-patch+json");
    let expected = json!({ "metadata": { "uid": "a", "resourceVersion": "1" }, "status": { "said": "x" } });
    assert_eq!(seen[0].body, expected);
}

#[tokio::test]
async fn newest_update_wins_while_one_is_in_flight() {
    let writes = AtomicUsize::new(0);
    let running = Running::start(move |_| match writes.fetch_add(1, Ordering::Relaxed) {
        0 => FakeAnswer::Silence,
        _ => taken("9"),
    });
    running.queue.submit(update("a", "1", "first"));
    while running.seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    running.queue.submit(update("a", "2", "second"));
    running.queue.submit(update("a", "3", "third"));
    running.until(|counts| counts.written == 1 && counts.waiting == 0).await;
    assert_eq!(running.said(), ["first", "third"]);
}

#[tokio::test]
async fn conflict_waits_for_the_watch() {
    let running = Running::start(|request| match request.body["metadata"]["resourceVersion"].as_str() {
        Some("1") => FakeAnswer::status(409, "Conflict"),
        _ => taken("9"),
    });
    running.queue.submit(update("a", "1", "old"));
    running.until(|counts| counts.conflicts == 1).await;
    running.queue.submit(update("a", "1", "old again"));
    running.queue.submit(update("b", "5", "other"));
    running.until(|counts| counts.written == 1 && counts.waiting == 0).await;
    running.queue.submit(update("a", "2", "new"));
    running.until(|counts| counts.written == 2).await;
    assert_eq!(running.said(), ["old", "other", "new"]);
}

#[tokio::test]
async fn update_that_is_based_on_a_version_before_our_own_write_is_not_sent() {
    let running = Running::start(|_| taken("2"));
    running.queue.submit(update("a", "1", "x"));
    running.until(|counts| counts.written == 1).await;
    running.queue.submit(update("a", "1", "outdated"));
    running.queue.submit(update("b", "1", "other"));
    running.until(|counts| counts.written == 2).await;
    running.queue.submit(update("a", "2", "y"));
    running.until(|counts| counts.written >= 3).await;
    assert_eq!(running.said(), ["x", "other", "y"]);
}

#[tokio::test]
async fn write_that_changes_nothing_on_the_server_blocks_no_later_one() {
    let running = Running::start(|_| taken("1"));
    running.queue.submit(update("a", "1", "x"));
    running.until(|counts| counts.written == 1).await;
    running.queue.submit(update("a", "1", "y"));
    running.until(|counts| counts.written == 2).await;
}

#[tokio::test]
async fn refused_hanging_and_broken_writes_are_tried_again() {
    for fault in 0..5 {
        let writes = AtomicUsize::new(0);
        let running = Running::start(move |_| match (writes.fetch_add(1, Ordering::Relaxed), fault) {
            (2.., _) => taken("2"),
            (_, 0) => FakeAnswer::status(403, "Forbidden"),
            (_, 1) => FakeAnswer::status(429, "TooManyRequests"),
            (_, 2) => FakeAnswer::status(500, "InternalError"),
            (_, 3) => FakeAnswer::Broken,
            _ => FakeAnswer::Silence,
        });
        running.queue.submit(update("a", "1", "x"));
        running.until(|counts| counts.written == 1 && counts.waiting == 0).await;
        assert_eq!(running.queue.counts().failed, 2, "fault {fault}");
    }
}

#[tokio::test]
async fn invalid_and_missing_objects_stop_no_others_and_are_not_tried_again() {
    let running = Running::start(|request| {
        if request.path.contains("/invalid/") {
            return FakeAnswer::status(422, "Invalid");
        }
        if request.path.contains("/gone/") {
            return FakeAnswer::status(404, "NotFound");
        }
        taken("2")
    });
    for name in ["invalid", "gone", "good", "fine"] {
        running.queue.submit(update(name, "1", name));
    }
    running.until(|counts| counts.written == 2 && counts.failed == 2 && counts.waiting == 0).await;
    assert_eq!(running.said().len(), 4);
}

#[tokio::test]
async fn hanging_kind_delays_no_other_for_longer_than_the_time_of_a_write() {
    let running =
        Running::start(|request| if request.path.contains("ingresses") { FakeAnswer::Silence } else { taken("2") });
    for number in 0..20 {
        running.queue.submit(update(&number.to_string(), "1", "hangs"));
    }
    let mut service = update("s", "1", "passes");
    service.kind = ObjectKind::Service;
    running.queue.submit(service);
    running.until(|counts| counts.written == 1).await;
    assert!(running.queue.counts().waiting > 0, "those that hang are not forgotten");
}

#[tokio::test]
async fn writes_in_flight_are_bounded_and_one_for_each_object() {
    let (now, most) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (started, peak) = (Arc::clone(&now), Arc::clone(&most));
    let running = Running::start(move |request| {
        let mut started = started.lock().unwrap();
        started.push(request.path.clone());
        peak.fetch_max(started.len(), Ordering::Relaxed);
        FakeAnswer::Silence
    });
    for number in 0..50 {
        running.queue.submit(update(&number.to_string(), "1", "x"));
    }
    while now.lock().unwrap().len() < TIMES.in_flight {
        tokio::task::yield_now().await;
    }
    for number in 0..50 {
        running.queue.submit(update(&number.to_string(), "2", "y"));
    }
    tokio::task::yield_now().await;
    assert_eq!(most.load(Ordering::Relaxed), TIMES.in_flight);
    assert_eq!(now.lock().unwrap().len(), TIMES.in_flight);
}

#[tokio::test]
async fn object_is_written_twice_and_its_newest_status_once_the_spacing_has_ended() {
    let times = |spacing| WriteTimes { spacing, ..TIMES };
    let submit_all = async |running: &Running| {
        for number in 1..=100 {
            running.queue.submit(update("gateway", &number.to_string(), &format!("{number} routes")));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.queue.submit(update("other", "1", "another object"));
        running.until(|_| running.said().iter().any(|said| said == "another object")).await;
    };
    let running = Running::start_with(times(Duration::from_secs(3_600)), |_| taken("1000"));
    submit_all(&running).await;
    assert_eq!(running.said(), ["1 routes", "2 routes", "another object"]);
    running.until(|counts| counts.written == 3 && counts.waiting == 1).await;
    let running = Running::start_with(times(Duration::from_millis(80)), |_| taken("1000"));
    submit_all(&running).await;
    running.until(|counts| counts.waiting == 0 && counts.written >= 4).await;
    assert_eq!(running.said().last().unwrap(), "100 routes");
    assert!(running.said().len() < 60, "{:?}", running.said());
}

#[tokio::test]
async fn without_leadership_nothing_is_written_and_nothing_waits() {
    let running = Running::start(|_| FakeAnswer::Silence);
    running.queue.submit(update("a", "1", "x"));
    running.queue.submit(update("b", "1", "x"));
    while running.seen.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    running.queue.submit(update("b", "2", "y"));
    running.queue.set_leader(false);
    running.queue.submit(update("c", "1", "z"));
    assert_eq!(running.queue.counts().waiting, 0);
    running.queue.set_leader(true);
    running.queue.submit(update("d", "1", "new leader"));
    while running.seen.lock().unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.said().last().unwrap(), "new leader");
}

#[tokio::test]
async fn forgotten_update_is_not_written() {
    let running = Running::start(|_| taken("2"));
    running.queue.submit(update("a", "1", "x"));
    running.queue.forget(ObjectKind::Ingress, &ObjectKey::new("apps", "a"));
    running.queue.submit(update("b", "1", "y"));
    running.until(|counts| counts.written == 1).await;
    assert_eq!(running.said(), ["y"]);
}

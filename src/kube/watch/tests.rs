//! Watches against an API server that lists, streams, breaks off, forgets, refuses and is silent.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::kube::api::{ApiFault, RequiredAccess};
use crate::kube::fake_api::{FakeAnswer, SeenRequest, SeenRequests, fake_api, status};
use crate::kube::index::Index;
use crate::kube::objects::{ObjectKey, ObjectKind as Kind};

/// The longest time that a test waits for a state.
const WAIT_MAX: Duration = Duration::from_secs(20);

const TIMES: WatchTimes = WatchTimes {
    watch: Duration::from_secs(1),
    endpoint_watch: Duration::from_secs(1),
    margin: Duration::from_millis(100),
    initial_silence: Duration::from_millis(200),
    first_pause: Duration::from_millis(5),
    first_missing_answers: 1,
};

fn route(name: &str, version: u32) -> Value {
    json!({ "metadata": { "namespace": "apps", "name": name, "resourceVersion": version.to_string() },
        "spec": { "hostnames": [format!("{name}.example")] } })
}

fn added(object: Value) -> Value {
    json!({ "type": "ADDED", "object": object })
}

fn deleted(object: Value) -> Value {
    json!({ "type": "DELETED", "object": object })
}

fn bookmark(version: u32, is_initial_end: bool) -> Value {
    let annotations = if is_initial_end { json!({ "k8s.io/initial-events-end": "true" }) } else { json!({}) };
    json!({ "type": "BOOKMARK", "object": { "apiVersion": "x/v1", "kind": "HTTPRoute",
        "metadata": { "resourceVersion": version.to_string(), "annotations": annotations } } })
}

fn page(items: &[Value], version: u32, next: Option<&str>) -> FakeAnswer {
    FakeAnswer::ok(json!({ "kind": "List", "apiVersion": "v1",
        "metadata": { "resourceVersion": version.to_string(), "continue": next }, "items": items }))
}

/// The answer to a question about versions: the group serves HTTPRoute in `version`.
fn discovery(request: &SeenRequest, version: &str) -> Option<FakeAnswer> {
    let group = request.path.strip_prefix("/apis/gateway.networking.k8s.io/")?;
    if group.contains('/') {
        return None;
    }
    if group != version {
        return Some(FakeAnswer::status(404, "NotFound"));
    }
    Some(FakeAnswer::ok(json!({ "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": format!("gateway.networking.k8s.io/{version}"),
        "resources": [{ "name": "httproutes", "singularName": "", "namespaced": true, "kind": "HTTPRoute",
            "verbs": ["list", "watch"] }] })))
}

struct Watched {
    watches: RunningWatches,
    index: Index,
    seen: SeenRequests,
}

impl Watched {
    fn start(kind: Kind, answer: impl Fn(&SeenRequest) -> FakeAnswer + Send + Sync + 'static) -> Self {
        let (client, seen) = fake_api(move |request| discovery(request, "v1").unwrap_or_else(|| answer(request)));
        Self { watches: start_watches(&client, &[kind], TIMES), index: Index::default(), seen }
    }

    /// Applies events until `is_done`.
    #[track_caller]
    fn until(&mut self, is_done: impl Fn(&Self) -> bool) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            while !is_done(self) {
                let events = &mut self.watches.events;
                let event = timeout(WAIT_MAX, events.recv()).await;
                let event = event.unwrap_or_else(|_| panic!("{place}: nothing came: {:?}", self.seen));
                self.index.take(event.unwrap());
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.index.http_routes().iter().map(|(key, _)| key.name.to_string()).collect()
    }

    fn requests(&self) -> Vec<SeenRequest> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.path.ends_with("s")).cloned().collect()
    }

    fn state(&self) -> WatchState {
        self.watches.gauge.health()[0].state
    }
}

/// Waits for a state that no event shows.
async fn until(mut is_so: impl FnMut() -> bool) {
    let poll = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(WAIT_MAX, poll).await.unwrap();
}

#[tokio::test]
async fn streamed_list_and_its_events_reach_the_index() {
    let mut watched = Watched::start(Kind::HttpRoute, |request| {
        assert!(request.is_streaming_list() || request.version() == "9", "{request:?}");
        if !request.is_streaming_list() {
            return FakeAnswer::LinesThenSilence(vec![]);
        }
        FakeAnswer::Lines(vec![
            added(route("a", 1)),
            added(route("b", 2)),
            bookmark(5, true),
            added(route("c", 6)),
            deleted(route("a", 7)),
            bookmark(9, false),
        ])
    });
    watched.until(|watched| watched.names() == ["b", "c"]).await;
    assert!(watched.index.is_synced(Kind::HttpRoute) && watched.watches.gauge.all_synced());
    until(|| watched.requests().len() == 2).await;
    assert_eq!(watched.requests()[1].version(), "9", "it goes on after the bookmark, without a list");
    assert_eq!(watched.state(), WatchState::Live);
}

#[tokio::test]
async fn pages_are_read_where_lists_are_not_streamed() {
    for refusal in [422, 400, 0] {
        let mut watched = Watched::start(Kind::HttpRoute, move |request| {
            match (request.is_watch(), request.query.get("continue").map(String::as_str)) {
                (true, _) if request.is_streaming_list() && refusal == 0 => FakeAnswer::LinesThenSilence(vec![]),
                (true, _) if request.is_streaming_list() => FakeAnswer::status(refusal, "Invalid"),
                (true, _) => FakeAnswer::LinesThenSilence(vec![added(route("c", 8))]),
                (false, None) => page(&[route("a", 1)], 7, Some("two")),
                (false, Some(next)) => {
                    assert_eq!(next, "two");
                    page(&[route("b", 2)], 7, None)
                }
            }
        });
        watched.until(|watched| watched.names() == ["a", "b", "c"]).await;
        assert!(watched.index.is_synced(Kind::HttpRoute));
        let requests = watched.requests();
        assert_eq!(requests[1].query["limit"], "500");
        assert_eq!(requests[3].version(), "7");
    }
}

#[tokio::test]
async fn expired_watch_lists_again_and_removes_what_is_gone() {
    let lists = AtomicUsize::new(0);
    let mut watched = Watched::start(Kind::HttpRoute, move |request| {
        if !request.is_streaming_list() {
            return FakeAnswer::Lines(vec![json!({ "type": "ERROR", "object": status(410, "Expired") })]);
        }
        match lists.fetch_add(1, Ordering::Relaxed) {
            0 => FakeAnswer::Lines(vec![added(route("a", 1)), added(route("b", 2)), bookmark(2, true)]),
            _ => FakeAnswer::LinesThenSilence(vec![added(route("b", 2)), bookmark(9, true), added(route("c", 10))]),
        }
    });
    watched.until(|watched| watched.names() == ["b", "c"]).await;
}

#[tokio::test]
async fn expired_at_the_opening_lists_again() {
    let lists = AtomicUsize::new(0);
    let mut watched = Watched::start(Kind::HttpRoute, move |request| {
        if !request.is_streaming_list() {
            return FakeAnswer::status(410, "Gone");
        }
        match lists.fetch_add(1, Ordering::Relaxed) {
            0 => FakeAnswer::Lines(vec![added(route("a", 1)), bookmark(2, true)]),
            _ => FakeAnswer::LinesThenSilence(vec![added(route("b", 2)), bookmark(9, true)]),
        }
    });
    watched.until(|watched| watched.names() == ["b"]).await;
}

#[tokio::test]
async fn broken_and_silent_watches_go_on_where_they_were() {
    let watches = AtomicUsize::new(0);
    let mut watched = Watched::start(Kind::HttpRoute, move |request| {
        if request.is_streaming_list() {
            return FakeAnswer::Lines(vec![added(route("a", 1)), bookmark(3, true)]);
        }
        match watches.fetch_add(1, Ordering::Relaxed) {
            0 => FakeAnswer::Broken,
            1 => FakeAnswer::LinesThenSilence(vec![added(route("b", 4))]),
            2 => FakeAnswer::status(500, "InternalError"),
            _ => FakeAnswer::LinesThenSilence(vec![added(route("c", 5))]),
        }
    });
    watched.until(|watched| watched.names() == ["a", "b", "c"]).await;
    let versions: Vec<_> = watched.requests().iter().map(|request| request.version().to_owned()).collect();
    assert_eq!(versions[..5], ["", "3", "3", "4", "4"], "one list, and each watch after the last event");
}

#[tokio::test]
async fn malformed_objects_and_lines_hide_no_others() {
    let lists = AtomicUsize::new(0);
    let mut watched = Watched::start(Kind::HttpRoute, move |request| {
        let bad = json!({ "metadata": { "namespace": "apps", "name": "bad", "resourceVersion": "2", "generation": "x" },
            "spec": 7 });
        if !request.is_streaming_list() {
            return FakeAnswer::LinesThenSilence(vec![]);
        }
        match lists.fetch_add(1, Ordering::Relaxed) {
            0 => FakeAnswer::Lines(vec![added(bad), added(route("a", 1)), bookmark(3, true), json!("no event")]),
            _ => FakeAnswer::LinesThenSilence(vec![added(route("a", 1)), added(route("b", 4)), bookmark(4, true)]),
        }
    });
    watched.until(|watched| watched.index.is_synced(Kind::HttpRoute)).await;
    assert_eq!(watched.names(), ["a", "bad"]);
    assert!(watched.index.http_routes().get(&ObjectKey::new("apps", "bad")).unwrap().parsed.is_err());
    watched.until(|watched| watched.names() == ["a", "b"]).await;
}

#[tokio::test]
async fn missing_permission_names_the_rule_and_is_tried_again() {
    let allowed = Arc::new(AtomicUsize::new(0));
    let now_allowed = Arc::clone(&allowed);
    let mut watched = Watched::start(Kind::HttpRoute, move |request| {
        if now_allowed.load(Ordering::Relaxed) == 0 {
            return FakeAnswer::status(403, "Forbidden");
        }
        if request.is_streaming_list() {
            return FakeAnswer::LinesThenSilence(vec![added(route("a", 1)), bookmark(3, true)]);
        }
        FakeAnswer::LinesThenSilence(vec![])
    });
    until(|| watched.state() == WatchState::Forbidden).await;
    assert!(!watched.watches.gauge.synced(Kind::HttpRoute));
    let advice = ApiFault::Forbidden("x".to_owned()).advice(&RequiredAccess::watch(Kind::HttpRoute));
    assert!(advice.contains(r#"apiGroups: ["gateway.networking.k8s.io"], resources: ["httproutes"]"#), "{advice}");
    allowed.store(1, Ordering::Relaxed);
    watched.until(|watched| watched.names() == ["a"]).await;
    until(|| watched.state() == WatchState::Live).await;
}

#[tokio::test]
async fn missing_kind_is_an_empty_list_until_its_crd_is_there() {
    let served = Arc::new(AtomicUsize::new(0));
    let now_served = Arc::clone(&served);
    let (client, seen) = fake_api(move |request| {
        let version = if now_served.load(Ordering::Relaxed) == 0 { "none" } else { "v1beta1" };
        discovery(request, version).unwrap_or_else(|| {
            assert!(request.path.contains("/v1beta1/"), "{request:?}");
            FakeAnswer::LinesThenSilence(vec![added(route("a", 1)), bookmark(3, true)])
        })
    });
    let watches = start_watches(&client, &[Kind::HttpRoute], TIMES);
    let mut watched = Watched { watches, index: Index::default(), seen };
    watched.until(|watched| watched.index.is_synced(Kind::HttpRoute)).await;
    until(|| watched.state() == WatchState::MissingApi).await;
    served.store(1, Ordering::Relaxed);
    watched.until(|watched| watched.names() == ["a"]).await;
}

#[tokio::test]
async fn first_list_waits_for_a_kind_that_a_starting_server_does_not_know_yet() {
    let discoveries = AtomicUsize::new(0);
    let (client, seen) = fake_api(move |request| {
        if discovery(request, "v1").is_none() {
            return FakeAnswer::LinesThenSilence(vec![added(route("a", 1)), bookmark(3, true)]);
        }
        let is_starting = discoveries.fetch_add(1, Ordering::Relaxed) < 2 * 2; // two versions, twice
        discovery(request, if is_starting { "none" } else { "v1" }).unwrap()
    });
    let times = WatchTimes { first_missing_answers: 3, ..TIMES };
    let watches = start_watches(&client, &[Kind::HttpRoute], times);
    let mut watched = Watched { watches, index: Index::default(), seen };
    watched.until(|watched| watched.index.is_synced(Kind::HttpRoute)).await;
    assert_eq!(watched.names(), ["a"], "the first whole list is not an empty one");
    let health = watched.watches.gauge.health()[0];
    assert_eq!((health.relists, health.faults), (0, 2));
}

#[tokio::test]
async fn objects_of_a_kind_that_disappears_are_given_up_after_three_answers() {
    let discoveries = AtomicUsize::new(0);
    let (client, seen) = fake_api(move |request| {
        let is_discovery = discovery(request, "v1").is_some();
        if is_discovery && discoveries.fetch_add(1, Ordering::Relaxed) > 0 {
            return FakeAnswer::status(404, "NotFound");
        }
        discovery(request, "v1").unwrap_or_else(|| {
            if request.is_streaming_list() {
                return FakeAnswer::Lines(vec![added(route("a", 1)), bookmark(3, true)]);
            }
            FakeAnswer::status(404, "NotFound")
        })
    });
    let watches = start_watches(&client, &[Kind::HttpRoute], TIMES);
    let mut watched = Watched { watches, index: Index::default(), seen };
    watched.until(|watched| watched.names() == ["a"]).await;
    watched.until(|watched| watched.names().is_empty()).await;
    let asked = watched.seen.lock().unwrap().iter().filter(|request| !request.path.ends_with("routes")).count();
    assert!(asked > 3 * 2, "two versions, three times: {asked}");
}

#[tokio::test]
async fn endpoints_pass_while_the_channel_of_the_others_is_full() {
    let (client, _) = fake_api(move |request| {
        if request.path.ends_with("endpointslices") {
            let slice = json!({ "metadata": { "namespace": "apps", "name": "s", "resourceVersion": "1" } });
            return FakeAnswer::LinesThenSilence(vec![added(slice), bookmark(1, true)]);
        }
        let services = (0..3 * EVENTS_MAX).map(|number| added(route(&number.to_string(), 1)));
        FakeAnswer::LinesThenSilence(services.collect())
    });
    let mut watches = start_watches(&client, &[Kind::Service, Kind::EndpointSlice], TIMES);
    until(|| watches.events.len() == EVENTS_MAX).await;
    for _ in 0..3 {
        assert_eq!(
            timeout(WAIT_MAX, watches.endpoint_events.recv()).await.unwrap().unwrap().kind(),
            Kind::EndpointSlice
        );
    }
    assert!(watches.gauge.synced(Kind::EndpointSlice) && !watches.gauge.synced(Kind::Service));
}

#[tokio::test]
async fn age_of_a_watch_grows_in_silence_and_watches_end_with_their_owner() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let receiver = std::sync::Mutex::new(Some(receiver));
    let mut watched = Watched::start(Kind::HttpRoute, move |request| {
        let first = if request.is_streaming_list() { receiver.lock().unwrap().take() } else { None };
        first.map_or(FakeAnswer::Silence, FakeAnswer::Live)
    });
    sender.send(bookmark(1, true)).unwrap();
    watched.until(|watched| watched.index.is_synced(Kind::HttpRoute)).await;
    let age = |watched: &Watched| watched.watches.gauge.health()[0].age;
    until(|| age(&watched) > Duration::from_millis(50)).await;
    sender.send(bookmark(2, false)).unwrap();
    until(|| age(&watched) < Duration::from_millis(50)).await;
    drop(watched);
    until(|| sender.is_closed()).await;
}

#[tokio::test]
async fn secrets_are_watched_in_the_namespaces_of_the_scope_alone() {
    let (client, seen) = fake_api(move |request| {
        let namespace = match request.path.as_str() {
            "/api/v1/namespaces/a/secrets" => "a",
            "/api/v1/namespaces/b/secrets" => "b",
            other => panic!("{other} is not in the scope"),
        };
        if !request.is_streaming_list() {
            return FakeAnswer::LinesThenSilence(vec![]);
        }
        let secret = json!({ "metadata": { "namespace": namespace, "name": "s", "resourceVersion": "1" } });
        FakeAnswer::LinesThenSilence(vec![added(secret), bookmark(1, true)])
    });
    let scope = WatchScope::with_secrets_in(["a", "b"].map(str::to_owned)).unwrap();
    let watches = start_scoped_watches(&client, (&[Kind::Secret], &scope), TIMES);
    let mut watched = Watched { watches, index: Index::default(), seen };
    watched.until(|watched| watched.index.is_synced(Kind::Secret)).await;
    let names: Vec<_> = watched.index.secrets().iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(names, ["a/s", "b/s"]);
    until(|| watched.watches.gauge.all_synced()).await;
}

#[tokio::test]
async fn namespace_without_a_permission_is_the_state_of_the_kind() {
    let (client, _) = fake_api(move |request| match request.path.contains("/namespaces/a/") {
        true if request.is_streaming_list() => FakeAnswer::LinesThenSilence(vec![bookmark(1, true)]),
        true => FakeAnswer::LinesThenSilence(vec![]),
        false => FakeAnswer::status(403, "Forbidden"),
    });
    let scope = WatchScope::with_secrets_in(["a", "b"].map(str::to_owned)).unwrap();
    let watches = start_scoped_watches(&client, (&[Kind::Secret], &scope), TIMES);
    until(|| watches.gauge.health()[0].state == WatchState::Forbidden && watches.gauge.health()[0].faults > 1).await;
    assert!(!watches.gauge.synced(Kind::Secret));
    assert!(WatchScope::with_secrets_in((0..=SECRET_NAMESPACES_MAX).map(|number| number.to_string())).is_err());
}

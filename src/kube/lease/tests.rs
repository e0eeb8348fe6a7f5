//! Elections against an API server that keeps one Lease with versions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::kube::fake_api::{FakeAnswer, SeenRequest, fake_api};

const WAIT_MAX: Duration = Duration::from_secs(20);

const TIMES: LeaseTimes = LeaseTimes {
    duration: Duration::from_secs(1),
    renew: Duration::from_millis(600),
    retry: Duration::from_millis(20),
};

/// One Lease, as the API server keeps it.
#[derive(Default)]
struct LeaseServer {
    lease: Mutex<Option<(u64, Value)>>,
    is_away: AtomicBool,
}

impl LeaseServer {
    fn answer(&self, request: &SeenRequest) -> FakeAnswer {
        if self.is_away.load(Ordering::Relaxed) {
            return FakeAnswer::Broken;
        }
        let mut lease = self.lease.lock().unwrap();
        match (&request.method, &mut *lease) {
            (&Method::GET, None) => FakeAnswer::status(404, "NotFound"),
            (&Method::GET, Some((_, object))) => FakeAnswer::ok(object.clone()),
            (&Method::POST, Some(_)) => FakeAnswer::status(409, "AlreadyExists"),
            (&Method::PUT, Some((version, _)))
                if request.body["metadata"]["resourceVersion"].as_str() != Some(&version.to_string()) =>
            {
                FakeAnswer::status(409, "Conflict")
            }
            (_, lease) => {
                let version = lease.as_ref().map_or(1, |(version, _)| version + 1);
                let mut object = request.body.clone();
                object["metadata"]["resourceVersion"] = json!(version.to_string());
                *lease = Some((version, object.clone()));
                FakeAnswer::ok(object)
            }
        }
    }

    fn spec(&self) -> Value {
        self.lease.lock().unwrap().as_ref().map(|(_, object)| object["spec"].clone()).unwrap_or_default()
    }
}

fn candidate(server: &Arc<LeaseServer>, identity: &str) -> LeaseElection {
    let server = Arc::clone(server);
    let (client, _) = fake_api(move |request| server.answer(request));
    let settings = LeaseSettings {
        namespace: "tallygate".to_owned(),
        name: "tallygate-leader".to_owned(),
        identity: identity.to_owned(),
        times: TIMES,
    };
    LeaseElection::start(client, settings, Clock::system())
}

#[track_caller]
fn leads(election: &mut LeaseElection, expected: bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let is_leader = election.is_leader.wait_for(|leads| *leads == expected);
        timeout(WAIT_MAX, is_leader).await.unwrap_or_else(|_| panic!("{place}: leads is not {expected}")).unwrap();
    }
}

#[tokio::test]
async fn one_of_two_leads_and_the_other_follows_when_it_releases() {
    let server = Arc::new(LeaseServer::default());
    let mut first = candidate(&server, "first");
    leads(&mut first, true).await;
    let mut second = candidate(&server, "second");
    let both = timeout(TIMES.duration * 2, second.is_leader.wait_for(|leads| *leads)).await.is_ok();
    assert!(!both, "the lease is renewed, so the second must not lead");
    assert_eq!(server.spec()["holderIdentity"], "first");
    let begun = Instant::now();
    first.release().await;
    leads(&mut second, true).await;
    assert!(begun.elapsed() < TIMES.duration, "a released lease is free at once");
    assert_eq!(server.spec()["holderIdentity"], "second");
    assert_eq!(server.spec()["leaseTransitions"], 1);
}

#[tokio::test]
async fn lease_of_a_dead_holder_is_taken_after_its_duration() {
    let server = Arc::new(LeaseServer::default());
    let mut first = candidate(&server, "first");
    leads(&mut first, true).await;
    let mut second = candidate(&server, "second");
    drop(first);
    let begun = Instant::now();
    leads(&mut second, true).await;
    assert!(begun.elapsed() >= TIMES.duration / 2, "{:?}", begun.elapsed());
    assert_eq!(server.spec()["holderIdentity"], "second");
}

#[tokio::test]
async fn holder_that_cannot_renew_stops_leading_before_others_may_take_over() {
    let server = Arc::new(LeaseServer::default());
    let mut first = candidate(&server, "first");
    leads(&mut first, true).await;
    server.is_away.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    leads(&mut first, false).await;
    assert!(begun.elapsed() < TIMES.duration, "{:?}", begun.elapsed());
    server.is_away.store(false, Ordering::Relaxed);
    leads(&mut first, true).await;
    assert_eq!(server.spec()["leaseTransitions"], 0, "it was its own lease all the time");
}

#[tokio::test]
async fn of_two_that_try_at_once_one_leads() {
    let server = Arc::new(LeaseServer::default());
    let mut elections: Vec<_> = (0..5).map(|number| candidate(&server, &format!("c{number}"))).collect();
    let lead = async {
        while !elections.iter().any(|election| *election.is_leader.borrow()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(WAIT_MAX, lead).await.unwrap();
    tokio::time::sleep(TIMES.retry * 5).await;
    assert_eq!(elections.iter_mut().filter(|election| *election.is_leader.borrow()).count(), 1);
}

#[tokio::test]
async fn malformed_lease_and_missing_permission_end_nothing() {
    let tries = Arc::new(Mutex::new(0));
    let server = Arc::new(LeaseServer::default());
    let behind = Arc::clone(&server);
    let (client, _) = fake_api(move |request| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match *tries {
            1 => FakeAnswer::ok(json!([])),
            2 => FakeAnswer::ok(json!({ "spec": "x" })),
            3 => FakeAnswer::status(403, "Forbidden"),
            _ => behind.answer(request),
        }
    });
    let settings =
        LeaseSettings { namespace: "n".to_owned(), name: "l".to_owned(), identity: "me".to_owned(), times: TIMES };
    let mut election = LeaseElection::start(client, settings, Clock::system());
    leads(&mut election, true).await;
    let renew = server.spec()["renewTime"].as_str().unwrap().to_owned();
    assert!(renew.len() == 27 && renew.ends_with('Z'), "{renew}");
}

//! Revocation lists and certificates in time: an expired list proves nothing unless somebody says otherwise, and then
//! everybody can see it; what ends when is on `/metrics`.

use serde_json::{Value, json};

use crate::world::{Leaf, World, empty, request, spiffe, stderr};

const READ: &str = "/cameras/v1/snapshots/1";
const EXPIRY: &str = "tallygate_certificate_expiry_timestamp_seconds";

fn lists(expired: &str) -> impl FnOnce(&mut Value) {
    let expired = json!(expired);
    move |document| {
        let auth = &mut document["listeners"][0]["tls"]["clientAuth"];
        auth["revocation"] = json!(["pki/revoked.crl"]);
        auth["expiredRevocation"] = expired;
    }
}

#[tokio::test]
async fn an_expired_list_is_a_problem_that_names_its_place() {
    let mut world = World::city().edit(lists("refuse")).with_pki(|pki| pki.revoke_until(&[], 2025)).build();
    let check = world.tallygate(&["check", "--config", "gateway.yaml"]);
    let ended = crate::world::run(check).await;
    let told = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("listeners[0].tls.clientAuth.revocation[0]") && told.contains("expired"), "{told}");
    world.abandon();
}

#[tokio::test]
async fn an_expired_list_that_is_believed_is_seen_by_everybody_and_still_revokes() {
    let world = World::city().edit(lists("allow")).build();
    let stolen = world.pki.issue(&Leaf::department("traffic-police"));
    world.pki.revoke_until(&[&stolen], 2025);
    let mut world = world;
    world.start_process().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    let stolen = world.client_with("unknown", Some(stolen));
    assert!(stolen.try_send(request("GET", READ, empty())).await.is_err(), "whoever is on it is out");
    let metrics = world.metrics().await;
    let listener = [("listener", "departments")];
    assert_eq!(metrics.value("tallygate_expired_revocation_allowed", &listener), Some(1.0));
    assert!(world.admin("/config").await.1.contains("expired revocation lists are believed"));
    let log = world.log_of_process();
    assert!(log.contains("expired revocation lists are believed") && log.contains("it is believed, because"), "{log}");
    world.close().await;
}

#[tokio::test]
async fn without_being_asked_no_listener_believes_an_expired_list() {
    let world = World::city().edit(lists("refuse")).with_pki(|pki| pki.revoke(&[])).start().await;
    assert!(!world.metrics().await.has("tallygate_expired_revocation_allowed"));
    assert!(!world.admin("/config").await.1.contains("weakened"));
    world.close().await;
}

#[tokio::test]
async fn metrics_tell_when_everything_ends_and_callers_once_they_have_been_seen() {
    let mut world = World::city().edit(lists("refuse")).with_pki(|pki| pki.revoke(&[])).start().await;
    let ends = async |world: &World, role: &str, name: &str| {
        world.metrics().await.value(EXPIRY, &[("role", role), ("name", name)])
    };
    let name = format!("uri:{}", spiffe("traffic-police"));
    assert_eq!(ends(&world, "caller", &name).await, None);
    let soon = world.pki.issue(&Leaf::department("traffic-police").valid(2020, 2031));
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    assert_eq!(world.client_with("traffic-police", Some(soon)).get(READ).await.status, 200);
    let stranger = world.pki.issue(&Leaf::department("stranger"));
    assert_eq!(world.client_with("unknown", Some(stranger)).get(READ).await.status, 401);

    let seconds = |date: &str| Some(date.parse::<jiff::Timestamp>().unwrap().as_second() as f64);
    assert_eq!(ends(&world, "caller", &name).await, seconds("2031-01-01T00:00:00Z"), "the earliest of the two");
    for (role, name, date) in [
        ("ca", "CN=ca of the tests", "2099-01-01T00:00:00Z"),
        ("crl", "CN=ca of the tests", "2090-01-01T00:00:00Z"),
        ("server", "CN=a caller", "2090-01-01T00:00:00Z"),
    ] {
        assert_eq!(ends(&world, role, name).await, seconds(date), "{role}: {}", world.metrics().await.text);
    }
    let text = world.metrics().await.text;
    assert_eq!(text.matches("role=\"caller\"").count(), 1, "a stranger's name is nobody's label");
    world.reload(|document| document["departments"][0]["callers"][0]["uri"] = json!("spiffe://city.example/new")).await;
    assert_eq!(ends(&world, "caller", &name).await, None, "a name that nobody claims is forgotten");
    world.close().await;
}

//! `clientAuth.mode: allowInsecureFallback`: callers whose certificate fails verification are accepted, without an
//! identity.

use serde_json::json;

use crate::world::{Identity, Leaf, Pki, Plan, READ, World, empty, request, run, stderr, stdout};

/// A city whose listener accepts callers with any certificate, and another authority. If `claimed`, the department
/// `public` has the callers without an identity, and may read.
fn city(claimed: bool) -> (Plan, Pki) {
    let mut other = None;
    let plan = World::city().with_pki(|pki| {
        pki.revoke(&[]);
        other = Some(Pki::new(pki.authority_file().parent().unwrap(), "other"));
    });
    let plan = plan.edit(|document| {
        document["listeners"][0]["tls"]["clientAuth"] = json!({
            "mode": "allowInsecureFallback",
            "authorities": ["pki/ca.pem"],
            "revocation": ["pki/revoked.crl"],
        });
        if claimed {
            let public = json!({ "id": "public", "callers": [{ "listener": "departments" }] });
            document["departments"].as_array_mut().unwrap().push(public);
        }
    });
    let plan = if claimed { plan.grant("public", "cameras", &["snapshot.read"]) } else { plan };
    (plan, other.unwrap())
}

/// Certificates of the department `traffic-police` that fail verification, each with a word of the reason.
fn unaccepted(world: &World, other: &Pki) -> [(Identity, &'static str); 3] {
    let police = Leaf::department("traffic-police");
    let revoked = world.pki.issue(&police);
    world.pki.revoke(&[&revoked]);
    [
        (other.issue(&police), "UnknownIssuer"),
        (world.pki.issue(&police.clone().valid(2020, 2021)), "expired"),
        (revoked, "Revoked"),
    ]
}

#[tokio::test]
async fn callers_with_unaccepted_certificates_are_billed_as_callers_without_one() {
    let (plan, other) = city(true);
    let mut world = plan.start().await;
    let unaccepted = unaccepted(&world, &other);
    world.reload(|_| ()).await;
    let identities = unaccepted.into_iter().map(|(identity, _)| Some(identity)).chain([None]);
    for identity in identities {
        for client in [world.client_with("public", identity.clone()), world.client_with("public", identity).h2()] {
            assert_eq!(client.get(READ).await.status, 200);
            assert_eq!(client.post("/cameras/v1/snapshots", "").await.status, 403, "police may submit, public may not");
        }
    }
    for client in world.clients("traffic-police") {
        assert_eq!(client.get(READ).await.status, 200, "an accepted certificate is an identity");
    }
    let received = world.server("cameras").log.all();
    assert_eq!(received.iter().filter(|one| one.header("x-tallygate-caller").is_empty()).count(), 8);
    let usage = world.close().await;
    assert_eq!((usage.of("public", "ok"), usage.of("public", "forbidden")), (8, 8));
    assert_eq!(usage.of("traffic-police", "ok"), 2);
}

#[tokio::test]
async fn refusal_of_a_caller_with_an_unaccepted_certificate_has_the_reason() {
    let (plan, other) = city(false);
    let mut world = plan.start().await;
    let unaccepted = unaccepted(&world, &other);
    world.reload(|_| ()).await;
    for (identity, reason) in unaccepted {
        for client in
            [world.client_with("unknown", Some(identity.clone())), world.client_with("unknown", Some(identity)).h2()]
        {
            let reply = client.get(READ).await;
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            assert_eq!(reply.status, 401);
            assert!(text.contains("was not accepted") && text.contains(reason), "{text} lacks {reason}");
        }
    }
    assert_eq!(world.metrics().await.sum("tallygate_tls_handshakes_failed_total"), 0);
    assert!(world.server("cameras").log.all().is_empty());
    world.close().await;
}

#[tokio::test]
async fn stricter_mode_ends_connections_of_callers_with_unaccepted_certificates() {
    for (mode, keeps_anonymous) in [("required", false), ("optional", true)] {
        let (plan, other) = city(true);
        let mut world = plan.start().await;
        let stranger = other.issue(&Leaf::department("traffic-police"));
        let stranger = world.client_with("public", Some(stranger)).h2();
        let anonymous = world.client_with("public", None).h2();
        for client in [&stranger, &anonymous] {
            assert_eq!(client.get(READ).await.status, 200);
        }
        world
            .reload(|document| {
                document["listeners"][0]["tls"]["clientAuth"]["mode"] = json!(mode);
                if mode == "required" {
                    // Nobody without a certificate can connect, so no department may claim them.
                    document["departments"].as_array_mut().unwrap().pop();
                    document["grants"].as_array_mut().unwrap().pop();
                }
            })
            .await;
        for (client, is_kept) in [(&stranger, false), (&anonymous, keeps_anonymous)] {
            match client.try_send(request("GET", READ, empty())).await {
                Ok(reply) if is_kept => assert_eq!(reply.status, 200),
                Ok(reply) => assert_eq!(reply.problem().as_deref(), Some("unauthenticated"), "{mode}"),
                Err(failure) => assert!(!is_kept, "{mode}: {failure}"),
            }
        }
        world.close().await;
    }
}

#[tokio::test]
async fn check_config_and_explain_show_the_insecure_mode() {
    let (plan, other) = city(true);
    let mut world = plan.build();
    let stranger = other.issue(&Leaf::department("traffic-police"));
    let check = run(world.tallygate(&["check", "--config", "gateway.yaml"])).await;
    let shown = stdout(&check) + &stderr(&check);
    assert!(
        shown.contains("listeners[0].tls.clientAuth.mode: callers whose certificate fails verification"),
        "{shown}"
    );
    let request = format!("GET https://localhost{READ}");
    let certificate = stranger.certificate_file.display().to_string();
    let explain = ["explain", "--config", "gateway.yaml", "--cert", &certificate, "--request", &request];
    let explained = stdout(&run(world.tallygate(&explain)).await);
    assert!(explained.contains("public") && explained.contains("UnknownIssuer"), "{explained}");
    world.start_here().await;
    let (_, page) = world.admin("/config").await;
    assert!(page.contains("allowInsecureFallback"), "{page}");
    world.close().await;
}

//! Several certificates on one listener, chosen by the server name (SNI) of the handshake, each with its own
//! authorities and revocation lists for callers.

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::world::{
    Client, Identity, Leaf, Pki, Plan, READ, Seen, World, empty, request_to, run, stderr, stdout, tool,
};

/// A listener with the hosts `a.example`, `*.a.example` (callers of the city's authority) and `b.example`,
/// `**.b.example` (callers of another authority).
fn two_hosts() -> (Plan, Pki) {
    let mut other = None;
    let plan = World::city().with_pki(|pki| {
        for host in ["a.example", "b.example"] {
            pki.issue_subsystem(host);
        }
        pki.revoke(&[]);
        other = Some(Pki::new(pki.authority_file().parent().unwrap(), "other"));
    });
    let plan = plan.edit(|document| {
        document["listeners"][0]["tls"] = json!({
            "certificates": [
                entry("a.example", &["a.example", "*.a.example"], None),
                entry("b.example", &["b.example", "**.b.example"], Some("pki/other.pem")),
            ],
            "clientAuth": { "mode": "required", "authorities": ["pki/ca.pem"] },
        });
    });
    (plan, other.unwrap())
}

fn entry(file: &str, hosts: &[&str], authority: Option<&str>) -> Value {
    let mut entry = json!({
        "certificate": format!("pki/{file}.pem"),
        "key": format!("pki/{file}.key"),
        "serverNames": hosts,
    });
    if let Some(authority) = authority {
        entry["clientAuth"] = json!({ "mode": "required", "authorities": [authority] });
    }
    entry
}

/// The status of a GET for this host; `None` without a connection.
async fn asked(client: &Client, host: &str) -> Option<u16> {
    let reply = client.try_send(request_to(host, "GET", READ, empty())).await;
    reply.ok().map(|reply| reply.status.as_u16())
}

/// The certificate that the gateway presents for a server name.
async fn presented(world: &World, host: &str, identity: &Identity) -> CertificateDer<'static> {
    let client = world.client_with("unknown", Some(identity.clone())).naming(Some(host));
    let stream = client.connect().await.expect("a handshake");
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn callers_of_one_host_are_not_callers_of_the_other() {
    let (plan, other) = two_hosts();
    let world = plan.start().await;
    let police = world.identity("traffic-police").clone();
    let logistics = other.issue(&Leaf::department("logistics"));
    for (department, identity, server_name, host, expected) in [
        ("traffic-police", &police, Some("a.example"), "a.example", Some(200)),
        ("traffic-police", &police, Some("x.a.example"), "y.a.example", Some(200)),
        ("traffic-police", &police, Some("b.example"), "b.example", None),
        ("traffic-police", &police, Some("x.y.b.example"), "b.example", None),
        ("logistics", &logistics, Some("b.example"), "b.example", Some(200)),
        ("logistics", &logistics, Some("x.y.b.example"), "z.b.example", Some(200)),
        ("logistics", &logistics, Some("a.example"), "a.example", None),
        ("logistics", &logistics, Some("x.y.a.example"), "a.example", None),
        ("traffic-police", &police, None, "a.example", Some(200)),
        ("traffic-police", &police, None, "x.a.example", Some(200)),
        ("traffic-police", &police, None, "b.example", Some(421)),
        ("logistics", &logistics, None, "b.example", None),
    ] {
        let client = || world.client_with(department, Some(identity.clone())).naming(server_name);
        for client in [client(), client().h2()] {
            assert_eq!(asked(&client, host).await, expected, "{department} {server_name:?} {host}");
        }
    }
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("logistics", "ok")), (8, 4));
}

#[tokio::test]
async fn connection_never_crosses_over_to_another_certificate() {
    let (plan, other) = two_hosts();
    let world = plan.start().await;
    let logistics = other.issue(&Leaf::department("logistics"));
    for (department, identity, own, foreign) in [
        ("traffic-police", world.identity("traffic-police"), "a.example", "b.example"),
        ("logistics", &logistics, "b.example", "a.example"),
    ] {
        let client = || world.client_with(department, Some(identity.clone())).naming(Some(own));
        for client in [client(), client().h2()] {
            assert_eq!(asked(&client, own).await, Some(200));
            let reply = client.send(request_to(foreign, "GET", READ, empty())).await;
            assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (421, Some("misdirected")));
            assert_eq!(asked(&client, own).await, Some(200), "the connection stays open");
        }
    }
    assert_eq!(world.server("cameras").log.all().len(), 8, "nothing misdirected was forwarded");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "misdirected"), usage.of("logistics", "misdirected")), (2, 2));
}

#[tokio::test]
async fn curl_gets_the_certificate_of_each_host() {
    let (plan, other) = two_hosts();
    let world = plan.start().await;
    let (port, logistics) = (world.gateway_address().port(), other.issue(&Leaf::department("logistics")));
    for (department, identity, host) in
        [("traffic-police", world.identity("traffic-police"), "a.example"), ("logistics", &logistics, "b.example")]
    {
        let mut curl = tool("curl");
        curl.args(["-sS", "--http2", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]);
        curl.arg("--cacert").arg(world.pki.authority_file());
        curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
        curl.arg("--resolve").arg(format!("{host}:{port}:127.0.0.1")).arg(format!("https://{host}:{port}{READ}"));
        let ended = run(curl).await;
        assert_eq!(stdout(&ended), "2 200", "{host}: {}", stderr(&ended));
        world.log.note(department, Seen::Outcome("ok"));
    }
    world.close().await;
}

#[tokio::test]
async fn renewed_certificate_of_one_host_is_presented_after_a_reload() {
    let (plan, other) = two_hosts();
    let mut world = plan.start().await;
    let police = world.identity("traffic-police").clone();
    let logistics = other.issue(&Leaf::department("logistics"));
    let before = (presented(&world, "a.example", &police).await, presented(&world, "b.example", &logistics).await);
    let renewed = world.pki.issue_subsystem("b.example");
    world.reload(|_| ()).await;
    until_presented(&world, "b.example", &logistics, &renewed.chain[0]).await;
    assert_ne!(before.1, renewed.chain[0]);
    assert_eq!(presented(&world, "a.example", &police).await, before.0, "the other certificate is unchanged");
    world.close().await;
}

async fn until_presented(world: &World, host: &str, identity: &Identity, expected: &CertificateDer<'_>) {
    crate::world::until("the renewed certificate is presented", async || {
        (presented(world, host, identity).await == *expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn revocation_list_of_one_host_ends_connections_there_alone() {
    let (plan, _other) = two_hosts();
    let with_list = json!({ "mode": "required", "authorities": ["pki/ca.pem"], "revocation": ["pki/revoked.crl"] });
    let plan = plan.edit(|document| {
        document["listeners"][0]["tls"]["certificates"][1]["clientAuth"] = with_list;
    });
    let mut world = plan.start().await;
    let client = |host| world.client("traffic-police").naming(Some(host));
    let hosts = ["a.example", "b.example"];
    let open: Vec<_> = hosts.iter().flat_map(|host| [(*host, client(host)), (*host, client(host).h2())]).collect();
    for (host, client) in &open {
        assert_eq!(asked(client, host).await, Some(200));
    }
    world.pki.revoke(&[world.identity("traffic-police")]);
    world.reload(|_| ()).await;
    for (host, client) in &open {
        let reply = client.try_send(request_to(host, "GET", READ, empty())).await;
        match *host {
            "a.example" => assert_eq!(reply.unwrap().status, 200),
            // Either the command or the close comes first, or a new handshake fails.
            _ => assert!(reply.ok().is_none_or(|reply| reply.problem().as_deref() == Some("unauthenticated"))),
        }
    }
    for (host, expected) in [("a.example", Some(200)), ("b.example", None)] {
        let client = world.client("traffic-police").naming(Some(host));
        assert_eq!(asked(&client, host).await, expected, "a new connection to {host}");
    }
    world.close().await;
}

#[tokio::test]
async fn open_connection_is_judged_by_the_certificate_that_has_its_host_after_a_reload() {
    let (plan, _other) = two_hosts();
    let mut world = plan.start().await;
    let client = world.client("traffic-police").naming(Some("x.a.example")).h2();
    assert_eq!(asked(&client, "x.a.example").await, Some(200));
    // The host moves to the certificate whose callers come from the other authority.
    world
        .reload(|document| {
            let listed = &mut document["listeners"][0]["tls"]["certificates"];
            listed[0]["serverNames"] = json!(["a.example"]);
            listed[1]["serverNames"] = json!(["b.example", "*.a.example"]);
        })
        .await;
    let before = world.server("cameras").log.all().len();
    if let Ok(reply) = client.try_send(request_to("x.a.example", "GET", READ, empty())).await {
        assert_eq!(reply.problem().as_deref(), Some("unauthenticated"));
    }
    assert_eq!(world.server("cameras").log.all().len(), before, "nothing was forwarded");
    world.close().await;
}

#[tokio::test]
async fn faulty_entry_is_rejected_with_its_path_and_the_old_configuration_stays_live() {
    let (plan, _other) = two_hosts();
    let mut world = plan.start().await;
    world.write(|document| {
        let listed = &mut document["listeners"][0]["tls"]["certificates"];
        listed[1]["key"] = json!("pki/a.example.key");
        listed[0]["clientAuth"] = json!({ "authorities": ["pki/none.pem"] });
    });
    let problems = world.running().reload().expect_err("a faulty entry").0;
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        ["listeners[0].tls.certificates[1].key", "listeners[0].tls.certificates[0].clientAuth.authorities[0]"]
    );
    let client = world.client("traffic-police").naming(Some("a.example"));
    assert_eq!(asked(&client, "a.example").await, Some(200));
    world.close().await;
}

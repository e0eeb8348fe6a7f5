//! Certificate revocation lists (CRL) and certificates over time:
//! - An expired list fails closed, unless the configuration permits expired lists; the permission is visible to
//!   operators.
//! - `/metrics` shows when each list and each certificate expires.
//! - All of several lists apply, whatever the signer and the signature algorithm.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tallygate::clock::Clock;

use crate::world::{Leaf, READ, World, empty, request, run, spiffe, stderr, stdout, tool, until};

use super::client_certificates::is_refused;

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
async fn expired_crl_is_a_problem_with_its_path() {
    let mut world = World::city().edit(lists("refuse")).with_pki(|pki| pki.revoke_until(&[], 2025)).build();
    let check = world.tallygate(&["check", "--config", "gateway.yaml"]);
    let ended = crate::world::run(check).await;
    let message = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{message}");
    assert!(message.contains("listeners[0].tls.clientAuth.revocation[0]") && message.contains("expired"), "{message}");
    world.abandon();
}

#[tokio::test]
async fn accepted_expired_crl_is_reported_and_still_revokes() {
    let world = World::city().edit(lists("allow")).build();
    let revoked = world.pki.issue(&Leaf::department("traffic-police"));
    world.pki.revoke_until(&[&revoked], 2025);
    let mut world = world;
    world.start_process().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    let revoked = world.client_with("unknown", Some(revoked));
    assert!(
        revoked.try_send(request("GET", READ, empty())).await.is_err(),
        "a certificate on the expired CRL is refused"
    );
    let metrics = world.metrics().await;
    let listener = [("listener", "departments")];
    assert_eq!(metrics.value("tallygate_expired_revocation_allowed", &listener), Some(1.0));
    assert!(world.admin("/config").await.1.contains("expired revocation lists are accepted"));
    let log = world.log_of_process();
    assert!(log.contains("expired revocation lists are accepted") && log.contains("it is accepted, because"), "{log}");
    world.close().await;
}

#[tokio::test]
async fn expired_crl_is_not_accepted_by_default() {
    let world = World::city().edit(lists("refuse")).with_pki(|pki| pki.revoke(&[])).start().await;
    assert!(!world.metrics().await.has("tallygate_expired_revocation_allowed"));
    assert!(!world.admin("/config").await.1.contains("weakened"));
    world.close().await;
}

#[tokio::test]
async fn metrics_show_expiries_of_files_and_of_seen_callers() {
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
    assert_eq!(ends(&world, "caller", &name).await, seconds("2031-01-01T00:00:00Z"), "the earlier expiry of the two");
    for (role, name, date) in [
        ("ca", "CN=ca of the tests", "2099-01-01T00:00:00Z"),
        ("crl", "CN=ca of the tests", "2090-01-01T00:00:00Z"),
        ("server", "CN=a caller", "2090-01-01T00:00:00Z"),
    ] {
        assert_eq!(ends(&world, role, name).await, seconds(date), "{role}: {}", world.metrics().await.text);
    }
    let text = world.metrics().await.text;
    assert_eq!(text.matches("role=\"caller\"").count(), 1, "an unclaimed name is no label");
    world.reload(|document| document["departments"][0]["callers"][0]["uri"] = json!("spiffe://city.example/new")).await;
    assert_eq!(ends(&world, "caller", &name).await, None, "an identity that is no longer claimed is removed");
    world.close().await;
}

#[tokio::test]
async fn certificate_on_any_of_several_crls_is_refused() {
    let of = |files: &'static [&str]| {
        move |document: &mut Value| document["listeners"][0]["tls"]["clientAuth"]["revocation"] = json!(files)
    };
    let mut world = World::city().edit(of(&["pki/none.crl", "pki/one.crl"])).build();
    let revoked = world.identity("traffic-police").clone();
    let keep = |world: &World, name: &str| {
        let folder = world.folder().join("pki");
        std::fs::copy(folder.join("revoked.crl"), folder.join(name)).unwrap();
    };
    world.pki.revoke(&[]);
    keep(&world, "none.crl");
    world.pki.revoke(&[&revoked]);
    keep(&world, "one.crl");
    let both =
        ["none.crl", "one.crl"].map(|name| std::fs::read_to_string(world.folder().join("pki").join(name)).unwrap());
    std::fs::write(world.folder().join("pki/both.crl"), both.concat()).unwrap();
    world.start_here().await;
    for files in [&["pki/none.crl", "pki/one.crl"][..], &["pki/one.crl", "pki/none.crl"], &["pki/both.crl"]] {
        world.reload(of(files)).await;
        assert!(is_refused(&world.client("traffic-police")).await, "{files:?}");
        assert_eq!(world.client("logistics").get(READ).await.status, 200, "{files:?}");
    }
    world.close().await;
}

#[tokio::test]
async fn expiry_of_the_last_crl_is_reported_as_the_reason_of_refusals() {
    let clock = Clock::manual("2029-12-31T23:30:00Z".parse().unwrap());
    let plan = World::city().clock(clock).edit(lists("refuse")).with_pki(|pki| pki.revoke_until(&[], 2030));
    let world = plan.start().await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    assert_eq!(world.admin("/readyz").await.0, 200);
    world.clock.advance(std::time::Duration::from_secs(3_600));
    assert!(is_refused(&world.client("traffic-police")).await);
    let reason = [("reason", "revocation_list_expired")];
    assert_eq!(world.metrics().await.value("tallygate_tls_handshakes_failed_total", &reason), Some(1.0));
    let message = until("the gateway is not ready", async || {
        Some(world.admin("/readyz").await).filter(|(status, _)| *status == 503)
    })
    .await
    .1;
    assert!(
        message.contains("listener departments: the last one expired at 2030-01-01T00:00:00Z, so all")
            && message.contains("\n  do: fetch a new list"),
        "{message}"
    );

    world.pki.revoke(&[]); // the gateway watches the file
    until("the gateway is ready again", async || (world.admin("/readyz").await.0 == 200).then_some(())).await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.close().await;
}

async fn pki(world: &World, arguments: &[&str]) {
    let ended = run(world.tallygate(&[&["pki"], arguments].concat())).await;
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
}

#[tokio::test]
async fn trust_is_shown_and_a_crl_near_its_expiry_is_a_warning() {
    let mut world = World::city().build();
    world.pki.revoke(&[]);
    pki(&world, &["init", "--dir", "trial"]).await;
    pki(&world, &["renew", "--dir", "trial", "--days", "10"]).await;
    world.write(|document| {
        let auth = &mut document["listeners"][0]["tls"]["clientAuth"];
        auth["authorities"] = json!(["pki/ca.pem", "trial/ca.pem"]);
        auth["revocation"] = json!(["pki/revoked.crl", "trial/revoked.crl"]);
    });
    let check = async |world: &World, arguments: &[&str]| {
        run(world.tallygate(&[&["check", "--config", "gateway.yaml"], arguments].concat())).await
    };
    let table = check(&world, &[]).await;
    let message = stderr(&table);
    assert_eq!(table.status.code(), Some(0), "{message}");
    for part in [
        "listener departments uses 2 authorities, 2 revocation lists",
        "authority CN=ca of the tests, until 2099-01-01T00:00:00Z, in ",
        ", until 2090-01-01T00:00:00Z, for all certificates, 0 revoked, in ",
        "warning: the revocation list of CN=Tallygate trial authority ",
        " expires in 9 days, at ",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    let json: Value = serde_json::from_str(&stdout(&check(&world, &["--format", "json"]).await)).unwrap();
    let list = &json["trust"][0]["revocationLists"][1];
    assert!(list["issuer"].as_str().unwrap().starts_with("CN=Tallygate trial authority "), "{json}");
    assert_eq!((&list["revoked"], &list["ofAuthority"], &list["number"]), (&json!(0), &json!(true), &json!("3")));
    let warnings: Vec<&str> = json["warnings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(warnings.iter().filter(|warning| warning.contains(" expires in ")).count(), 1, "{json}");

    world.start_process().await;
    let log = world.log_of_process();
    assert!(log.contains("WARN") && log.contains(" expires in 9 days, at "), "{log}");
    pki(&world, &["renew", "--dir", "trial"]).await;
    let again = stderr(&check(&world, &[]).await);
    assert!(!again.contains(" expires in "), "{again}");
    world.close().await;
}

/// Returns an authority and its empty list, made by openssl.
async fn by_openssl(folder: &Path, (key, digest, padding): (&[&str], &str, &[&str])) {
    let settings = format!(
        "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_crl_days=30\ndefault_md={digest}\n"
    );
    for (file, text) in [("index.txt", ""), ("crlnumber", "01\n"), ("o.cnf", &settings)] {
        std::fs::write(folder.join(file), text).unwrap();
    }
    let openssl = async |arguments: &[&str]| {
        let mut command = tool("openssl");
        command.args(arguments).current_dir(folder);
        let ended: Output = run(command).await;
        assert!(ended.status.success(), "{arguments:?}: {}", stderr(&ended));
    };
    let usage = "keyUsage=critical,keyCertSign,cRLSign";
    let digest = format!("-{digest}");
    let making = ["req", "-x509", "-nodes", "-keyout", "x.key", "-out", "x.pem", "-days", "900", "-subj", "/CN=X"];
    openssl(&[&making, key, &[&digest, "-addext", usage]].concat()).await;
    let listing = ["ca", "-config", "o.cnf", "-gencrl", "-cert", "x.pem", "-keyfile", "x.key", "-out", "x.crl"];
    openssl(&[&listing, padding].concat()).await;
}

#[tokio::test]
async fn crls_are_verified_by_their_signature_of_every_kind() {
    const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const P384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"];
    const P521: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"];
    const RSA: &[&str] = &["-newkey", "rsa:2048"];
    const PSS: &[&str] = &["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    const LONG_SALT: &[&str] = &["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:max"];
    let mut world = World::city().build();
    let folder = world.folder().to_owned();
    world.write(|document| {
        let auth = &mut document["listeners"][0]["tls"]["clientAuth"];
        auth["authorities"] = json!(["x.pem"]);
        auth["revocation"] = json!(["x.crl"]);
    });
    for made in [
        (P256, "sha512", &[][..]),
        (P256, "sha384", &[]),
        (P384, "sha512", &[]),
        (P384, "sha256", &[]),
        (P521, "sha256", &[]),
        (P521, "sha512", &[]),
        (RSA, "sha384", &[]),
        (RSA, "sha256", PSS),
        (RSA, "sha512", PSS),
    ] {
        by_openssl(&folder, made).await;
        let checked = run(world.tallygate(&["check", "--config", "gateway.yaml"])).await;
        assert_eq!(checked.status.code(), Some(0), "{made:?}: {}", stderr(&checked));
    }
    by_openssl(&folder, (RSA, "sha256", LONG_SALT)).await;
    let message = stderr(&run(world.tallygate(&["check", "--config", "gateway.yaml"])).await);
    assert!(
        message.contains("is signed with an algorithm that is not supported") && message.contains("a salt as long"),
        "{message}"
    );
    world.abandon();
}

//! `clientAuth.refusal: response`: a handshake accepts every caller, and requests without an acceptable certificate are
//! refused, as nginx refuses them. Statuses and fields are compared with a real nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::world::{
    ANY_PORT, Client, Identity, Leaf, Pki, Plan, Process, READ, Reply, World, empty, request, reserve_address, run,
    stderr, stdout, tool, until,
};

/// The modes, each with the `ssl_verify_client` of nginx.
const MODES: [(&str, &str); 3] = [("required", "on"), ("optional", "optional"), ("anyAuthority", "optional_no_ca")];
/// What a caller claims about its certificate.
const SPOOFED: [(&str, &str); 3] =
    [("ssl-client-verify", "SUCCESS"), ("SSL-Client-Subject-DN", "CN=mayor"), ("ssl-client-cert", "mayor")];

/// A city with this `clientAuth`. Every caller that no other department claims belongs to `public`, which may read.
fn city(client_auth: Value) -> Plan {
    let plan = World::city().edit(|document| {
        document["listeners"][0]["tls"]["clientAuth"] = client_auth;
        let callers = json!([{ "listener": "departments", "unclaimed": true }]);
        document["departments"].as_array_mut().unwrap().push(json!({ "id": "public", "callers": callers }));
    });
    plan.grant("public", "cameras", &["snapshot.read"])
}

/// A leaf below so many intermediate authorities, all of which the client sends.
fn deep(pki: &Pki, intermediates: usize) -> Identity {
    let mut identity = pki.issue(&Leaf::bare("deep"));
    let authority = |level: usize, signer: &Issuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("level {level}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.signed_by(&key, signer).unwrap();
        (Issuer::new(params, key), certificate)
    };
    let (mut issuer, first) = authority(1, pki.issuer());
    let mut above = vec![first];
    for level in 2..=intermediates {
        let (next, certificate) = authority(level, &issuer);
        issuer = next;
        above.push(certificate);
    }
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "deep");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let certificates: Vec<_> = std::iter::once(leaf).chain(above.into_iter().rev()).collect();
    identity.chain = certificates.iter().map(|one| one.der().clone()).collect();
    identity.key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    fs::write(&identity.certificate_file, certificates.iter().map(|one| one.pem()).collect::<String>()).unwrap();
    fs::write(&identity.key_file, key.serialize_pem()).unwrap();
    identity
}

/// A certificate that its own key has signed. `openssl req -x509` makes it an authority.
fn self_signed(pki: &Pki, is_authority: bool) -> Identity {
    let mut identity = pki.issue(&Leaf::bare("alone"));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "alone");
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(&key).unwrap();
    identity.chain = vec![certificate.der().clone()];
    identity.key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    fs::write(&identity.certificate_file, certificate.pem()).unwrap();
    fs::write(&identity.key_file, key.serialize_pem()).unwrap();
    identity
}

/// Callers with certificates of every kind, by name.
fn callers(pki: &Pki, other: &Pki) -> Vec<(&'static str, Option<Identity>)> {
    vec![
        ("none", None),
        ("good", Some(pki.issue(&Leaf::bare("police, \"b\" ü <x>").unit("#1 ")))),
        ("of another authority", Some(other.issue(&Leaf::bare("stranger")))),
        ("self-signed", Some(self_signed(pki, false))),
        ("self-signed authority", Some(self_signed(pki, true))),
        ("expired", Some(pki.issue(&Leaf::bare("late").valid(2020, 2021)))),
        ("expired, of another authority", Some(other.issue(&Leaf::bare("late").valid(2020, 2021)))),
        ("below 1 intermediate", Some(deep(pki, 1))),
        ("below 2 intermediates", Some(deep(pki, 2))),
        ("below 1 intermediate of another authority", Some(deep(other, 1))),
    ]
}

/// Starts nginx with a server for each mode, which returns what it forwards.
async fn nginx(folder: &Path, addresses: [SocketAddr; 3]) -> Process {
    let folder = folder.display();
    let servers: String = MODES
        .iter()
        .zip(addresses)
        .map(|((_, word), address)| {
            format!(
                "server {{ listen {address} ssl; ssl_certificate {folder}/pki/server.pem; \
                 ssl_certificate_key {folder}/pki/server.key; ssl_client_certificate {folder}/pki/ca.pem; \
                 ssl_verify_client {word}; ssl_verify_depth 1; location / {{ return 200 \
                 '$ssl_client_verify\\n$ssl_client_s_dn\\n$ssl_client_i_dn\\n$ssl_client_escaped_cert\\n'; }} }}\n"
            )
        })
        .collect();
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log;\n\
         events {{ worker_connections 64; }}\nhttp {{\naccess_log off; client_body_temp_path {folder}/body; \
         proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; \
         scgi_temp_path {folder}/scgi;\n{servers}}}\n"
    );
    fs::write(format!("{folder}/nginx.conf"), config).unwrap();
    let mut command = tool("nginx");
    command.args(["-p", &folder.to_string(), "-c", &format!("{folder}/nginx.conf")]);
    command.args(["-e", &format!("{folder}/nginx-error.log")]);
    let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    until("nginx listens", async || tokio::net::TcpStream::connect(addresses[2]).await.ok()).await;
    process
}

/// The status of nginx, and what it forwards: a line for each of the four fields.
async fn answer_of_nginx(address: SocketAddr, identity: Option<&Identity>) -> (u16, Vec<String>) {
    let mut curl = tool("curl");
    curl.args(["-sSk", "--max-time", "10", "-w", "%{http_code}", &format!("https://{address}/")]);
    if let Some(identity) = identity {
        curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
    }
    let ended = run(curl).await;
    assert!(ended.status.success(), "{}", stderr(&ended));
    let text = stdout(&ended);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let status = lines.pop().unwrap();
    let status: u16 = status[status.len() - 3..].parse().unwrap();
    if status != 200 {
        lines.clear();
    }
    (status, lines)
}

async fn read(client: &Client) -> Reply {
    let mut request = request("GET", READ, empty());
    for (name, value) in SPOOFED {
        request.headers_mut().append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    client.send(request).await
}

#[tokio::test]
async fn requests_are_answered_and_forwarded_as_nginx_does() {
    let addresses = [reserve_address(), reserve_address(), reserve_address()];
    for ((mode, _), address) in MODES.into_iter().zip(addresses) {
        let auth = json!({
            "mode": mode, "authorities": ["pki/ca.pem"], "refusal": "response", "maxDepth": 1, "forward": "certificate",
        });
        let world = city(auth).start().await;
        let other = Pki::new(&world.folder().join("other"), "other");
        let mut nginx = nginx(world.folder(), addresses).await;
        let mut accepted = 0;
        for (name, identity) in callers(&world.pki, &other) {
            let (status, told) = answer_of_nginx(address, identity.as_ref()).await;
            // OpenSSL goes on after a chain that is too long, and nginx sees the fault of the missing issuer.
            let is_too_deep = (mode, name) == ("anyAuthority", "below 2 intermediates");
            assert!(!is_too_deep || status == 200);
            let status = if is_too_deep { 400 } else { status };
            for client in
                [world.client_with("public", identity.clone()), world.client_with("public", identity.clone()).h2()]
            {
                let reply = read(&client).await;
                assert_eq!(reply.status, status, "{mode}, {name}: {}", reply.text());
                let received = world.server("cameras").log.all();
                if status != 200 {
                    assert_eq!(reply.problem().as_deref(), Some("unauthenticated"), "{mode}, {name}");
                    assert_eq!(received.len(), accepted, "{mode}, {name}: nothing reaches the subsystem");
                    continue;
                }
                accepted += 1;
                assert_eq!(received.len(), accepted);
                let last = received.last().unwrap();
                let fields = ["ssl-client-verify", "ssl-client-subject-dn", "ssl-client-issuer-dn", "ssl-client-cert"];
                let forwarded = fields.map(|field| last.header(field).to_owned());
                assert_eq!(forwarded.to_vec(), told, "{mode}, {name}");
                for field in last.headers.keys().filter(|field| field.as_str().starts_with("ssl")) {
                    assert_eq!(last.headers.get_all(field).iter().count(), 1, "{mode}, {name}: {field}");
                    assert!(fields.contains(&field.as_str()), "{mode}, {name}: {field}");
                }
            }
        }
        nginx.signal("QUIT");
        nginx.ended().await;
        let usage = world.close().await;
        assert_eq!(usage.of("public", "ok"), accepted as u64);
        assert_eq!(usage.of("unknown", "unauthenticated"), 20 - accepted as u64);
    }
}

#[tokio::test]
async fn error_page_and_subject_answer_instead() {
    let page = "https://help.example/certificates";
    let auth = json!({
        "mode": "optional", "authorities": ["pki/ca.pem"], "refusal": "response", "errorPage": page,
        "subject": "^$|CN=police",
    });
    let world = city(auth).start().await;
    let other = Pki::new(&world.folder().join("other"), "other");
    let stranger = other.issue(&Leaf::bare("police"));
    let reply = world.client_with("public", Some(stranger)).get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (302, page));
    let fire = world.pki.issue(&Leaf::bare("fire"));
    let reply = world.client_with("public", Some(fire)).get(READ).await;
    assert_eq!((reply.status.as_u16(), reply.problem().as_deref()), (403, Some("forbidden")));
    let police = world.pki.issue(&Leaf::bare("police"));
    for identity in [Some(police), None] {
        assert_eq!(world.client_with("public", identity).get(READ).await.status, 200);
    }
    let usage = world.close().await;
    assert_eq!((usage.of("public", "forbidden"), usage.of("public", "ok")), (1, 2));
    assert_eq!(usage.of("unknown", "unauthenticated"), 1);
}

#[tokio::test]
async fn a_reload_changes_the_verdict_on_open_connections() {
    let auth = |mode: &str, depth: u64| {
        json!({
            "mode": mode, "authorities": ["pki/ca.pem"], "refusal": "response", "maxDepth": depth,
        })
    };
    let mut world = city(auth("optional", 2)).start().await;
    let deep = deep(&world.pki, 2);
    let (anonymous, known) = (world.client_with("public", None).h2(), world.client_with("public", Some(deep)).h2());
    for client in [&anonymous, &known] {
        assert_eq!(client.get(READ).await.status, 200);
    }
    world.reload(|document| document["listeners"][0]["tls"]["clientAuth"] = auth("required", 2)).await;
    assert_eq!(anonymous.get(READ).await.status, 400, "the handshake needs no certificate");
    assert_eq!(known.get(READ).await.status, 200);
    world.reload(|document| document["listeners"][0]["tls"]["clientAuth"] = auth("required", 1)).await;
    let reply = known.try_send(request("GET", READ, empty())).await;
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status == 401), "the chain is too deep now");
    world.close().await;
}

#[tokio::test]
async fn server_names_of_one_port_have_settings_of_their_own() {
    let world = World::city().with_pki(|pki| {
        for name in ["open", "closed"] {
            pki.issue_server_as(name, &Leaf::dns(&format!("{name}.example")));
        }
    });
    let entry = |name: &str, auth: Value| json!({ "certificate": format!("pki/{name}.pem"), "key": format!("pki/{name}.key"), "clientAuth": auth });
    let world = world.edit(|document| {
        let auth = |mode: &str, forward: &str| {
            json!({ "mode": mode, "authorities": ["pki/ca.pem"], "refusal": "response", "forward": forward })
        };
        document["listeners"][0]["tls"] = json!({ "certificates": [
            entry("open", auth("optional", "none")), entry("closed", auth("required", "names")),
        ] });
        document["listeners"].as_array_mut().unwrap().push(json!({
            "name": "plain", "address": ANY_PORT.to_string(), "protocol": "http",
        }));
        let callers = json!([{ "listener": "departments", "unclaimed": true }, { "listener": "plain" }]);
        document["departments"].as_array_mut().unwrap().push(json!({ "id": "public", "callers": callers }));
    });
    let world = world.grant("public", "cameras", &["snapshot.read"]).start().await;
    let police = world.pki.issue(&Leaf::bare("police"));
    for (name, identity, expected, told) in [
        ("open.example", None, 200, ""),
        ("closed.example", None, 400, ""),
        ("open.example", Some(police.clone()), 200, ""),
        ("closed.example", Some(police), 200, "SUCCESS"),
    ] {
        let client = world.client_with("public", identity).naming(Some(name));
        let mut request = crate::world::request_to(name, "GET", READ, empty());
        request.headers_mut().append("ssl-client-verify", "spoofed".parse().unwrap());
        assert_eq!(client.send(request).await.status, expected, "{name}");
        let last = world.server("cameras").log.all().pop().unwrap();
        assert!(expected != 200 || last.header("ssl-client-verify") == told, "{name}");
    }
    // A connection for one name does not reach the other one.
    let client = world.client_with("public", None).naming(Some("open.example"));
    assert_eq!(client.send(crate::world::request_to("closed.example", "GET", READ, empty())).await.status, 421);
    // What callers say is removed on listeners without client certificates as well.
    let address = world.running().listener("plain").unwrap();
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10", "-H", "ssl-client-verify: SUCCESS", &format!("http://{address}{READ}")]);
    assert!(run(curl).await.status.success());
    world.log.note("public", crate::world::Seen::Outcome("ok"));
    assert_eq!(world.server("cameras").log.all().pop().unwrap().header("ssl-client-verify"), "");
    let usage = world.close().await;
    assert_eq!((usage.of("public", "ok"), usage.of("unknown", "unauthenticated")), (4, 1));
}

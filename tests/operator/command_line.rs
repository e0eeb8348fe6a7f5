//! The command line: subcommands, exit codes and messages.

use std::process::Output;

use serde_json::{Value, json};

use crate::world::{World, replace, run, stderr, stdout, tool};

async fn tallygate(world: &World, arguments: &[&str]) -> Output {
    run(world.tallygate(arguments)).await
}

/// Returns a world whose gateway is never started.
async fn unstarted_world(change: impl FnOnce(&mut Value)) -> World {
    let mut world = World::city().build();
    world.write(change);
    world
}

/// Ends a world whose gateway never ran.
fn abandon_world(mut world: World) {
    world.abandon();
}

#[tokio::test]
async fn check_is_silent_for_a_valid_configuration() {
    let world = unstarted_world(|_| ()).await;
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml"]).await;
    assert_eq!(checked.status.code(), Some(0), "{}{}", stdout(&checked), stderr(&checked));
    abandon_world(world);
}

#[tokio::test]
async fn check_prints_every_problem_with_its_path_and_a_hint() {
    let world = unstarted_world(|document| {
        document["departments"][0]["limits"] = json!({ "rate": "fast" });
        document["departments"][1]["nmae"] = json!("misspelt");
        document["subsystems"][0]["timeouts"]["response"] = json!("soon");
        document["grants"][1]["department"] = json!("logistic");
    })
    .await;
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml"]).await;
    let words = format!("{}{}", stdout(&checked), stderr(&checked));
    assert_eq!(checked.status.code(), Some(1), "{words}");
    for part in [
        "departments[0] (traffic-police).limits.rate",
        "departments[1] (logistics).nmae",
        "\"name\"",
        "subsystems[0] (cameras).timeouts.response",
        "grants[1].department",
        "logistics",
    ] {
        assert!(words.contains(part), "{part} is not in: {words}");
    }
    abandon_world(world);
}

#[tokio::test]
async fn check_reads_the_files_that_a_configuration_names() {
    let world = unstarted_world(|document| {
        document["listeners"][0]["tls"]["key"] = json!("pki/missing.key");
        document["listeners"][0]["tls"]["clientAuth"]["authorities"] = json!(["pki/server.key"]);
    })
    .await;
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml"]).await;
    let words = format!("{}{}", stdout(&checked), stderr(&checked));
    assert_eq!(checked.status.code(), Some(1), "{words}");
    for part in ["listeners[0].tls.key", "missing.key", "listeners[0].tls.clientAuth.authorities"] {
        assert!(words.contains(part), "{part} is not in: {words}");
    }
    abandon_world(world);
}

#[tokio::test]
async fn two_departments_with_one_identity_are_a_problem() {
    let world = unstarted_world(|document| {
        document["departments"][1]["callers"] = document["departments"][0]["callers"].clone()
    })
    .await;
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml"]).await;
    let words = format!("{}{}", stdout(&checked), stderr(&checked));
    assert_eq!(checked.status.code(), Some(1));
    assert!(words.contains("departments[1] (logistics).callers[0]") && words.contains("traffic-police"), "{words}");
    abandon_world(world);
}

#[tokio::test]
async fn exit_codes_equal_the_documented_ones() {
    let world = unstarted_world(|_| ()).await;
    for (arguments, code) in [
        (&["check"][..], 2),
        (&["nonsense"], 2),
        (&["check", "--config", "missing.yaml"], 1),
        (&["--version"], 0),
        (&["--help"], 0),
        (&["report", "usage", "--ledger", "missing.db"], 2),
        (&["report", "usage", "--ledger", "gateway.yaml"], 74),
        (&["report", "usage", "--ledger", "missing.db", "--by", "colour"], 2),
    ] {
        let ended = tallygate(&world, arguments).await;
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {}{}", stdout(&ended), stderr(&ended));
    }
    abandon_world(world);
}

#[tokio::test]
async fn address_in_use_is_reported_clearly() {
    let mut world = World::city().build();
    world.start_here().await;
    let mut second = world.document.clone();
    second["ledger"]["path"] = json!("data/second.db");
    replace(&world.folder().join("second.yaml"), &second.to_string());
    let refused = tallygate(&world, &["serve", "--config", "second.yaml"]).await;
    let words = stderr(&refused);
    assert_eq!(
        refused.status.code(),
        Some(70),
        "a temporary error, so that a supervisor restarts the gateway: {words}"
    );
    for address in [world.gateway_address(), world.admin_address()] {
        let hint = format!("ss -ltnp 'sport = :{}'", address.port());
        let is_reported = words
            .lines()
            .any(|line| line.contains(&format!("{address}: Address already in use")) && line.contains(&hint));
        assert!(is_reported, "{address} in {words}");
    }
    world.close().await;
}

#[tokio::test]
async fn check_prints_warnings_and_that_there_are_no_problems() {
    let world = unstarted_world(|document| {
        document["grants"][1] = document["grants"][0].clone();
        document["admin"]["address"] = json!("0.0.0.0:9090");
        document["subsystems"][0]["hosts"] = json!(["elsewhere.example"]);
        document["ledger"]["path"] = json!("gateway.yaml/ledger.db");
    })
    .await;
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml"]).await;
    let words = stderr(&checked);
    let as_json = tallygate(&world, &["check", "--config", "gateway.yaml", "--format", "json"]).await;
    let as_json: Value = serde_json::from_str(&stdout(&as_json)).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{words}");
    for part in [
        "grants: 2 departments have no grant: logistics, archive",
        "grants: these grants have no effect, because earlier grants allow the same: grants[1] \"*\"",
        "admin.address: 0.0.0.0:9090 may be reachable from other machines",
        "no listener serves elsewhere.example, a host of cameras",
        "gateway.yaml is not a folder",
    ] {
        assert!(
            words.lines().any(|line| line.trim_start().starts_with("warning: ") && line.contains(part)),
            "{part}: {words}"
        );
        assert!(
            as_json["warnings"].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains(part)),
            "{part}"
        );
    }
    abandon_world(world);
}

#[tokio::test]
async fn explain_shows_caller_command_and_reason() {
    let world = unstarted_world(|_| ()).await;
    let certificate = world.identity("logistics").certificate_file.display().to_string();
    let explain = async |request: &str| {
        let arguments = ["explain", "--config", "gateway.yaml", "--cert", &certificate, "--request", request];
        let ended = tallygate(&world, &arguments).await;
        (ended.status.code(), format!("{}{}", stdout(&ended), stderr(&ended)))
    };
    let (code, yes) = explain("GET https://gateway.city.example/cameras/v1/snapshots/1").await;
    assert_eq!(code, Some(0), "{yes}");
    for part in ["logistics", "cameras", "snapshot.read", "grants[1]"] {
        assert!(yes.contains(part), "{part} is not in: {yes}");
    }
    let (code, no) = explain("POST https://gateway.city.example/cameras/v1/snapshots").await;
    assert_eq!(code, Some(1), "{no}");
    assert!(no.contains("forbidden") && no.contains("snapshot.submit"), "{no}");
    abandon_world(world);
}

#[tokio::test]
async fn trial_authority_certificates_are_accepted_from_curl() {
    let mut world = World::city().build();
    for arguments in [
        &["pki", "init", "--dir", "trial", "--host", "gateway.city.example"][..],
        &["pki", "issue", "--dir", "trial", "--department", "traffic-police"],
    ] {
        let made = tallygate(&world, arguments).await;
        assert!(made.status.success(), "{arguments:?}: {}", stderr(&made));
    }
    world.write(|document| {
        document["listeners"][0]["tls"] = json!({
            "certificate": "trial/server.pem",
            "key": "trial/server.key",
            "clientAuth": { "mode": "required", "authorities": ["trial/ca.pem"], "revocation": ["trial/revoked.crl"] },
        });
    });
    world.start_here().await;
    assert_eq!(curl_with_trial(&world).await, (Some(0), "200".to_owned()));
    world.log.note("traffic-police", crate::world::Seen::Outcome("ok"));

    let revoked = tallygate(&world, &["pki", "revoke", "--dir", "trial", "trial/clients/traffic-police.pem"]).await;
    assert!(revoked.status.success(), "{}", stderr(&revoked));
    crate::world::until("the revoked certificate is refused", async || {
        let (code, status) = curl_with_trial(&world).await;
        let (department, seen) = match status.as_str() {
            // The certificate was revoked between the handshake and the command.
            "401" => ("unknown", crate::world::Seen::Outcome("unauthenticated")),
            _ => ("traffic-police", crate::world::Seen::Open),
        };
        world.log.note(department, seen);
        (code != Some(0)).then_some(())
    })
    .await;
    world.close().await;
}

async fn curl_with_trial(world: &World) -> (Option<i32>, String) {
    let mut curl = tool("curl");
    curl.current_dir(world.folder()).args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]);
    curl.args([
        "--cacert",
        "trial/ca.pem",
        "--cert",
        "trial/clients/traffic-police.pem",
        "--key",
        "trial/clients/traffic-police.key",
    ]);
    let address = world.gateway_address();
    curl.arg("--resolve").arg(format!("gateway.city.example:{}:127.0.0.1", address.port()));
    curl.arg(format!("https://gateway.city.example:{}/cameras/v1/snapshots/1", address.port()));
    let ended = run(curl).await;
    (ended.status.code(), stdout(&ended))
}

fn as_json<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["report", "usage", "--ledger", "data/ledger.db", "--format", "json"], more].concat()
}

#[tokio::test]
async fn usage_report_equals_the_ledger() {
    let clock = tallygate::clock::Clock::manual("2026-10-15T03:00:00Z".parse().unwrap());
    let mut world = World::city().clock(clock).start().await;
    for _ in 0..7 {
        world.client("traffic-police").get("/cameras/do/status-200").await;
        world.client("logistics").get("/cameras/v1/snapshots/1").await;
    }
    world.client("archive").get("/cameras/v1/snapshots/1").await;
    world.stop().await;

    let period = ["report", "usage", "--ledger", "data/ledger.db", "--from", "2026-10-01", "--to", "2026-11-01"];
    let report = async |more: &[&str]| {
        let ended = tallygate(&world, &[&period[..], more].concat()).await;
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        stdout(&ended)
    };
    let by = ["--by", "department,subsystem,command,outcome"];
    let csv = report(&[&by[..], &["--format", "csv"]].concat()).await;
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let header = rows.headers().unwrap().clone();
    let column =
        |name: &str| header.iter().position(|found| found == name).unwrap_or_else(|| panic!("{name} in {csv}"));
    let (department, outcome, commands, units) =
        (column("department"), column("outcome"), column("commands"), column("units"));
    let read: Vec<(String, String, u64, u64)> = rows
        .records()
        .map(|row| row.unwrap())
        .map(|row| {
            (row[department].into(), row[outcome].into(), row[commands].parse().unwrap(), row[units].parse().unwrap())
        })
        .collect();
    for expected in [("traffic-police", "ok", 7, 21), ("logistics", "ok", 7, 7), ("archive", "forbidden", 1, 0)] {
        let (department, outcome, commands, units) = expected;
        assert!(read.contains(&(department.into(), outcome.into(), commands, units)), "{expected:?} in {csv}");
    }
    let json: Value = serde_json::from_str(&report(&[&by[..], &["--format", "json"]].concat()).await).unwrap();
    assert!(json.to_string().contains("traffic-police"), "{json}");
    let table = report(&["--format", "table"]).await;
    assert!(table.contains("traffic-police") && table.contains('7'), "{table}");
    assert!(table.contains("period    2026-10-01 to 2026-11-01, exclusive (calendar +08:00)"), "{table}");
    assert!(table.contains("state     complete\n"), "the gateway is closed and the month is over: {table}");
    for (more, commands) in [
        (&["--period", "2026-10"][..], 15),
        (&["--period", "2026-10", "--department", "logistics"], 7),
        (&["--from", "2026-10", "--to", "2026-11", "--by", "month,blame"], 15),
        (&["--period", "2026-10-15", "--by", "hour"], 15),
        (&["--period", "2026-09"], 0),
    ] {
        let ended = tallygate(&world, &as_json(more)).await;
        let document: Value = serde_json::from_str(&stdout(&ended)).unwrap();
        assert_eq!(document["total"]["commands"], commands, "{more:?} {document}");
    }
    let by_blame = tallygate(&world, &as_json(&["--period", "2026-10", "--by", "month,blame"])).await;
    let document: Value = serde_json::from_str(&stdout(&by_blame)).unwrap();
    let rows: Vec<_> = document["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (&row["month"], &row["blame"], &row["commands"]))
        .collect();
    let month = &Value::from("2026-10");
    assert_eq!(rows, [(month, &"caller".into(), &1.into()), (month, &"none".into(), &14.into())]);
    let usage = world.close().await;
    assert_eq!(usage.sum(|_| true), read.iter().map(|row| row.2).sum::<u64>());
}

#[tokio::test]
async fn completions_are_generated_for_a_shell() {
    let world = unstarted_world(|_| ()).await;
    let written = tallygate(&world, &["completions", "bash"]).await;
    assert!(written.status.success() && stdout(&written).contains("tallygate"), "{}", stderr(&written));
    abandon_world(world);
}

#[tokio::test]
async fn problems_name_file_line_and_id_also_in_included_files() {
    let world = unstarted_world(|document| document["include"] = json!(["teams.d/*.yaml"])).await;
    std::fs::create_dir(world.folder().join("teams.d")).unwrap();
    let fire =
        "departments:\n  - id: fire-brigade\n    callers: [{ dns: fire.example }]\n    limits:\n      rate: fast\n";
    replace(&world.folder().join("teams.d/fire.yaml"), fire);
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml"]).await;
    let expected = "  teams.d/fire.yaml:5: departments[0] (fire-brigade).limits.rate: \"fast\" is not a rate";
    assert!(stderr(&checked).contains(expected), "{}", stderr(&checked));
    let checked = tallygate(&world, &["check", "--config", "gateway.yaml", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&stdout(&checked)).unwrap();
    let problem = &report["problems"][0];
    assert_eq!(
        (checked.status.code(), &problem["line"], &problem["column"]),
        (Some(1), &json!(5), &json!(13)),
        "{report}"
    );
    for (key, value) in [("file", "teams.d/fire.yaml"), ("path", "departments[0].limits.rate"), ("id", "fire-brigade")]
    {
        assert_eq!(problem[key], value, "{report}");
    }
    abandon_world(world);
}

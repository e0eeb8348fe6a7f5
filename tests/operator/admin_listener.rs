//! The admin listener: `/metrics`, liveness, readiness, the live configuration, limits, and commands in flight.

use std::io::Write as _;
use std::process::Stdio;

use crate::world::{World, stderr, stdout, tool};

/// The metric families of the contract that apply to one gateway.
const FAMILIES: [&str; 20] = [
    "tallygate_commands_total",
    "tallygate_command_units_total",
    "tallygate_request_bytes_total",
    "tallygate_response_bytes_total",
    "tallygate_commands_in_flight",
    "tallygate_command_duration_seconds_count",
    "tallygate_gateway_duration_seconds_count",
    "tallygate_usage_period_commands",
    "tallygate_usage_period_units",
    "tallygate_quota_used_ratio",
    "tallygate_certificate_expiry_timestamp_seconds",
    "tallygate_ledger_synced_timestamp_seconds",
    "tallygate_ledger_sync_duration_seconds_count",
    "tallygate_ledger_folded_timestamp_seconds",
    "tallygate_ledger_imbalance",
    "tallygate_ledger_mended_windows_total",
    "tallygate_config_info",
    "tallygate_build_info",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

fn with_quota() -> crate::world::Plan {
    World::city().edit(|document| {
        document["departments"][0]["quota"] =
            serde_json::json!({ "per": "month", "units": 1000, "exceeded": "refuse" });
    })
}

#[tokio::test]
async fn every_documented_family_is_exposed() {
    let world = with_quota().start().await;
    world.client("traffic-police").post("/cameras/v1/snapshots", "jpeg").await;
    let metrics = world.metrics().await;
    let missing: Vec<_> = FAMILIES.into_iter().filter(|family| !metrics.has(family)).collect();
    assert!(missing.is_empty(), "missing {missing:?} in {}", metrics.text);
    assert!(metrics.text.contains("tallygate_upstream_"), "{}", metrics.text);
    world.close().await;
}

#[tokio::test]
async fn promtool_reports_no_problems() {
    let world = with_quota().start().await;
    world.client("traffic-police").get("/cameras/v1/snapshots/1").await;
    world.client("archive").get("/cameras/v1/snapshots/1").await;
    let metrics = world.metrics().await;
    let mut promtool = tool("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let words = format!("{}{}", stdout(&checked), stderr(&checked));
    assert!(checked.status.success() && words.trim().is_empty(), "{words}");
    world.close().await;
}

#[tokio::test]
async fn livez_and_readyz_are_200() {
    let world = World::city().start().await;
    assert_eq!(world.admin("/livez").await.0, 200);
    assert_eq!(world.admin("/readyz").await.0, 200);
    assert_eq!(world.admin("/nothing").await.0, 404);
    world.close().await;
}

#[tokio::test]
async fn live_configuration_is_shown_with_its_version() {
    let world = World::city().start().await;
    let (status, config) = world.admin("/config").await;
    assert_eq!(status, 200);
    let version = world.version_on_disk();
    assert!(config.contains(&version), "{version} in {config}");
    let metrics = world.metrics().await;
    assert_eq!(metrics.value("tallygate_config_info", &[("version", &version)]), Some(1.0));
    assert_eq!(metrics.sum("tallygate_config_rejected"), 0);
    world.close().await;
}

#[tokio::test]
async fn readiness_and_configuration_are_shown_in_words() {
    let world = World::city().start().await;
    let (status, words) = world.admin("/readyz?verbose").await;
    assert_eq!(status, 200);
    let version = world.version_on_disk();
    for expected in
        ["ready\n", "[+] ledger: balances, synced ", &format!("[+] configuration: {version} of "), "[+] certificates: "]
    {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    let (status, words) = world.admin("/config?format=text").await;
    assert_eq!(status, 200);
    let key = world.document["listeners"][0]["tls"]["key"].as_str().unwrap_or_default().to_owned();
    for expected in [
        &format!("configuration {version} of "),
        "contains 3 departments, ",
        "  capacity.inFlight ",
        "  calendar.offset ",
        &key,
    ] {
        assert!(words.contains(expected), "{expected}: {words}");
    }
    assert!(!words.contains("PRIVATE KEY"), "{words}");
    for (path, reason) in [("/readyz?loud", "known parameters: verbose"), ("/config?format=yaml", "write format=text")]
    {
        let (status, body) = world.admin(path).await;
        assert!(status == 400 && body.contains(reason), "{path}: {status} {body}");
    }
    world.close().await;
}

#[tokio::test]
async fn admin_paths_are_unreachable_on_traffic_listeners() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    for path in ["/metrics", "/livez", "/readyz", "/config", "/api/v1/usage"] {
        let reply = client.get(path).await;
        assert_eq!(reply.problem().as_deref(), Some("unknown_command"), "{path}");
    }
    world.close().await;
}

#[tokio::test]
async fn gateway_without_healthy_servers_is_ready_and_names_them() {
    let unused_address = crate::world::reserve_address();
    let world = World::city().cameras_at(unused_address).start().await;
    assert_eq!(world.admin("/readyz").await, (200, "ready\n".to_owned()));
    let client = world.client("traffic-police");
    for _ in 0..5 {
        assert_eq!(client.get("/cameras/v1/snapshots/1").await.status, 502);
    }
    let expected = "ready\nbut every server of cameras is out of rotation\n";
    assert_eq!(world.admin("/readyz").await, (200, expected.to_owned()));
    world.close().await;
}

#[tokio::test]
async fn limits_are_shown_with_their_usage() {
    let limited = |document: &mut serde_json::Value| {
        document["departments"][0]["limits"] = serde_json::json!({ "rate": "30/m", "burst": 90, "concurrent": 7 });
    };
    let world = with_quota().edit(limited).start().await;
    let metrics = world.metrics().await;
    for (limit, value) in [("rate", 0.5), ("burst", 90.0), ("concurrent", 7.0)] {
        let labels = [("department", "traffic-police"), ("limit", limit)];
        assert_eq!(metrics.value("tallygate_department_limit", &labels), Some(value), "{limit}");
    }
    let labels = [("department", "traffic-police"), ("per", "month"), ("measure", "units")];
    assert_eq!(metrics.value("tallygate_quota_granted", &labels), Some(1000.0));
    world.close().await;
}

#[tokio::test]
async fn commands_in_flight_are_shown_while_they_last() {
    let world = World::city().start().await;
    let client = world.client("traffic-police");
    let held = tokio::spawn(async move { client.get("/cameras/do/wait-a").await.status });
    crate::world::until("one command is in flight", async || {
        let metrics = world.metrics().await;
        (metrics.value("tallygate_commands_in_flight", &[("subsystem", "cameras")]) == Some(1.0)).then_some(())
    })
    .await;
    let by_department = [("department", "traffic-police")];
    let metrics = world.metrics().await;
    assert_eq!(metrics.value("tallygate_department_commands_in_flight", &by_department), Some(1.0));
    assert_eq!(world.metrics().await.sum("tallygate_ledger_imbalance"), 0);
    world.server("cameras").release("a");
    assert_eq!(held.await.unwrap(), 200);
    world.close().await;
}

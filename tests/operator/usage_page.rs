//! The page on which a department reads its own usage, asked by curl with the certificates of two departments, and
//! `tallygate report forecast`. All numbers are compared with the ledger.

use std::time::Duration;

use serde_json::{Value, json};
use tallygate::clock::Clock;

use crate::world::{
    ANY_PORT, GATEWAY, Plan, READ, SUBMIT, Seen, World, empty, request, run, stderr, stdout, tool, whole,
};

const PAGE: &str = "/.well-known/tallygate/usage";

fn noon() -> Clock {
    Clock::manual("2026-10-15T04:30:00Z".parse().expect("a time"))
}

fn city() -> Plan {
    World::city().clock(noon())
}

/// A response that curl received.
struct Curled {
    status: String,
    head: String,
    body: String,
}

/// Asks with curl and the certificate of a department. The test notes the outcome.
async fn curl(world: &World, department: &str, flags: &[&str]) -> Curled {
    let (identity, port) = (world.identity(department), world.gateway_address().port());
    let mut curl = tool("curl");
    curl.args(["-sS", "--max-time", "10", "-D", "-"]).args(flags);
    curl.arg("--cacert").arg(world.pki.authority_file());
    curl.arg("--cert").arg(&identity.certificate_file).arg("--key").arg(&identity.key_file);
    curl.arg("--resolve").arg(format!("{GATEWAY}:{port}:127.0.0.1")).arg(format!("https://{GATEWAY}:{port}{PAGE}"));
    let ended = run(curl).await;
    let shown = stdout(&ended).replace("\r\n", "\n");
    let (head, body) = shown.split_once("\n\n").unwrap_or_else(|| panic!("{shown} {}", stderr(&ended)));
    let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
    Curled { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// The page of a department as JSON, read over HTTP/1.1. It is noted as a command that the gateway answered.
async fn page(world: &mut World, department: &str) -> Value {
    let reply = world.client(department).get(PAGE).await;
    assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, "application/json"), "{}", reply.text());
    world.note_answered_here(department, "tallygate/usage.read", 1);
    serde_json::from_str(&reply.text()).expect("JSON")
}

#[tokio::test]
async fn department_reads_its_own_usage_with_curl_and_none_of_another() {
    let limited = |document: &mut Value| {
        document["departments"][0]["limits"] = json!({ "rate": "50/s", "burst": 99 });
        document["departments"][0]["quotas"] = json!([{ "per": "day", "commands": 100, "warn": [80] }]);
        document["departments"][1]["name"] = json!("Logistics <b>& Sons</b>");
    };
    let mut world = city().edit(limited).start().await;
    let (police, logistics) = (world.client("traffic-police"), world.client("logistics").h2());
    for _ in 0..3 {
        assert_eq!(police.get(READ).await.status, 200);
    }
    assert_eq!(police.get("/cameras/nothing-here").await.status, 404);
    assert_eq!(logistics.send(request("POST", SUBMIT, empty())).await.status, 403);

    let json = curl(&world, "traffic-police", &["--http1.1"]).await;
    assert_eq!(json.status, "200", "{}", json.body);
    let page: Value = serde_json::from_str(&json.body).expect("JSON");
    assert_eq!((&page["department"], &page["month"]["period"]), (&"traffic-police".into(), &"2026-10".into()));
    assert_eq!(
        (&page["today"]["commands"], &page["today"]["refused"], &page["today"]["units"]),
        (&4.into(), &1.into(), &3.into())
    );
    assert_eq!((&page["refused"][0]["outcome"], &page["refused"][0]["month"]), (&"unknown_command".into(), &1.into()));
    assert_eq!((&page["quotas"][0]["used"], &page["quotas"][0]["granted"]), (&3.into(), &100.into()));
    assert_eq!((&page["limits"][0]["value"], &page["data"]["complete_to"]), (&"50/s, burst 99".into(), &Value::Null));
    assert!(page["certificate"]["ends_at"].is_string(), "{page}");

    let html = curl(&world, "logistics", &["--http2", "-H", "Accept: text/html,*/*;q=0.8"]).await;
    assert_eq!(html.status, "200", "{}", html.body);
    assert!(
        html.body.contains("Logistics &lt;b&gt;&amp; Sons&lt;/b&gt;") && html.body.contains("forbidden"),
        "{}",
        html.body
    );
    for field in
        ["content-type: text/html; charset=utf-8", "cache-control: no-store", "x-content-type-options: nosniff"]
    {
        assert!(html.head.contains(field), "{}", html.head);
    }
    assert!(html.head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"), "{}", html.head);
    assert!(!html.body.contains("<script"), "{}", html.body);

    for (body, other) in [(&json.body, "ogistics"), (&html.body, "olice")] {
        assert!(!body.contains(other), "a page names another department: {body}");
    }
    assert!(world.server("cameras").log.all().iter().all(|request| !request.path.contains("well-known")));
    assert_eq!(page_rows(&world), (2, 0), "two reads, no units");
    for department in ["traffic-police", "logistics"] {
        world.log.note(department, Seen::Outcome("ok"));
        world.note_answered_here(department, "tallygate/usage.read", 1);
    }
    world.close().await;
}

/// The reads of usage pages in the ledger, and their units.
fn page_rows(world: &World) -> (u64, u64) {
    let usage = world.usage();
    let rows = usage.0.iter().filter(|(key, _)| key.subsystem == "tallygate");
    rows.fold((0, 0), |sum, (_, count)| (sum.0 + count.commands, sum.1 + count.units))
}

#[tokio::test]
async fn page_has_limits_of_its_own_and_is_there_when_the_quota_is_used_up() {
    let strict = |document: &mut Value| {
        document["departments"][0]["quotas"] = json!([{ "per": "day", "commands": 1 }]);
        document["departments"][0]["limits"] = json!({ "rate": "1/h", "burst": 2 });
    };
    let mut world = city().edit(strict).start().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(client.get(READ).await.problem().as_deref(), Some("quota_exceeded"));
    for read in 0..10 {
        let shown = page(&mut world, "traffic-police").await;
        assert_eq!(
            (&shown["quotas"][0]["is_met"], &shown["quotas"][0]["used"]),
            (&true.into(), &1.into()),
            "read {read}"
        );
    }
    let refused = world.client("traffic-police").get(PAGE).await;
    assert_eq!((refused.problem().as_deref(), refused.header("retry-after")), (Some("rate_limited"), "1"));
    world.stop().await;
    world.start_here().await;
    let shown = page(&mut world, "traffic-police").await;
    assert_eq!((&shown["quotas"][0]["used"], &shown["today"]["commands"]), (&1.into(), &13.into()), "after a restart");
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "rate_limited"), usage.of("traffic-police", "quota_exceeded")), (1, 1));
}

#[tokio::test]
async fn page_is_made_once_a_minute() {
    let mut world = city().start().await;
    let client = world.client("traffic-police");
    let commands = |page: &Value| page["month"]["commands"].as_u64();
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(commands(&page(&mut world, "traffic-police").await), Some(1), "the read itself has not ended");
    assert_eq!(client.get(READ).await.status, 200);
    let (first, logistics) = (page(&mut world, "traffic-police").await, page(&mut world, "logistics").await);
    assert_eq!((commands(&first), &first["made_at"]), (Some(1), &"2026-10-15T04:30:00Z".into()));
    assert_eq!(commands(&logistics), Some(0), "each department has a page of its own");
    world.clock.advance(Duration::from_secs(60));
    let later = page(&mut world, "traffic-police").await;
    assert_eq!((commands(&later), &later["made_at"]), (Some(4), &"2026-10-15T04:31:00Z".into()));
    world.close().await;
}

#[tokio::test]
async fn only_callers_with_a_certificate_of_a_department_read_and_no_subsystem_gets_the_path() {
    let open = |document: &mut Value| {
        let web = json!({ "name": "web", "protocol": "http", "address": ANY_PORT.to_string() });
        document["listeners"].as_array_mut().unwrap().push(web);
        let public = json!({ "id": "public", "callers": [{ "listener": "web" }] });
        document["departments"].as_array_mut().unwrap().push(public);
        document["subsystems"][0]["path"] = json!("/");
        document["subsystems"][0]["otherCommands"] = json!("allow");
    };
    let mut world = city().edit(open).grant("public", "cameras", &["*"]).start().await;
    let web = world.running().listener("web").unwrap();
    let anonymous = async |path: &str| {
        let mut curl = tool("curl");
        curl.args(["-sS", "--max-time", "10", "-w", "\n%{http_code}"]).arg(format!("http://{web}{path}"));
        stdout(&run(curl).await)
    };
    let shown = anonymous(PAGE).await;
    assert!(shown.ends_with("\n403") && shown.contains("only callers with a certificate of a department"), "{shown}");
    world.log.note("public", Seen::Outcome("forbidden"));
    let client = world.client("traffic-police");
    let wrong = client.send(request("POST", PAGE, empty())).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, "GET, HEAD"));
    assert_eq!(client.send(request("GET", PAGE, whole("a body"))).await.status, 413);
    let head = client.send(request("HEAD", PAGE, empty())).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    world.note_answered_here("traffic-police", "tallygate/usage.read", 1);
    assert!(world.server("cameras").log.all().is_empty(), "nothing was forwarded");

    world.reload(|document| document["usagePage"] = json!(false)).await;
    assert_eq!(client.get(PAGE).await.status, 200, "without the page it is a path like any other");
    assert_eq!(world.server("cameras").log.all().len(), 1);
    world.close().await;
}

#[tokio::test]
async fn forecast_of_the_command_line_and_of_the_page_is_exact() {
    let quota = json!([{ "per": "month", "commands": 100 }]);
    let start = Clock::manual("2026-10-15T00:00:00Z".parse().expect("a time"));
    let mut world =
        World::city().clock(start).edit(|document| document["departments"][0]["quotas"] = quota).start().await;
    let client = world.client("traffic-police");
    for _hour in 0..3 {
        for _ in 0..3 {
            assert_eq!(client.get(READ).await.status, 200);
        }
        world.clock.advance(Duration::from_secs(3600));
    }
    world.stop().await;
    let forecast = async |world: &World, more: &[&str]| {
        let base = ["report", "forecast", "--ledger", "data/ledger.db", "--at", "2026-10-15T03:00:00Z"];
        let ended = run(world.tallygate(&[&base[..], more].concat())).await;
        assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
        stdout(&ended)
    };
    let text = forecast(&world, &["--config", "gateway.yaml", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&report["basis"]["hours"], &report["complete_to"]), (&3.into(), &"2026-10-15T03:00:00Z".into()));
    let rows = report["forecasts"].as_array().expect("rows");
    let of = |department: &str| rows.iter().find(|row| row["department"] == department).expect("a row");
    let police = of("traffic-police");
    // 397 hours to come with 3 commands each: 9 + 1191. The quota of 100 is met in the 31st of them.
    assert_eq!((&police["used"], &police["forecast"], &police["greatest"]), (&9.into(), &1200.into(), &1200.into()));
    assert_eq!((&police["quota"], &police["quota_met_at"]), (&100.into(), &"2026-10-16T09:00:00Z".into()));
    assert_eq!(
        (&of("archive")["used"], &of("archive")["forecast"]),
        (&0.into(), &0.into()),
        "configured, without usage"
    );
    let table = forecast(&world, &[]).await;
    assert!(table.contains("stands on   3 complete hours") && !table.contains("archive"), "{table}");
    let refused =
        run(world.tallygate(&["report", "forecast", "--ledger", "data/ledger.db", "--at", "2026-10-15"])).await;
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));

    world.start_here().await;
    let shown = page(&mut world, "traffic-police").await;
    assert_eq!(shown["forecast"]["commands"]["forecast"], 1200);
    assert_eq!(shown["quotas"][0]["met_at"], "2026-10-16T09:00:00Z");
    world.close().await;
}

//! Config reload: a valid configuration goes live, an invalid configuration is rejected with all its problems, and
//! nothing in flight is interrupted.

use serde_json::{Value, json};

use crate::world::{READ, World, empty, request, until};

#[tokio::test]
async fn new_grants_and_routes_apply_after_a_reload() {
    let mut world = World::city().start().await;
    let client = world.client("archive");
    assert_eq!(client.get(READ).await.status, 403);
    world
        .reload(|document| {
            document["grants"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "department": "archive", "subsystem": "cameras", "commands": ["snapshot.read"] }));
            document["subsystems"][0]["commands"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "id": "film.read", "match": { "method": "GET", "path": "/v1/films/{id}" } }));
        })
        .await;
    assert_eq!(client.get(READ).await.status, 200);
    assert_eq!(world.client("traffic-police").get("/cameras/v1/films/1").await.status, 200);
    world.close().await;
}

#[tokio::test]
async fn invalid_configuration_is_shown_with_all_problems_and_the_old_one_stays() {
    let mut world = World::city().start().await;
    let version = world.version_on_disk();
    world.write(|document| {
        document["departments"][0]["limits"] = json!({ "rate": "fast" });
        document["departments"][1]["nam"] = json!("misspelt");
        document["grants"][0]["subsystem"] = json!("camera");
    });
    let problems = world.running().reload().expect_err("three problems");
    assert!(problems.0.len() >= 3, "{problems}");
    let (_, config) = world.admin("/config").await;
    for part in ["departments[0].limits.rate", "nam", "grants[0]", &version] {
        assert!(config.contains(part), "{part} in {config}");
    }
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "the old configuration stays live");
    let metrics = world.metrics().await;
    assert!(metrics.sum("tallygate_config_rejected") >= 1, "{}", metrics.text);
    assert_eq!(metrics.value("tallygate_config_info", &[("version", &version)]), Some(1.0));

    world
        .reload(|document| {
            document["departments"][0]["limits"] = json!({ "rate": "100/s", "burst": 100 });
            document["departments"][1].as_object_mut().unwrap().remove("nam");
            document["grants"][0]["subsystem"] = json!("cameras");
        })
        .await;
    assert_eq!(world.metrics().await.sum("tallygate_config_rejected"), 0, "no configuration is rejected");
    world.close().await;
}

#[tokio::test]
async fn reload_interrupts_no_command_in_flight() {
    let mut world = World::city().start().await;
    let client = world.client("traffic-police").h2();
    let mut stream = client.open(request("GET", "/cameras/do/hold-reload", empty())).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first ");
    world.reload(|document| document["grants"] = json!([])).await;
    assert_eq!(client.get(READ).await.status, 403, "the new rules apply to the same connection");
    world.server("cameras").release("reload");
    assert_eq!(stream.whole().await.text(), "first last", "the old rules apply to the old command");
    world.close().await;
}

#[tokio::test]
async fn changed_file_is_reloaded_without_a_signal() {
    let mut world = World::city().start().await;
    world.write(|document| document["grants"] = json!([]));
    let client = world.client("traffic-police");
    until("the file is read", async || (client.get(READ).await.status == 403).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn sighup_reloads_the_file() {
    let mut world = World::city().start_process().await;
    let client = world.client("traffic-police");
    assert_eq!(client.get(READ).await.status, 200);
    world.write(|document| document["grants"] = json!([]));
    world.process().signal("HUP");
    until("the file is read", async || (client.get(READ).await.status == 403).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn start_only_keys_require_a_restart() {
    let mut world = World::city().start_process().await;
    world.write(|document| document["workers"] = json!(2));
    world.process().signal("HUP");
    until("the log asks for a restart", async || {
        let log = world.log_of_process();
        (log.contains("workers") && log.contains("restart")).then_some(())
    })
    .await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200);
    world.close().await;
}

/// Returns the content of `/config`.
async fn shown(world: &World) -> Value {
    serde_json::from_str(&world.admin("/config").await.1).expect("JSON")
}

#[tokio::test]
async fn keys_that_wait_for_a_restart_are_named_and_others_go_live() {
    let mut world = World::city().start().await;
    assert_eq!(shown(&world).await["restart_needed"], json!([]));
    world
        .reload(|document| {
            document["calendar"]["offset"] = json!("+00:00");
            document["capacity"] = json!({ "connections": 900 });
            document["grants"] = json!([]);
        })
        .await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 403, "the new grants are live");
    assert_eq!(
        shown(&world).await["restart_needed"],
        json!([
            { "path": "calendar.offset", "live": "+08:00", "file": "+00:00" },
            { "path": "capacity.connections", "live": null, "file": "900" },
        ])
    );
    assert_eq!(world.metrics().await.sum("tallygate_config_restart_needed"), 1);
    world.reload(|document| document["gateway"] = json!("tallygate")).await;
    assert_eq!(world.metrics().await.sum("tallygate_config_restart_needed"), 1, "the key still waits for a restart");

    world.stop().await;
    world.start_here().await;
    assert_eq!(shown(&world).await["restart_needed"], json!([]), "the restart has applied the key");
    assert_eq!(world.metrics().await.sum("tallygate_config_restart_needed"), 0);
    world.close().await;
}

#[tokio::test]
async fn reload_logs_its_changes() {
    let mut world = World::city().start_process().await;
    world.write(|document| {
        document["departments"][1]["limits"] = json!({ "rate": "9/s" });
        document["departments"].as_array_mut().unwrap().push(json!({ "id": "parks", "callers": [{ "dns": "parks" }] }));
        document["grants"].as_array_mut().unwrap().remove(1);
    });
    world.process().signal("HUP");
    until("the reload is in the log", async || world.log_of_process().contains("configuration is live").then_some(()))
        .await;
    let log = world.log_of_process();
    let line = log.lines().find(|line| line.contains("configuration is live")).expect("the line");
    for part in [
        &format!("version=\"{}\"", world.version_on_disk()),
        "changed_departments=\"1 added: parks; 1 changed: logistics (limits)\"",
        "changed_grants=\"1 removed: logistics cameras/snapshot.read\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let changes = shown(&world).await["changes"].clone();
    assert_eq!(changes["departments"]["added"], json!({ "count": 1, "names": ["parks"] }));
    assert_eq!(changes["subsystems"], json!({}));
    assert_eq!(changes["grants"]["removed"]["count"], json!(1));
    world.process().signal("HUP");
    until("the file is read again", async || {
        (world.log_of_process().matches("configuration is live").count() > 1).then_some(())
    })
    .await;
    assert_eq!(shown(&world).await["changes"], changes, "a reload without changes keeps the warning");

    let renewed = world.pki.issue_server();
    drop(renewed);
    until("the new certificate is logged", async || {
        let tls = shown(&world).await["changes"]["tls"].clone();
        let name = tls["names"][0].as_str()?;
        (name.starts_with("listener departments: ") && name.contains("server.pem has changed (SHA-256 ")).then_some(())
    })
    .await;
    world.close().await;
}

#[tokio::test]
async fn removed_id_with_usage_is_a_warning() {
    let mut world = World::city().start_process().await;
    let client = world.client("traffic-police");
    for _ in 0..2 {
        assert_eq!(client.get("/cameras/do/status-200").await.status, 200);
    }
    world.write(|document| {
        document["departments"][0]["id"] = json!("police");
        document["departments"].as_array_mut().unwrap().remove(2);
        document["grants"][0]["department"] = json!("police");
        document["subsystems"][0]["commands"][2]["id"] = json!("act");
    });
    world.process().signal("HUP");
    let find = |log: &str, kind: &str| {
        let mut lines = log.lines().filter(|line| line.contains("usage this month") && line.contains("WARN"));
        lines.find(|line| line.contains(&format!("kind=\"{kind}\""))).map(str::to_owned)
    };
    let command = until("the log warns", async || find(&world.log_of_process(), "command")).await;
    assert!(command.contains("id=\"cameras/do\"") && command.contains("successor=\"cameras/act\""), "{command}");
    let department = find(&world.log_of_process(), "department").expect("the earlier warning");
    for part in ["id=\"traffic-police\"", "units=6", "commands=2", "successor=\"police\""] {
        assert!(department.contains(part), "{part} in {department}");
    }
    assert!(!world.log_of_process().contains("archive\""), "an id without usage is no warning");

    world.stop().await;
    let before = world.log_of_process().len();
    world.start_process().await;
    let again = find(&world.log_of_process()[before..], "department").expect("a start logs the warning as well");
    assert!(again.contains("id=\"traffic-police\"") && again.contains("units=6"), "{again}");
    world.close().await;
}

#[tokio::test]
async fn new_server_certificate_is_served_without_dropping_connections() {
    let world = World::city().start().await;
    let old = world.client("traffic-police").h2();
    assert_eq!(old.get(READ).await.status, 200);
    let renewed = world.pki.issue_server(); // the files change; the gateway watches them
    until("new connections see the new certificate", async || {
        let connection = world.client("traffic-police").connect().await.ok()?;
        let shown = connection.get_ref().1.peer_certificates()?.first()?.clone();
        (shown == renewed.chain[0]).then_some(())
    })
    .await;
    assert_eq!(old.get(READ).await.status, 200, "the old connection stays open");
    world.close().await;
}

#[tokio::test]
async fn newly_included_file_is_loaded_without_a_signal() {
    let mut world = World::city().edit(|document| document["include"] = json!(["teams.d/*.yaml"])).start().await;
    let client = world.client("archive");
    assert_eq!(client.get(READ).await.status, 403);
    let team = world.folder().join("teams.d");
    std::fs::create_dir(&team).unwrap();
    let grant = "grants:\n  - department: archive\n    subsystem: cameras\n    commands: [snapshot.read]\n";
    crate::world::replace(&team.join("archive.yaml"), grant);
    until("the new file is read", async || (client.get(READ).await.status == 200).then_some(())).await;

    crate::world::replace(&team.join("archive.yaml"), &grant.replace("archive", "archiv"));
    until("the problem is shown with its position", async || {
        let (_, config) = world.admin("/config").await;
        let shown = ["teams.d/archive.yaml", "\"line\": 2", "grants[0].department", "\\\"archive\\\"?"];
        shown.iter().all(|part| config.contains(part)).then_some(())
    })
    .await;
    assert_eq!(client.get(READ).await.status, 200, "the old configuration stays live");

    std::fs::remove_file(team.join("archive.yaml")).unwrap();
    until("the file is gone", async || (client.get(READ).await.status == 403).then_some(())).await;
    world.write(|document| drop(document.as_object_mut().unwrap().remove("include")));
    world.close().await;
}

#[tokio::test]
async fn rejected_file_is_watched_although_it_never_was_live() {
    let mut world = World::city().start().await;
    let client = world.client("archive");
    let team = world.folder().join("team.yaml");
    crate::world::replace(&team, "grants: [{ department: nobody, subsystem: cameras, commands: [snapshot.read] }]\n");
    world.write(|document| document["include"] = json!(["team.yaml"]));
    until("the file is rejected", async || world.admin("/config").await.1.contains("nobody").then_some(())).await;
    crate::world::replace(&team, "grants: [{ department: archive, subsystem: cameras, commands: [snapshot.read] }]\n");
    until("the corrected file is read", async || (client.get(READ).await.status == 200).then_some(())).await;
    world.close().await;
}

#[tokio::test]
async fn traffic_and_admin_are_served_while_a_configuration_is_compiled() {
    use std::io::Write as _;
    let mut world = World::city().start().await;
    let text = serde_json::to_string(&world.document).unwrap();
    let file = world.config_file();
    std::fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut pipe = std::fs::OpenOptions::new().read(true).write(true).open(&file).unwrap();
    pipe.write_all(&text.as_bytes()[..10]).unwrap();
    let unread = || rustix::io::ioctl_fionread(&pipe).expect("the unread bytes of a pipe");
    until("the beginning of the file is read", async || (unread() == 0).then_some(())).await;
    assert_eq!(world.client("traffic-police").get(READ).await.status, 200, "a new connection");
    assert_eq!(world.admin("/readyz").await.0, 200);
    pipe.write_all(&text.as_bytes()[10..]).unwrap();
    world.write(|document| document["grants"] = json!([]));
    drop(pipe); // only now the read of the pipe ends
    let client = world.client("traffic-police");
    until("the next file is read", async || (client.get(READ).await.status == 403).then_some(())).await;
    world.close().await;
}

//! Active health checks: a server that fails its checks gets no commands. Checks are billed to no department.

use serde_json::{Value, json};

use crate::world::{EJECTED, Plan, READ, Server, World, until};

/// Returns a city whose cameras have two servers with frequent health checks.
fn two_servers() -> (Plan, Server) {
    let second = Server::start();
    let address = second.address;
    let plan = World::city().edit(|document| {
        let first = document["subsystems"][0]["upstreams"][0].clone();
        document["subsystems"][0]["upstreams"] = json!([first, { "url": format!("http://{address}") }]);
        document["subsystems"][0]["balance"] = json!("roundRobin");
        document["subsystems"][0]["healthCheck"] = checked_often();
    });
    (plan, second)
}

fn checked_often() -> Value {
    json!({ "path": "/healthz?deep=1", "interval": "100ms", "timeout": "5s", "rise": 2, "fall": 2 })
}

async fn until_out(world: &World, count: i64) {
    let what = format!("{count} servers are out");
    until(&what, async || (world.metrics().await.sum(EJECTED) == count).then_some(())).await;
}

async fn send(world: &World, count: usize) {
    let client = world.client("traffic-police");
    for _ in 0..count {
        assert_eq!(client.get(READ).await.status, 200);
    }
}

#[tokio::test]
async fn server_that_fails_its_checks_gets_no_commands_until_it_passes_them() {
    let (plan, second) = two_servers();
    second.set_unhealthy(true);
    let mut world = plan.edit(|document| document["workers"] = json!(2)).start().await;
    world.add_server("cameras-2", second);
    until_out(&world, 1).await;
    send(&world, 20).await;
    assert_eq!(world.server("cameras-2").log.all().len(), 0);
    world.server("cameras-2").set_unhealthy(false);
    until_out(&world, 0).await;
    send(&world, 20).await;
    assert!(!world.server("cameras-2").log.all().is_empty());
    let check = world.server("cameras-2").checks.all()[0].clone();
    assert_eq!((check.method.as_str(), check.path.as_str()), ("GET", "/healthz?deep=1"));
    assert_eq!(check.header("x-tallygate-department"), "", "a health check is no command");
    let attempts = world.metrics().await.sum("tallygate_upstream_attempts_total");
    assert_eq!(attempts, 40, "a health check is no attempt");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 40);
}

#[tokio::test]
async fn panic_mode_sends_commands_when_all_servers_fail_their_checks() {
    let (plan, second) = two_servers();
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    world.server("cameras").set_unhealthy(true);
    world.server("cameras-2").set_unhealthy(true);
    until_out(&world, 2).await;
    send(&world, 10).await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 10);
}

#[tokio::test]
async fn reload_keeps_check_results_and_stops_checks_of_removed_servers() {
    let (plan, second) = two_servers();
    second.set_unhealthy(true);
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    until_out(&world, 1).await;
    world
        .reload(|document| {
            document["departments"][0]["name"] = json!("Police");
            document["subsystems"][0]["healthCheck"]["interval"] = json!("1h"); // no further check before the test ends
        })
        .await;
    send(&world, 10).await;
    assert_eq!(world.metrics().await.sum(EJECTED), 1, "the server is still ejected");
    assert_eq!(world.server("cameras-2").log.all().len(), 0);
    let both = world.document["subsystems"][0]["upstreams"].clone();
    world
        .reload(|document| {
            document["subsystems"][0]["upstreams"].as_array_mut().unwrap().pop();
            document["subsystems"][0]["healthCheck"] = checked_often();
        })
        .await;
    let gone = format!("{}", world.server("cameras-2").address);
    until("its health state is removed", async || (!world.metrics().await.text.contains(&gone)).then_some(())).await;
    let (asked, first) = (world.server("cameras-2").checks.all().len(), world.server("cameras").checks.all().len());
    until("the other server is still checked", async || {
        (world.server("cameras").checks.all().len() > first + 2).then_some(())
    })
    .await;
    assert_eq!(world.server("cameras-2").checks.all().len(), asked);
    world
        .reload(|document| {
            document["subsystems"][0]["upstreams"] = both;
            document["subsystems"][0].as_object_mut().unwrap().remove("healthCheck");
        })
        .await;
    send(&world, 10).await;
    assert!(!world.server("cameras-2").log.all().is_empty(), "without health checks the server is healthy");
    world.close().await;
}

#[tokio::test]
async fn server_that_passes_its_checks_again_starts_slowly() {
    let (plan, second) = two_servers();
    second.set_unhealthy(true);
    let mut world = plan.edit(|document| document["subsystems"][0]["slowStart"] = json!("1h")).start().await;
    world.add_server("cameras-2", second);
    until_out(&world, 1).await;
    world.server("cameras-2").set_unhealthy(false);
    until_out(&world, 0).await;
    send(&world, 110).await;
    let share = world.server("cameras-2").log.all().len();
    assert!((9..=11).contains(&share), "{share} of 110 commands; 10 are expected in slow start");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 110);
}

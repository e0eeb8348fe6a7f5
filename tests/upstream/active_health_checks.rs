//! Active health checks: a server that fails its checks gets no commands. Checks are billed to no department.

use serde_json::{Value, json};

use crate::world::{Plan, Server, World, until};

const READ: &str = "/cameras/v1/snapshots/1";
const EJECTED: &str = "tallygate_upstream_ejected";

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
async fn a_server_that_fails_its_checks_gets_no_commands_until_it_passes_them() {
    let (plan, second) = two_servers();
    second.set_ill(true);
    let mut world = plan.edit(|document| document["workers"] = json!(2)).start().await;
    world.add_server("cameras-2", second);
    until_out(&world, 1).await;
    send(&world, 20).await;
    assert_eq!(world.server("cameras-2").log.all().len(), 0);
    world.server("cameras-2").set_ill(false);
    until_out(&world, 0).await;
    send(&world, 20).await;
    assert!(!world.server("cameras-2").log.all().is_empty());
    let check = world.server("cameras-2").checks.all()[0].clone();
    assert_eq!((check.method.as_str(), check.path.as_str()), ("GET", "/healthz?deep=1"));
    assert_eq!(check.header("x-tallygate-department"), "", "a check is nobody's command");
    let attempts = world.metrics().await.sum("tallygate_upstream_attempts_total");
    assert_eq!(attempts, 40, "a check is no attempt");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 40);
}

#[tokio::test]
async fn when_all_servers_fail_their_checks_commands_are_sent_all_the_same() {
    let (plan, second) = two_servers();
    let mut world = plan.start().await;
    world.add_server("cameras-2", second);
    world.server("cameras").set_ill(true);
    world.server("cameras-2").set_ill(true);
    until_out(&world, 2).await;
    send(&world, 10).await;
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 10);
}

#[tokio::test]
async fn a_reload_keeps_what_checks_have_said_and_ends_the_checks_of_servers_that_go() {
    let (plan, second) = two_servers();
    second.set_ill(true);
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
    assert_eq!(world.metrics().await.sum(EJECTED), 1, "it is still out");
    assert_eq!(world.server("cameras-2").log.all().len(), 0);
    let both = world.document["subsystems"][0]["upstreams"].clone();
    world
        .reload(|document| {
            document["subsystems"][0]["upstreams"].as_array_mut().unwrap().pop();
            document["subsystems"][0]["healthCheck"] = checked_often();
        })
        .await;
    let gone = format!("{}", world.server("cameras-2").address);
    until("it is forgotten", async || (!world.metrics().await.text.contains(&gone)).then_some(())).await;
    let (asked, first) = (world.server("cameras-2").checks.all().len(), world.server("cameras").checks.all().len());
    until("the other is still asked", async || (world.server("cameras").checks.all().len() > first + 2).then_some(()))
        .await;
    assert_eq!(world.server("cameras-2").checks.all().len(), asked);
    world
        .reload(|document| {
            document["subsystems"][0]["upstreams"] = both;
            document["subsystems"][0].as_object_mut().unwrap().remove("healthCheck");
        })
        .await;
    send(&world, 10).await;
    assert!(!world.server("cameras-2").log.all().is_empty(), "without checks nothing is held against it");
    world.close().await;
}

#[tokio::test]
async fn a_server_that_passes_its_checks_again_starts_slowly() {
    let (plan, second) = two_servers();
    second.set_ill(true);
    let mut world = plan.edit(|document| document["subsystems"][0]["slowStart"] = json!("1h")).start().await;
    world.add_server("cameras-2", second);
    until_out(&world, 1).await;
    world.server("cameras-2").set_ill(false);
    until_out(&world, 0).await;
    send(&world, 110).await;
    let share = world.server("cameras-2").log.all().len();
    assert!((9..=11).contains(&share), "{share} of 110 commands; a tenth of its share is 10");
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 110);
}

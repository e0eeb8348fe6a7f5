//! Tests of the harness: its audit must be able to fail.

use crate::world::{READ, Seen, World, ask};

#[tokio::test]
#[should_panic(expected = "traffic-police saw 2 commands end with ok, the ledger holds 1")]
async fn response_missing_in_the_ledger_fails_its_test() {
    let world = World::city().start().await;
    world.client("traffic-police").get(READ).await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
#[should_panic(expected = "without a response, only")]
async fn command_without_a_client_request_fails_its_test() {
    let world = World::city().start().await;
    world.client("traffic-police").get(READ).await;
    let mut unseen = world.client("traffic-police").connect().await.unwrap();
    ask(&mut unseen, READ).await;
    world.close().await;
}

#[tokio::test]
#[should_panic(expected = "only 0 reached a subsystem")]
async fn response_without_a_subsystem_response_fails_its_test() {
    let mut world = World::city().start().await;
    world.client("traffic-police").get(READ).await;
    let server = world.remove_server("cameras"); // drops the log of received requests as well
    drop(server);
    world.close().await;
}

#[tokio::test]
#[should_panic(expected = "its books were not audited")]
async fn world_that_is_not_closed_fails_its_test() {
    let world = World::city().build();
    drop(world);
}

//! Tests of the harness: its audit must be able to fail.

use crate::world::{Seen, World, ask};

const READ: &str = "/cameras/v1/snapshots/1";

#[tokio::test]
#[should_panic(expected = "traffic-police saw 2 commands end with ok, the ledger holds 1")]
async fn an_answer_that_is_not_in_the_ledger_fails_its_test() {
    let world = World::city().start().await;
    world.client("traffic-police").get(READ).await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.close().await;
}

#[tokio::test]
#[should_panic(expected = "that nobody answered for")]
async fn a_command_that_no_caller_sent_fails_its_test() {
    let world = World::city().start().await;
    world.client("traffic-police").get(READ).await;
    let mut unseen = world.client("traffic-police").connect().await.unwrap();
    ask(&mut unseen, READ).await;
    world.close().await;
}

#[tokio::test]
#[should_panic(expected = "only 0 reached a subsystem")]
async fn an_answer_that_no_subsystem_gave_fails_its_test() {
    let mut world = World::city().start().await;
    world.client("traffic-police").get(READ).await;
    let server = world.remove_server("cameras"); // drops the log of received requests as well
    drop(server);
    world.close().await;
}

#[tokio::test]
#[should_panic(expected = "its books were not audited")]
async fn a_world_that_is_not_closed_fails_its_test() {
    let world = World::city().build();
    drop(world);
}

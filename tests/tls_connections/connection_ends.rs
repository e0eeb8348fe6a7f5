//! How a connection ends: by silence, by its server, by its caller, with its listener, and with the gateway.

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::connection_server::{
    BROKER, Caller, FAREWELL, caller_config, callers_agree, city_with_server, connect, passing_city,
};
use crate::world::{IN_FLIGHT, Seen, World, until, within};

async fn talk(world: &World) -> Caller {
    let mut caller = connect(world, BROKER, caller_config(&world.pki, None)).await.unwrap();
    caller.echo(b"hello").await;
    caller
}

async fn ended(caller: &mut Caller) {
    let _ = within("the end", caller.stream.read(&mut [0])).await; // an end or a reset
}

#[tokio::test]
async fn silence_of_both_sides_ends_a_connection() {
    let (plan, _server) = city_with_server().await;
    let plan = plan.edit(|document| document["subsystems"][1]["timeouts"] = json!({ "idle": "300ms" }));
    let mut world = plan.start().await;
    world.note_foreign_server();
    let mut caller = talk(&world).await;
    ended(&mut caller).await;
    world.log.note("traffic-police", Seen::Outcome("timeout"));
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "timeout"), 1);
    callers_agree(&usage, "traffic-police", &[&caller]);
}

#[tokio::test]
async fn server_that_ends_first_still_gets_the_bytes_of_its_caller() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut world = passing_city(&[listener.local_addr().unwrap()]).start().await;
    world.note_foreign_server();
    let serving = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.shutdown().await.unwrap(); // before it has read anything
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        heard.len() as u64
    });
    assert!(connect(&world, BROKER, caller_config(&world.pki, None)).await.is_err());
    let heard = within("the server hears the end", serving).await.unwrap();
    world.log.note("traffic-police", Seen::Open);
    let counted = world.close().await.admitted("traffic-police");
    assert_eq!((counted.commands, counted.request_bytes, counted.response_bytes), (1, heard, 0));
}

#[tokio::test]
async fn removed_listener_interrupts_its_connections_after_the_grace_period() {
    let (plan, _server) = city_with_server().await;
    let plan = plan.edit(|document| {
        document["shutdown"]["grace"] = json!("2s");
        let mut second = document["listeners"][0].clone();
        second["name"] = json!("second");
        document["listeners"].as_array_mut().unwrap().push(second);
    });
    let mut world = plan.start().await;
    world.note_foreign_server();
    let mut caller = talk(&world).await;
    world
        .reload(|document| {
            document["listeners"].as_array_mut().unwrap().remove(0);
        })
        .await;
    caller.echo(b"within the grace period").await;
    ended(&mut caller).await;
    world.log.note("traffic-police", Seen::Outcome("interrupted"));
    assert_eq!(world.close().await.of("traffic-police", "interrupted"), 1);
}

#[tokio::test]
async fn stopping_gateway_lets_connections_end_within_the_grace_period() {
    let (plan, _server) = city_with_server().await;
    let plan = plan.edit(|document| document["shutdown"]["grace"] = json!("2s"));
    let mut world = plan.start().await;
    world.note_foreign_server();
    let (mut patient, mut endless) = (talk(&world).await, talk(&world).await);
    let stopping = world.stop();
    let ending = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        patient.echo(b"still there").await;
        assert_eq!(patient.end().await, FAREWELL);
    };
    tokio::join!(stopping, ending);
    ended(&mut endless).await;
    world.log.note("traffic-police", Seen::Outcome("ok"));
    world.log.note("traffic-police", Seen::Outcome("interrupted"));
    let usage = world.close().await;
    assert_eq!((usage.of("traffic-police", "ok"), usage.of("traffic-police", "interrupted")), (1, 1));
    callers_agree(&usage, "traffic-police", &[&patient, &endless]);
}

#[tokio::test]
async fn owner_that_is_disabled_loses_its_connections() {
    let (plan, _server) = city_with_server().await;
    let plan = plan.edit(|document| document["shutdown"]["grace"] = json!("300ms"));
    let mut world = plan.start().await;
    world.note_foreign_server();
    let mut caller = talk(&world).await;
    world.reload(|document| document["departments"][0]["disabled"] = json!(true)).await;
    ended(&mut caller).await;
    until("nothing is in flight", async || (world.metrics().await.sum(IN_FLIGHT) == 0).then_some(())).await;
    world.log.note("traffic-police", Seen::Open);
    assert_eq!(world.close().await.of("traffic-police", "aborted"), 1);
}

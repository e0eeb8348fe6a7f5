//! gRPC with tonic at both ends: callers over mTLS, and the subsystem by prior knowledge. Guarantees, for all four
//! kinds of call:
//! - Metadata, trailers, and status with details are the same as without a gateway.
//! - Deadlines and cancellation are the same as without a gateway.
//! - The books agree with the caller and the subsystem.

mod cameras;

use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status, Streaming};

use cameras::{CameraLog, Raw};

use crate::world::{GATEWAY, Seen, Usage, World, until, within};

const METHODS: [&str; 8] = ["Submit", "Fail", "Wait", "Gather", "Watch", "Break", "Linger", "Talk"];

/// A city whose cameras are a tonic server, with a tonic caller.
struct TonicCity {
    world: World,
    caller: TonicCaller,
    log: CameraLog,
}

struct TonicCaller(Grpc<Channel>);

async fn city(change: impl FnOnce(&mut Value)) -> TonicCity {
    let (address, log) = cameras::start().await;
    let command =
        |method: &str| json!({ "id": method.to_lowercase(), "match": { "grpc": format!("city.Cameras/{method}") } });
    let commands: Vec<Value> = METHODS.into_iter().chain(["Secret"]).map(command).collect();
    let plan = World::city().edit(|document| {
        document["subsystems"][0] = json!({
            "id": "cameras",
            "protocol": "http2",
            "upstreams": [{ "url": format!("http://{address}") }],
            "commands": commands,
        });
        let granted: Vec<String> = METHODS.iter().map(|method| method.to_lowercase()).collect();
        document["grants"] = json!([{ "department": "traffic-police", "subsystem": "cameras", "commands": granted }]);
        change(document);
    });
    let mut world = plan.start().await;
    world.note_foreign_server(); // each test compares this server's log
    let caller = TonicCaller::connect(&world).await;
    TonicCity { world, caller, log }
}

impl TonicCaller {
    async fn connect(world: &World) -> Self {
        let identity = world.identity("traffic-police");
        let read = |file: &std::path::Path| std::fs::read(file).unwrap();
        let tls = ClientTlsConfig::new()
            .domain_name(GATEWAY)
            .ca_certificate(Certificate::from_pem(read(&world.pki.authority_file())))
            .identity(Identity::from_pem(read(&identity.certificate_file), read(&identity.key_file)));
        let endpoint = Endpoint::from_shared(format!("https://{}", world.gateway_address())).unwrap();
        let endpoint = endpoint.origin(format!("https://{GATEWAY}").parse().unwrap()).tls_config(tls).unwrap();
        Self(Grpc::new(within("tonic connects", endpoint.connect()).await.unwrap()))
    }

    /// Returns a client that is ready for one call.
    async fn ready(&self) -> Grpc<Channel> {
        let mut grpc = self.0.clone();
        within("the channel is ready", grpc.ready()).await.unwrap();
        grpc
    }

    async fn unary(&self, method: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let mut grpc = self.ready().await;
        within(method, grpc.unary(request, path(method), Raw)).await
    }

    async fn watch(&self, method: &str, request: Request<Bytes>) -> Result<Streaming<Bytes>, Status> {
        let mut grpc = self.ready().await;
        Ok(within(method, grpc.server_streaming(request, path(method), Raw)).await?.into_inner())
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    format!("/city.Cameras/{method}").parse().unwrap()
}

fn ask(text: &'static str) -> Request<Bytes> {
    Request::new(Bytes::from_static(text.as_bytes()))
}

async fn next(answers: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Status> {
    within("the next message", answers.message()).await
}

impl TonicCity {
    fn saw(&self, outcome: &'static str) {
        self.world.log.note("traffic-police", Seen::Outcome(outcome));
    }

    /// Audits the books. For each method, the ledger must hold as many calls as the subsystem received.
    async fn close(self) -> Usage {
        let calls = until("every call is over", async || {
            let calls = self.log.all();
            calls.iter().all(|call| !call.open).then_some(calls)
        });
        let calls = calls.await;
        let usage = self.world.close().await;
        assert!(calls.iter().all(|call| call.department == "traffic-police"), "{calls:?}");
        for method in METHODS {
            let reached = calls.iter().filter(|call| call.method == method).count() as u64;
            assert_eq!(of_method(&usage, method).0, reached, "{method}: {calls:?} {usage:#?}");
        }
        usage
    }
}

/// Returns commands, request bytes and response bytes of a method.
fn of_method(usage: &Usage, method: &str) -> (u64, u64, u64) {
    let rows = usage.0.iter().filter(|(key, _)| key.command == method.to_lowercase());
    rows.fold((0, 0, 0), |(commands, up, down), (_, count)| {
        (commands + count.commands, up + count.request_bytes, down + count.response_bytes)
    })
}

#[tokio::test]
async fn all_four_kinds_of_call_pass_and_their_bytes_are_counted_exactly() {
    let city = city(|_| ()).await;
    let mut submit = ask("snapshot");
    submit.metadata_mut().insert_bin("x-seal-bin", MetadataValue::from_bytes(&[0, 1, 255]));
    let answer = city.caller.unary("Submit", submit).await.unwrap();
    assert_eq!(answer.metadata().get("x-told-by").unwrap(), "cameras");
    assert_eq!(answer.metadata().get_bin("x-seal-bin").unwrap().to_bytes().unwrap().as_ref(), [0, 1, 255]);
    assert_eq!(answer.into_inner(), "got snapshot");
    city.saw("ok");

    let pieces = stream::iter(vec![Bytes::from(vec![b'x'; 40_000]); 5]);
    let mut grpc = city.caller.ready().await;
    let sum = within("Gather", grpc.client_streaming(Request::new(pieces), path("Gather"), Raw)).await.unwrap();
    assert_eq!(sum.into_inner(), "200000");
    city.saw("ok");

    let mut events = city.caller.watch("Watch", ask("3")).await.unwrap();
    for n in 0..3 {
        assert_eq!(next(&mut events).await.unwrap().unwrap(), format!("event {n}"));
    }
    assert_eq!(next(&mut events).await.unwrap(), None);
    assert_eq!(events.trailers().await.unwrap().unwrap().get("x-told-by"), None);
    city.saw("ok");

    // Each side sends after it has received the other side's message, twice: the gateway holds no message back.
    let (sender, mut messages) = tokio::sync::mpsc::unbounded_channel();
    let messages = stream::poll_fn(move |context| messages.poll_recv(context));
    let mut grpc = city.caller.ready().await;
    let mut received =
        within("Talk", grpc.streaming(Request::new(messages), path("Talk"), Raw)).await.unwrap().into_inner();
    for word in ["one", "two"] {
        sender.send(Bytes::from(word)).unwrap();
        assert_eq!(next(&mut received).await.unwrap().unwrap(), format!("heard {word}"));
    }
    drop(sender);
    assert_eq!(next(&mut received).await.unwrap(), None);
    city.saw("ok");

    assert!(city.log.all().iter().all(|call| !call.cancelled), "{:?}", city.log.all());
    let usage = city.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
    // Each message has a prefix of five bytes: the compression flag, and the length.
    assert_eq!(of_method(&usage, "Submit"), (1, 5 + 8, 5 + 12));
    assert_eq!(of_method(&usage, "Gather"), (1, 5 * (5 + 40_000), 5 + 6));
    assert_eq!(of_method(&usage, "Watch"), (1, 5 + 1, 3 * (5 + 7)));
    assert_eq!(of_method(&usage, "Talk"), (1, 2 * (5 + 3), 2 * (5 + 9)));
}

/// Status codes caused by the caller. All other codes except 0 are the subsystem's failures.
const CALLERS: [i32; 10] = [1, 3, 5, 6, 7, 8, 9, 10, 11, 16];

#[tokio::test]
async fn every_status_has_its_details_and_its_outcome() {
    let city = city(|_| ()).await;
    for code in 1..=16 {
        let status = city.caller.unary("Fail", Request::new(code.to_string().into())).await.unwrap_err();
        assert_scripted_status(&status, Code::from_i32(code));
        city.saw(if CALLERS.contains(&code) { "client_error" } else { "server_error" });
    }
    // A status after messages, in the trailers.
    let mut events = city.caller.watch("Break", ask("2")).await.unwrap();
    for n in 0..2 {
        assert_eq!(next(&mut events).await.unwrap().unwrap(), format!("event {n}"));
    }
    assert_scripted_status(&next(&mut events).await.unwrap_err(), Code::DataLoss);
    city.saw("server_error");

    for (method, code, outcome) in
        [("Secret", Code::PermissionDenied, "forbidden"), ("Nothing", Code::Unimplemented, "unknown_command")]
    {
        let status = city.caller.unary(method, ask("")).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().starts_with(outcome), "{status:?}");
        city.saw(outcome);
    }
    let usage = city.close().await;
    assert_eq!((usage.of("traffic-police", "client_error"), usage.of("traffic-police", "server_error")), (10, 7));
}

fn assert_scripted_status(status: &Status, code: Code) {
    assert_eq!((status.code(), status.message(), status.details()), (code, "as told: 100 %", [0, 1, 255].as_slice()));
    assert_eq!(status.metadata().get("x-told-by").unwrap(), "cameras");
}

#[tokio::test]
async fn deadline_ends_a_stream_that_both_ends_leave_open() {
    // tonic enforces a deadline until the response head. After that, the gateway ends the call.
    let city = city(|_| ()).await;
    let mut asked = ask("1");
    asked.set_timeout(std::time::Duration::from_secs(2));
    let mut events = city.caller.watch("Linger", asked).await.unwrap();
    assert_eq!(next(&mut events).await.unwrap().unwrap(), "event 0");
    let status = next(&mut events).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    city.saw("timeout");
    let ended =
        until("the subsystem gets the cancellation", async || city.log.of("Linger").pop().filter(|call| !call.open))
            .await;
    assert!(ended.cancelled);
    let deadline = ended.timeout.unwrap();
    let left: u64 = deadline.strip_suffix('m').unwrap().parse().unwrap();
    assert!(left <= 2000, "{deadline}");
    let usage = city.close().await;
    assert_eq!(usage.of("traffic-police", "timeout"), 1);
}

#[tokio::test]
async fn deadline_is_at_most_the_timeout_of_the_subsystem() {
    let city = city(|document| document["subsystems"][0]["timeouts"] = json!({ "deadline": "400ms" })).await;
    let mut asked = ask("");
    asked.set_timeout(std::time::Duration::from_secs(3600));
    let status = city.caller.unary("Wait", asked).await.unwrap_err();
    // The gateway's timer and the subsystem's timer expire at the same moment; for its own timer, a tonic server
    // reports "cancelled".
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    city.world.log.note("traffic-police", Seen::Open);
    until("the subsystem gets the cancellation", async || city.log.of("Wait").pop().filter(|call| call.cancelled))
        .await;
    assert_eq!(city.log.of("Wait")[0].timeout.as_deref(), Some("400m"));
    let usage = city.close().await;
    let ended = ["timeout", "client_error", "server_error"].map(|outcome| usage.of("traffic-police", outcome));
    assert_eq!(ended.iter().sum::<u64>(), 1, "{usage:?}");
}

#[tokio::test]
async fn cancelled_call_ends_at_the_subsystem_and_is_counted_as_aborted() {
    let city = city(|_| ()).await;
    // Before the response begins,
    let mut grpc = city.caller.ready().await;
    let waiting = tokio::spawn(async move { grpc.unary(ask(""), path("Wait"), Raw).await.map(drop) });
    until("the call arrives", async || city.log.of("Wait").pop()).await;
    waiting.abort();
    until("the call ends", async || city.log.of("Wait").pop().filter(|call| call.cancelled)).await;
    // and in the middle of the response.
    let mut events = city.caller.watch("Linger", ask("1")).await.unwrap();
    assert_eq!(next(&mut events).await.unwrap().unwrap(), "event 0");
    drop(events);
    until("the stream ends", async || city.log.of("Linger").pop().filter(|call| call.cancelled)).await;
    (0..2).for_each(|_| city.world.log.note("traffic-police", Seen::Open));
    // The connection that carried both calls carries further calls.
    assert_eq!(city.caller.unary("Submit", ask("still")).await.unwrap().into_inner(), "got still");
    city.saw("ok");
    let usage = city.close().await;
    assert_eq!((usage.of("traffic-police", "aborted"), usage.of("traffic-police", "ok")), (2, 1));
}

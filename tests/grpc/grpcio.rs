//! gRPC through the gateway, with foreign callers and subsystems (Python's grpcio). Every kind of call, its status, its
//! deadline and its end are the same as without a gateway, and are counted under the right outcome.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::world::{GATEWAY, Process, Seen, World, run, stderr, stdout, tool};

/// Returns a Python program of `tests/foreign`, run by Debian's own Python, which has Debian's grpcio.
pub fn python(program: &str) -> Command {
    let mut python = tool("python3");
    python.arg(format!("{}/tests/foreign/{program}", env!("CARGO_MANIFEST_DIR")));
    python
}

/// Starts the subsystem. Returns its process, its port, and its log output.
fn subsystem() -> (Process, u16, BufReader<std::process::ChildStdout>) {
    let mut process = Process::spawn(python("grpc_server.py").stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut output = BufReader::new(process.0.stdout.take().unwrap());
    let mut port = String::new();
    output.read_line(&mut port).unwrap();
    (process, port.trim().parse().unwrap(), output)
}

fn grpc_city(document: &mut Value, port: u16) {
    let call = |id: &str, method: &str| json!({ "id": id, "match": { "grpc": method } });
    document["subsystems"][0] = json!({
        "id": "cameras",
        "protocol": "http2",
        "upstreams": [{ "url": format!("http://127.0.0.1:{port}") }],
        "commands": [
            call("submit", "city.Cameras/Submit"),
            call("watch", "city.Cameras/Watch"),
            call("gather", "city.Cameras/Gather"),
            call("talk", "city.Cameras/Talk"),
            call("fail", "city.Cameras/Fail"),
            call("wait", "city.Cameras/Wait"),
            call("secret", "city.Cameras/Secret"),
        ],
    });
    let granted = json!(["submit", "watch", "gather", "talk", "fail", "wait"]);
    document["grants"] = json!([{ "department": "traffic-police", "subsystem": "cameras", "commands": granted }]);
}

#[tokio::test]
async fn all_four_kinds_of_call_pass_and_are_counted_by_their_grpc_status() {
    let (process, port, log) = subsystem();
    let mut world = World::city().edit(|document| grpc_city(document, port)).start().await;
    let identity = world.identity("traffic-police");
    let mut client = python("grpc_client.py");
    client.arg(world.gateway_address().port().to_string()).arg(GATEWAY).arg(world.pki.authority_file());
    client.arg(&identity.certificate_file).arg(&identity.key_file);
    let ended = run(client).await;
    let seen: Vec<Value> = stdout(&ended).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |call: &str| {
        seen.iter().find(|seen| seen["call"] == call).unwrap_or_else(|| panic!("{call}: {}", stderr(&ended)))
    };

    assert_eq!(*of("Submit"), json!({ "call": "Submit", "answer": "got snapshot", "told": "cameras" }));
    assert_eq!(of("Watch")["answers"], json!(["event 0", "event 1", "event 2"]));
    assert_eq!(of("Gather")["answer"], "200000");
    assert_eq!(of("Talk")["answers"], json!(["heard one", "heard two"]));
    for code in [5, 14] {
        let fail = of(&format!("Fail {code}"));
        assert_eq!((&fail["code"], &fail["details"]), (&json!(code), &json!("as told: 100 %")));
    }
    for (call, code) in [("Wait", 4), ("Unknown", 12), ("Forbidden", 7)] {
        assert_eq!(of(call)["code"], code, "{:?}", of(call));
    }
    assert_eq!(of("Cancelled")["cancelled"], true);

    drop(process);
    let log: Vec<String> = log.lines().map_while(Result::ok).collect();
    assert!(log.iter().all(|line| line.ends_with(" traffic-police")), "{log:?}");
    for (outcome, times) in
        [("ok", 4), ("client_error", 1), ("server_error", 1), ("unknown_command", 1), ("forbidden", 1)]
    {
        (0..times).for_each(|_| world.log.note("traffic-police", Seen::Outcome(outcome)));
    }
    // The call that exceeds its deadline may be ended by its caller or by the gateway. The cancelled call may not have
    // been sent.
    (0..2).for_each(|_| world.log.note("traffic-police", Seen::Open));
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "ok"), 4);
    assert_eq!(usage.of("traffic-police", "client_error"), 1);
    // The subsystem may report the exceeded deadline before the caller or the gateway does.
    assert!((1..=2).contains(&usage.of("traffic-police", "server_error")));
    assert_eq!(usage.of("traffic-police", "unknown_command") + usage.of("traffic-police", "forbidden"), 2);
    // The cancelled call may have been cancelled before it was sent, or before it reached the subsystem.
    let (reached, admitted) = (log.len() as u64, usage.admitted("traffic-police").commands);
    assert!((7..=admitted).contains(&reached) && admitted <= 8, "{admitted} admitted: {log:?}");
}

#[tokio::test]
async fn unreachable_grpc_subsystem_has_a_grpc_status() {
    let (process, port, _log) = subsystem();
    drop(process);
    let mut world = World::city().edit(|document| grpc_city(document, port)).start().await;
    let mut call = crate::world::request("POST", "/city.Cameras/Submit", crate::world::empty());
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let reply = world.client("traffic-police").h2().send(call).await;
    assert_eq!((reply.status.as_u16(), reply.header("grpc-status")), (200, "14"));
    assert_eq!(reply.header("content-type"), "application/grpc");
    world.note_foreign_server();
    let usage = world.close().await;
    assert_eq!(usage.of("traffic-police", "unreachable"), 1);
}

//! Large bodies, up and down, over every pair of protocols. Flow control and backpressure keep the gateway's memory
//! bounded, and every byte is counted.

use bytes::Bytes;
use serde_json::json;

use crate::world::{Usage, World, empty, memory, request, whole};

/// The length of a large body: many times the amount that may be buffered on the way.
const LARGE: usize = 100 << 20;

/// The permitted growth of the gateway's memory while large bodies cross it, one after another. One stream may buffer
/// about 1 MiB (docs/security.md):
/// - towards the caller: 64 KiB of window + 192 KiB not yet sent + one read;
/// - towards the subsystem: 64 KiB of window + 128 KiB sent ahead + one read of 64 KiB.
///
/// The rest is for TLS and for memory that the allocator keeps. The limit is a twelfth of the body, so a gateway that
/// buffers a body, or a large part of one, fails.
const GROWTH_MAX: u64 = 8 << 20;

/// The growth of a process's peak memory since this value was created.
struct Growth {
    process: u32,
    before: u64,
}

impl Growth {
    fn from_now(process: u32) -> Self {
        std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap(); // resets VmHWM to VmRSS
        Self { process, before: memory(process, "VmHWM") }
    }

    fn so_far(&self) -> u64 {
        memory(self.process, "VmHWM").saturating_sub(self.before)
    }
}

fn bytes_of(usage: &Usage, subsystem: &str, command: &str) -> (u64, u64) {
    let rows = usage.0.iter().filter(|(key, _)| key.subsystem == subsystem && key.command == command);
    rows.fold((0, 0), |(up, down), (_, count)| (up + count.request_bytes, down + count.response_bytes))
}

#[tokio::test]
async fn large_body_is_streamed_in_bounded_memory_and_counted_exactly() {
    let plan = World::city().subsystem("vault").grant("traffic-police", "vault", &["*"]).edit(|document| {
        document["subsystems"][1]["protocol"] = json!("http2");
        for subsystem in 0..2 {
            document["subsystems"][subsystem]["commands"][0]["body"] = json!({ "max": "128MiB" });
        }
    });
    let world = plan.start_process().await;
    let callers = world.clients("traffic-police");
    let ways = callers.iter().flat_map(|caller| ["cameras", "vault"].map(|subsystem| (caller, subsystem)));
    for (caller, subsystem) in ways.clone() {
        // The first command warms up the gateway: its memory is not part of the measurement.
        assert_eq!(caller.get(&format!("/{subsystem}/v1/snapshots/1")).await.status, 200);
    }
    let (growth, body) = (Growth::from_now(world.process_id()), Bytes::from(vec![b'u'; LARGE]));
    let mut grown = Vec::new();
    for (caller, subsystem) in ways {
        let upload = request("POST", &format!("/{subsystem}/v1/snapshots"), whole(body.clone()));
        assert_eq!(caller.send(upload).await.status, 200);
        grown.push(growth.so_far());
        let download = caller.open(request("GET", &format!("/{subsystem}/do/bytes-{LARGE}"), empty())).await.unwrap();
        assert_eq!(download.drained().await, LARGE as u64);
        grown.push(growth.so_far());
    }
    eprintln!("the most memory beyond that of the start, after each body: {grown:?}");
    assert!(grown.iter().all(|grown| *grown <= GROWTH_MAX), "{grown:?}");
    for subsystem in ["cameras", "vault"] {
        let received = world.server(subsystem).log.all();
        let received: Vec<u64> = received.iter().map(|received| received.bytes()).filter(|bytes| *bytes > 0).collect();
        assert_eq!(received, [LARGE as u64; 2], "{subsystem}");
    }
    let usage = world.close().await;
    for subsystem in ["cameras", "vault"] {
        assert_eq!(bytes_of(&usage, subsystem, "snapshot.submit").0, 2 * LARGE as u64, "{subsystem}");
        assert_eq!(bytes_of(&usage, subsystem, "do"), (0, 2 * LARGE as u64), "{subsystem}");
    }
}

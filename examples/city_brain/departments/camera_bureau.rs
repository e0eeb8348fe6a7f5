//! The camera bureau: its cameras upload pictures of vehicles.

use std::time::Duration;

use fastrand::Rng;
use http::HeaderName;
use tallygate::lifecycle::DrainWatcher;

use super::desk::{Call, Desk, Office, Speaks};
use crate::city::{SNAPSHOT_SUBMIT, rest};
use crate::subsystems::Sighting;

const CAMERAS: u16 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// Size of the smallest picture, in bytes. The others are larger by one of [`DOUBLINGS`] powers of two, up to 2 MiB.
const SMALLEST: usize = 24 * 1024;
const LARGEST: usize = 2 * 1024 * 1024;
const DOUBLINGS: u32 = 7;
/// Start of image and an APP0 marker; end of image (ITU-T T.81, table B.1).
const JPEG_START: [u8; 4] = [0xff, 0xd8, 0xff, 0xe0];
const JPEG_END: [u8; 2] = [0xff, 0xd9];

pub(super) fn open(office: &Office, closing: &DrainWatcher) -> anyhow::Result<()> {
    for camera in 1..=CAMERAS {
        let desk = Desk::new(office, "camera-bureau", Speaks::Http1)?;
        tokio::spawn(watch_the_street(desk, camera, closing.clone()));
    }
    Ok(())
}

async fn watch_the_street(mut desk: Desk, camera: u16, mut closing: DrainWatcher) {
    let mut rng = Rng::with_seed(u64::from(camera));
    while rest(&mut closing, PAUSE).await {
        let Ok(sighting) = serde_json::to_string(&sighting(camera, &mut rng)) else { continue };
        let call = Call::post(SNAPSHOT_SUBMIT, "/v1/snapshots", picture(&mut rng))
            .with_header(HeaderName::from_static("x-sighting"), sighting);
        desk.ask(call).await;
    }
}

fn sighting(camera: u16, rng: &mut Rng) -> Sighting {
    let red = rng.u8(..3) == 0;
    let no_stopping = rng.bool();
    Sighting {
        camera,
        plate: format!("F-{:05}", rng.u32(..100_000)),
        red,
        over_line: rng.bool(),
        no_stopping,
        standing_seconds: if red { 0 } else { rng.u32(..120) },
    }
}

/// A JPEG of a plausible size. Small pictures are more frequent than large ones.
fn picture(rng: &mut Rng) -> Vec<u8> {
    let base = SMALLEST << rng.u32(..DOUBLINGS);
    let size = rng.usize(base..base * 2).min(LARGEST);
    let mut bytes = vec![0_u8; size];
    rng.fill(&mut bytes);
    bytes[..4].copy_from_slice(&JPEG_START);
    bytes[size - 2..].copy_from_slice(&JPEG_END);
    bytes
}

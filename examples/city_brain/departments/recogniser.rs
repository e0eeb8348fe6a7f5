//! The recogniser: reads every snapshot's metadata and reports offences, as a separate department.

use tallygate::lifecycle::DrainWatcher;
use tokio::sync::mpsc;

use super::desk::{Call, Desk, Office, Speaks};
use crate::city::INCIDENT_REPORT;
use crate::subsystems::{Incident, Sighting, Taken};

/// A vehicle that stands longer than this in a no-stopping zone is parked.
const PARKED_SECONDS: u32 = 60;

pub(super) fn open(office: &Office, closing: &DrainWatcher, taken: mpsc::Receiver<Taken>) -> anyhow::Result<()> {
    let desk = Desk::new(office, "recogniser", Speaks::Http1)?;
    tokio::spawn(report_offences(desk, taken, closing.clone()));
    Ok(())
}

async fn report_offences(mut desk: Desk, mut taken: mpsc::Receiver<Taken>, mut closing: DrainWatcher) {
    loop {
        let seen = tokio::select! {
            () = closing.begun() => return,
            seen = taken.recv() => seen,
        };
        let Some(seen) = seen else { return };
        if let Some(incident) = incident(&seen) {
            let Ok(text) = serde_json::to_vec(&incident) else { continue };
            desk.ask(Call::post(INCIDENT_REPORT, "/v1/incidents", text)).await;
        }
    }
}

fn incident(seen: &Taken) -> Option<Incident> {
    let offence = offence(&seen.sighting)?.to_owned();
    let Sighting { plate, camera, .. } = seen.sighting.clone();
    Some(Incident { offence, plate, camera, snapshot: seen.snapshot })
}

fn offence(sighting: &Sighting) -> Option<&'static str> {
    if sighting.red && sighting.over_line {
        return Some("red-light running");
    }
    (sighting.no_stopping && sighting.standing_seconds > PARKED_SECONDS).then_some("illegal parking")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_offences_are_reported() {
        for (red, over_line, no_stopping, standing_seconds, expected) in [
            (true, true, false, 0, Some("red-light running")),
            (true, false, false, 0, None),
            (false, true, false, 0, None),
            (false, false, true, 61, Some("illegal parking")),
            (false, false, true, 60, None),
            (false, false, false, 600, None),
        ] {
            let sighting = Sighting { camera: 1, plate: "F-1".into(), red, over_line, no_stopping, standing_seconds };
            assert_eq!(offence(&sighting), expected, "{sighting:?}");
        }
    }
}

//! Traffic police officers: they receive incidents over a stream, read the picture and acknowledge.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tallygate::lifecycle::DrainWatcher;

use super::desk::{Call, Desk, Office, Speaks};
use crate::city::{DUTY_STREAM, INCIDENT_ACKNOWLEDGE, SNAPSHOT_READ, rest};
use crate::subsystems::Notice;

const OFFICERS: u64 = 2;
/// Delay before an officer whose stream ended opens a new one.
const BACK_ON_DUTY: Duration = Duration::from_millis(500);
/// The largest event that an officer's software accepts, in bytes.
const LONGEST_EVENT: usize = 64 * 1024;

/// One officer. The officers divide the incidents by number.
struct Officer {
    number: u64,
    desk: Desk,
}

pub(super) fn open(office: &Office, closing: &DrainWatcher) -> anyhow::Result<()> {
    for number in 0..OFFICERS {
        let desk = Desk::new(office, "traffic-police", Speaks::Http2)?; // stream and requests share one connection
        tokio::spawn(Officer { number, desk }.on_duty(closing.clone()));
    }
    Ok(())
}

impl Officer {
    async fn on_duty(mut self, mut closing: DrainWatcher) {
        while !closing.is_begun() {
            if let Some(response) = self.desk.open(Call::get(DUTY_STREAM, "/v1/duty/stream")).await {
                self.listen(response.into_body()).await;
            }
            rest(&mut closing, BACK_ON_DUTY).await;
        }
    }

    async fn listen(&mut self, mut stream: Incoming) {
        let mut text = Vec::new();
        while let Some(Ok(frame)) = stream.frame().await {
            text.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
            while let Some(event) = next_event(&mut text) {
                self.hear(&event).await;
            }
            if text.len() > LONGEST_EVENT {
                return;
            }
        }
    }

    async fn hear(&mut self, event: &str) {
        let data = event.lines().find_map(|line| line.strip_prefix("data: "));
        let notice = data.and_then(|data| serde_json::from_str::<Notice>(data).ok());
        let Some(notice) = notice.filter(|notice| notice.number % OFFICERS == self.number) else { return };
        let picture = format!("/v1/snapshots/{}", notice.incident.snapshot);
        self.desk.ask(Call::get(SNAPSHOT_READ, picture)).await;
        let receipt = format!("/v1/incidents/{}/acknowledgement", notice.number);
        self.desk.ask(Call::post(INCIDENT_ACKNOWLEDGE, receipt, "")).await;
    }
}

/// Takes the first complete event, which ends with an empty line, from the received bytes.
fn next_event(text: &mut Vec<u8>) -> Option<String> {
    let end = text.windows(2).position(|pair| pair == b"\n\n")?;
    let event: Vec<u8> = text.drain(..end + 2).collect();
    Some(String::from_utf8_lossy(&event).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_parsed_once_it_is_complete() {
        let mut text = b"data: 1\n".to_vec();
        assert_eq!(next_event(&mut text), None);
        text.extend_from_slice(b"\ndata: 2\n\nda");
        assert_eq!(next_event(&mut text).as_deref(), Some("data: 1\n\n"));
        assert_eq!(next_event(&mut text).as_deref(), Some("data: 2\n\n"));
        assert_eq!(next_event(&mut text), None);
        assert_eq!(text, b"da");
    }
}

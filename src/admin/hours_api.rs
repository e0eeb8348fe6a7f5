//! `GET /metrics/hours?by=&back=`: the usage of sealed hours as samples with the time of their hour, for finance.
//!
//! A page of its own, because Prometheus refuses a whole scrape for one sample that is too old for it.
//!
//! Guarantees:
//! - Without `back`, the newest sealed hour is offered, and only for [`OFFER_TIME`]: every Prometheus takes a sample of
//!   this age. With `back`, at most the last [`BACK_HOURS_MAX`] hours are.
//! - At most [`HOUR_PAGES_MAX`] pages are written at a time, each for at most [`PAGE_TIMEOUT`].
//! - A page that cannot be completed ends its connection: no part is taken for the whole.
//!
//! Leaves to others: the hours (`ledger`), the samples (`report`), and the stream (`response_body`).

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::ledger::{HourGrouping, SealedHours};
use crate::model::Window;
use crate::report::{
    CommonLabels, HourSamplesError, SampleFormat, parse_hour_grouping, utc_seconds_text, write_empty_hours,
    write_hour_samples,
};
use crate::telemetry::{LimitHit, Telemetry};

use super::accept_header::preferred_format;
use super::query_text::{read_parameters, store_once};
use super::response::{
    AdminResponse, METRICS_TYPE, OPENMETRICS_TYPE, problem_response, respond, respond_with, unavailable,
};
use super::response_body::{AdminBody, ChunkWriter};
use super::state::AdminState;

/// The longest time since the end of an hour for which it is offered without `back`. A Prometheus drops samples that
/// are about an hour older than its newest one.
const OFFER_TIME: SignedDuration = SignedDuration::from_mins(50);
/// The most hours of one page: a week. Older ones are loaded from `ledger export --format openmetrics`.
const BACK_HOURS_MAX: u32 = 168;
/// The most pages that are written at a time: two replicas of a Prometheus.
const HOUR_PAGES_MAX: usize = 2;
/// The longest time in which a page is written, the waits for its client included.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// The places for pages that are being written.
#[derive(Debug)]
pub struct HourPages(Arc<Semaphore>);

impl Default for HourPages {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HOUR_PAGES_MAX)))
    }
}

impl HourPages {
    /// Takes a place for a page, or returns the response to a request for which there is none.
    fn take_place(&self, telemetry: &Telemetry) -> Result<OwnedSemaphorePermit, Box<AdminResponse>> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            telemetry.count_limit_hit(LimitHit::AdminHourPages);
            let full = format!("{HOUR_PAGES_MAX} pages of hours are being written, which is the limit; retry later");
            Box::new(problem_response(StatusCode::SERVICE_UNAVAILABLE, &full))
        })
    }
}

/// A page while it is written. Its place is free when it is dropped.
struct OpenPage {
    hours: SealedHours,
    format: SampleFormat,
    _place: OwnedSemaphorePermit,
}

/// The parameters of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct HoursQuery {
    grouping: HourGrouping,
    /// The number of hours before the present one; `None` for the newest sealed hour.
    back: Option<u32>,
}

pub(crate) async fn hours_response(state: &AdminState, request: &Parts) -> AdminResponse {
    let query = match HoursQuery::parse(request.uri.query().unwrap_or_default()) {
        Ok(query) => query,
        Err(problem) => return problem_response(StatusCode::BAD_REQUEST, &problem),
    };
    let place = match state.hour_pages.take_place(&state.telemetry) {
        Ok(place) => place,
        Err(response) => return *response,
    };
    let hours = match state.ledger.sealed_hours(query.grouping).await {
        Ok(hours) => hours,
        Err(error) => return unavailable(&error.into()),
    };
    let page = OpenPage { hours, format: preferred_format(&request.headers), _place: place };
    match query.offered_hours(&page.hours, (state.view)().now) {
        Ok(windows) => page.into_response(windows),
        Err(why) => empty_response(page.format, &why),
    }
}

impl HoursQuery {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut by, mut back) = (None, None);
        read_parameters(text, &["by", "back"], |name, value| {
            store_once(if name == "by" { &mut by } else { &mut back }, name, value)
        })?;
        let grouping = by.map_or(Ok(HourGrouping::default()), |by| parse_hour_grouping(&by));
        let grouping = grouping.map_err(|error| format!("by: {error}"))?;
        Ok(Self { grouping, back: back.map(|back| parse_back(&back)).transpose()? })
    }

    /// Returns the hours that are offered at the moment `now`, or why there are none.
    fn offered_hours(self, hours: &SealedHours, now: Timestamp) -> Result<Range<Window>, String> {
        let sealed = hours.sealed();
        let kept = sealed.start.max(hours.compacted_before())..sealed.end;
        match self.back {
            Some(back) => last_hours(&kept, back, now),
            None => newest_hour(&kept, now),
        }
    }
}

const BACK_RANGE: RangeInclusive<u32> = 1..=BACK_HOURS_MAX;

fn parse_back(text: &str) -> Result<u32, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|back| is_number && BACK_RANGE.contains(back)).ok_or_else(|| {
        format!(
            "back: {text:?} is not a number of hours from 1 to {BACK_HOURS_MAX}; load older hours from tallygate ledger \
             export --format openmetrics"
        )
    })
}

/// The newest sealed hour, if it ended recently.
fn newest_hour(kept: &Range<Window>, now: Timestamp) -> Result<Range<Window>, String> {
    if kept.is_empty() {
        return Err("No hour of this ledger is sealed yet.".to_owned());
    }
    let end = Timestamp::from_second(kept.end.start_unix_seconds()).unwrap_or(Timestamp::MAX);
    if now.duration_since(end) > OFFER_TIME {
        return Err(format!(
            "No hour is offered now: the newest sealed hour ended at {}, more than {} minutes ago. Add ?back=N for the last \
             N hours.",
            utc_seconds_text(end),
            OFFER_TIME.as_mins()
        ));
    }
    Ok(Window(kept.end.0 - 1)..kept.end)
}

/// The sealed ones of the last hours before the present one.
fn last_hours(kept: &Range<Window>, back: u32, now: Timestamp) -> Result<Range<Window>, String> {
    let present = Window::of_unix_seconds(now.as_second());
    let first = Window(present.0.saturating_sub(back)).max(kept.start);
    let windows = first..kept.end.min(present);
    if windows.is_empty() { Err(format!("None of the last {back} hours is sealed.")) } else { Ok(windows) }
}

fn content_type(format: SampleFormat) -> &'static str {
    match format {
        SampleFormat::Text => METRICS_TYPE,
        SampleFormat::OpenMetrics => OPENMETRICS_TYPE,
    }
}

fn empty_response(format: SampleFormat, why: &str) -> AdminResponse {
    let mut page = Vec::new();
    match write_empty_hours(why, (format, &mut page)) {
        Ok(()) => respond(StatusCode::OK, content_type(format), page),
        Err(error) => unavailable(&error.into()),
    }
}

impl OpenPage {
    /// Writes the page on a blocking thread while it is sent.
    fn into_response(self, windows: Range<Window>) -> AdminResponse {
        let kind = content_type(self.format);
        let (body, writer) = AdminBody::stream(Instant::now() + PAGE_TIMEOUT);
        tokio::task::spawn_blocking(move || {
            match self.write(windows, writer) {
                Ok(()) => {}
                Err(HourSamplesError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                    tracing::debug!("the client of a page of hours has left"); // or asked with HEAD
                }
                Err(error) => tracing::warn!(%error, "a page of hours was not completed"),
            }
        });
        respond_with(StatusCode::OK, kind, body)
    }

    fn write(mut self, windows: Range<Window>, mut writer: ChunkWriter) -> Result<(), HourSamplesError> {
        write_hour_samples(&mut self.hours, &[windows], (self.format, CommonLabels::default(), &mut writer))?;
        Ok(writer.finish()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read() {
        let (subsystem, command) = (HourGrouping::Subsystem, HourGrouping::Command);
        for (query, grouping, back) in [
            ("", subsystem, None),
            ("back=1", subsystem, Some(1)),
            ("by=department,subsystem&back=168", subsystem, Some(168)),
            ("by=department%2Csubsystem%2Ccommand", command, None),
        ] {
            assert_eq!(HoursQuery::parse(query), Ok(HoursQuery { grouping, back }), "{query}");
        }
    }

    #[test]
    fn invalid_parameters_are_refused_with_their_reason() {
        for (query, reason) in [
            ("from=2026-10-01", "unknown parameter \"from\"; known parameters: by and back"),
            (
                "by=command",
                "by: cannot group hours by \"command\"; write department,subsystem or department,subsystem,command",
            ),
            ("by=", "cannot group hours by \"\""),
            ("by=subsystem,department", "cannot group hours by"),
            ("back=0", "back: \"0\" is not a number of hours from 1 to 168"),
            ("back=169", "from 1 to 168"),
            ("back=", "from 1 to 168"),
            ("back=%2B3", "from 1 to 168"),
            ("back=4294967297", "from 1 to 168"),
            ("back=1&back=2", "back is repeated; write it once"),
            ("by=%zz", "not percent-encoded"),
        ] {
            let problem = HoursQuery::parse(query).expect_err(query);
            assert!(problem.contains(reason), "{query}: {problem}");
        }
    }

    #[test]
    fn third_page_at_a_time_is_refused_and_counted() {
        let (pages, telemetry) = (HourPages::default(), Telemetry::new());
        let first = pages.take_place(&telemetry).expect("a place");
        let _second = pages.take_place(&telemetry).expect("a place");
        let refused = pages.take_place(&telemetry).expect_err("no third place");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(telemetry.limit_hit_count(LimitHit::AdminHourPages), 1);
        drop(first);
        assert!(pages.take_place(&telemetry).is_ok(), "a place is free once a page is written");
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn hours(from: &str, to: &str) -> Range<Window> {
        let window = |text| Window::of_unix_seconds(time(text).as_second());
        window(from)..window(to)
    }

    /// The range as text, or why there is none.
    fn shown(offered: Result<Range<Window>, String>) -> String {
        offered.map_or_else(|why| why, |windows| format!("{} {}", windows.start, windows.end))
    }

    #[test]
    fn newest_sealed_hour_is_offered_for_fifty_minutes() {
        let kept = hours("2026-10-31T10:00:00Z", "2026-10-31T16:00:00Z");
        let hour = "2026-10-31T15:00:00Z 2026-10-31T16:00:00Z";
        let late = "No hour is offered now: the newest sealed hour ended at 2026-10-31T16:00:00Z, more than 50 minutes ago. \
                    Add ?back=N for the last N hours.";
        for (now, expected) in [
            ("2026-10-31T16:01:05Z", hour),
            ("2026-10-31T16:50:00Z", hour),
            ("2026-10-31T16:50:01Z", late),
            ("2026-11-02T00:00:00Z", late),
            ("2026-10-31T15:59:00Z", hour), // a clock that was set back
        ] {
            assert_eq!(shown(newest_hour(&kept, time(now))), expected, "{now}");
        }
        assert_eq!(
            shown(newest_hour(&(Window(5)..Window(5)), time("2026-10-31T16:05:00Z"))),
            "No hour of this ledger is sealed yet."
        );
    }

    #[test]
    fn back_offers_the_sealed_ones_of_the_last_hours() {
        let kept = hours("2026-10-31T10:00:00Z", "2026-10-31T16:00:00Z");
        for (back, now, expected) in [
            (1, "2026-10-31T16:59:59Z", "2026-10-31T15:00:00Z 2026-10-31T16:00:00Z"),
            (3, "2026-10-31T16:05:00Z", "2026-10-31T13:00:00Z 2026-10-31T16:00:00Z"),
            (168, "2026-10-31T16:05:00Z", "2026-10-31T10:00:00Z 2026-10-31T16:00:00Z"),
            (3, "2026-10-31T18:30:00Z", "2026-10-31T15:00:00Z 2026-10-31T16:00:00Z"),
            (2, "2026-10-31T18:30:00Z", "None of the last 2 hours is sealed."),
        ] {
            assert_eq!(shown(last_hours(&kept, back, time(now))), expected, "{back} {now}");
        }
    }
}

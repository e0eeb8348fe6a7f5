//! Why hours are absent from a Prometheus: its scrapes while the hours were offered, read when they are needed.

use std::ops::Range;

use crate::model::Window;
use crate::report::{HourCause, UpHistory};

use crate::cli::prometheus::{PrometheusError, PrometheusHours};

use super::scraped_usage::print_warnings;

/// The scrapes of the job of `/metrics/hours`.
pub(super) struct ScrapeHistory<'a> {
    source: &'a PrometheusHours,
    job: &'a str,
    sum_by: Option<&'a str>,
    known: UpHistory,
    /// The range whose scrapes were read last.
    read: Range<Window>,
    /// Whether there were scrapes before an hour of the part that was read last; `None` if that is not known.
    earlier: Option<bool>,
}

impl<'a> ScrapeHistory<'a> {
    pub(super) fn new(source: &'a PrometheusHours, job: &'a str, sum_by: Option<&'a str>) -> Self {
        Self { source, job, sum_by, known: UpHistory::default(), read: Window(0)..Window(0), earlier: None }
    }

    /// The cause for which an hour of `part` is absent. `whole` are the gateways that have it. Hours and parts are
    /// asked for in their order.
    pub(super) fn cause(
        &mut self,
        window: Window,
        part: &Range<Window>,
        whole: &[&str],
    ) -> Result<HourCause, PrometheusError> {
        if self.read != *part {
            let answer = self.source.scrapes(self.job, part)?;
            print_warnings(&answer.warnings);
            self.known.add(&answer.series, self.sum_by);
            self.read = part.clone();
            self.earlier = self.earlier.filter(|was_scraped| *was_scraped);
        }
        // Several gateways: the best of those without the hour, so that the cause nearest to the job is named.
        let absent = self.known.gateways().filter(|gateway| !whole.contains(gateway));
        let success = absent.filter_map(|gateway| self.known.success(gateway, window)).max();
        let was_scraped_before = success.is_some() || self.was_scraped_before(window)?;
        Ok(HourCause::of_absent_hour(success, was_scraped_before))
    }

    fn was_scraped_before(&mut self, window: Window) -> Result<bool, PrometheusError> {
        if self.known.was_scraped_before(window) {
            return Ok(true);
        }
        let was_scraped = match self.earlier {
            Some(known) => known,
            None => self.source.was_scraped_before(self.job, window)?,
        };
        self.earlier = Some(was_scraped);
        Ok(was_scraped)
    }
}

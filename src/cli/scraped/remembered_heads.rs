//! `tallygate ledger verify --prometheus`: the heads of the hash chain that a Prometheus of somebody else remembers.
//!
//! Whoever rewrites a book can compute its chain anew. The Prometheus then has other heads.
//!
//! Guarantees:
//! - Every sealed hour of the ledger is compared, or counted as not remembered.
//! - An hour that the Prometheus remembers and the book has not sealed is a finding: the book was exchanged for an
//!   older one.

use std::ops::Range;
use std::path::Path;

use serde::Serialize;

use crate::clock::Clock;
use crate::ledger::audit::{AuditCheck, AuditFinding, NotedHead};
use crate::ledger::{HourGrouping, HourHead, SealedHours};
use crate::model::Window;
use crate::report::{ScrapedHours, window_ranges, window_ranges_text};

use crate::cli::check::plural;
use crate::cli::prometheus::{PrometheusArgs, PrometheusHours, head_query_ranges};

use super::scraped_usage::print_warnings;

/// The heads of a ledger, held against those of a Prometheus.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct RememberedHeads {
    /// The hours whose heads were compared.
    compared: usize,
    /// The hours without a head in the Prometheus.
    not_remembered: usize,
    /// The ranges of these hours, as text.
    not_remembered_hours: String,
    /// What differs.
    #[serde(skip)]
    pub(in crate::cli) findings: Vec<AuditFinding>,
    /// The newest head that the Prometheus remembers.
    #[serde(skip)]
    pub(in crate::cli) newest: Option<NotedHead>,
}

/// An hour whose head differs.
struct DifferingHead {
    window: Window,
    remembered: (u64, String),
    /// `None` if the book has not sealed the hour.
    own: Option<HourHead>,
}

impl RememberedHeads {
    /// Compares the heads of all sealed hours. `None` without `--prometheus`.
    pub(in crate::cli) fn compare(args: &PrometheusArgs, book: &Path, clock: &Clock) -> anyhow::Result<Option<Self>> {
        let Some(source) = PrometheusHours::prepare(args, clock)? else { return Ok(None) };
        let hours = SealedHours::open(book, HourGrouping::Subsystem)?;
        let sealed = hours.sealed();
        let mut heads = Self::default();
        let (mut missing, mut differing) = (Vec::new(), Vec::new());
        for part in head_query_ranges(&(sealed.start..sealed.end.max(clock.window()))) {
            let answer = source.heads(&part)?;
            print_warnings(&answer.warnings);
            let found = ScrapedHours::read(&answer.series, &part, None)?;
            let found = found.gateways().next().map(|(_, hours)| hours);
            for window in (part.start.0..part.end.0).map(Window) {
                let remembered = found.and_then(|hours| hours.get(&window)?.head());
                let own = if sealed.contains(&window) { Some(hours.head(window)?) } else { None };
                match remembered {
                    Some(remembered) => heads.add(DifferingHead { window, remembered, own }, &mut differing),
                    None if own.is_some() => missing.push(window),
                    None => {}
                }
            }
        }
        hours.confirm_unchanged()?;
        heads.not_remembered = missing.len();
        heads.not_remembered_hours = window_ranges_text(&window_ranges(missing.into_iter()));
        heads.describe(&differing);
        Ok(Some(heads))
    }

    fn add(&mut self, head: DifferingHead, differing: &mut Vec<DifferingHead>) {
        self.compared += 1;
        let (number, hash) = &head.remembered;
        self.newest = NotedHead::parse(&format!("{number}:{hash}")).ok().or_else(|| self.newest.take());
        let is_equal = head.own.as_ref().is_some_and(|own| own.number.unsigned_abs() == *number && own.hash == *hash);
        if !is_equal {
            differing.push(head);
        }
    }

    /// Makes a finding of each range of hours that differ: the chain of a rewritten hour differs in all later ones.
    fn describe(&mut self, differing: &[DifferingHead]) {
        let mut add = |place: String, what: String| {
            self.findings.push(AuditFinding { check: AuditCheck::Witness, place, what });
        };
        for range in window_ranges(differing.iter().map(|head| head.window)) {
            let Some(first) = differing.iter().find(|head| head.window == range.start) else { continue };
            add(place_of(&range), first.description());
        }
        if self.compared == 0 {
            let what = "it has no head of an hour of this ledger: is --prometheus the one that scrapes /metrics/hours of \
                        this gateway, and do --matcher and its retention leave any?";
            add("the Prometheus".to_owned(), what.to_owned());
        }
    }

    /// The result in one line.
    pub(in crate::cli) fn text(&self) -> String {
        let compared = plural(self.compared, "hour");
        match self.not_remembered {
            0 => format!("the Prometheus remembers the heads of all {compared}"),
            missing => format!(
                "the Prometheus remembers the heads of {compared}, and not of {}: {}",
                plural(missing, "hour"),
                self.not_remembered_hours
            ),
        }
    }
}

impl DifferingHead {
    fn description(&self) -> String {
        let (number, hash) = &self.remembered;
        match &self.own {
            Some(own) => format!(
                "the Prometheus remembers the head {number}:{hash}, and the book has {}:{}: one of the two was rewritten",
                own.number, own.hash
            ),
            None => format!(
                "the Prometheus remembers the head {number}:{hash}, and the book has not sealed this hour: it is an older \
                 copy, or its end was cut off"
            ),
        }
    }
}

fn place_of(range: &Range<Window>) -> String {
    match range.end.0 - range.start.0 {
        1 => format!("hour {}", range.start),
        hours => format!("hour {}, and {} after it", range.start, plural(hours as usize - 1, "hour")),
    }
}

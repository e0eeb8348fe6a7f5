//! Checks the order of hours: nothing is added to a past hour.
//!
//! Rules:
//! - Within an epoch, each seal of an hour covers a later hour than the seal before.
//! - Over all epochs, an hour is sealed after every earlier hour, and together with the same hour of other epochs. A
//!   start seals the hours of dead epochs before it seals its own.
//! - No epoch counts into hours that were over when an earlier epoch ended.
//!
//! One exception is a note and not a finding: a gateway whose clock was set back before its start counts into such an
//! hour. Its epoch then began, by its own clock, in or before that hour, and it seals no hour before the hour's end. If
//! a head was noted elsewhere, such an hour is a finding all the same: an attacker who adds to a past hour can also
//! write such an epoch.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::ledger::hash_chain::canonical::{SealKind, SealRow};
use crate::ledger::keeper::first_open_window;
use crate::model::Window;

use super::epoch_check::EpochTable;
use super::findings::{AuditCheck, AuditReport};

/// The state of the walk along the chain.
#[derive(Debug)]
pub(crate) struct HourOrder<'a> {
    epochs: &'a EpochTable,
    /// The last sealed hour of each epoch.
    last: HashMap<u32, Window>,
    /// The latest sealed hour, the last epoch that sealed it, and the time of that seal.
    latest: Option<(Window, u32, String)>,
    /// The ends of epochs.
    ended: EpochEnds,
    /// The past hours at the time of the noted head.
    noted: Option<NotedOrder>,
    /// Epochs that counted into sealed hours because their clock was set back: the number of hours, and the first of
    /// them.
    set_back: Vec<(u32, u64, Window)>,
}

/// For each ended epoch: the first hour that was not over at the end of this epoch or of an earlier one.
#[derive(Clone, Debug, Default)]
struct EpochEnds(BTreeMap<u32, Window>);

impl EpochEnds {
    fn add_end(&mut self, epoch: u32, window: Window) {
        let window = self.before(epoch).unwrap_or_default().max(window);
        self.0.insert(epoch, window);
        self.0.range_mut(epoch..).for_each(|(_, later)| *later = window.max(*later));
    }

    /// Returns the first hour that was not over when the epochs before this one had ended.
    fn before(&self, epoch: u32) -> Option<Window> {
        self.0.range(..epoch).next_back().map(|(_, window)| *window)
    }
}

/// The past hours at the time of the noted head.
#[derive(Debug)]
struct NotedOrder {
    number: i64,
    latest: Option<Window>,
    ended: EpochEnds,
}

impl<'a> HourOrder<'a> {
    pub(crate) fn new(epochs: &'a EpochTable) -> Self {
        let (last, ended, set_back) = (HashMap::new(), EpochEnds::default(), Vec::new());
        Self { epochs, last, latest: None, ended, noted: None, set_back }
    }

    /// Marks the position of the noted head: all following seals are compared with it.
    pub(crate) fn note_head(&mut self, number: i64) {
        let latest = self.latest.as_ref().map(|(window, _, _)| *window);
        self.noted = Some(NotedOrder { number, latest, ended: self.ended.clone() });
    }

    /// Checks the next seal, which is at `place`.
    pub(crate) fn add_seal(&mut self, seal: &SealRow, place: &str, report: &mut AuditReport) {
        match (seal.kind, seal.epoch, seal.window) {
            (SealKind::Hour, Some(epoch), Some(window)) => self.add_hour(seal, (window, epoch), (place, report)),
            (SealKind::Epoch, Some(epoch), _) => {
                let end = parse_moment(&seal.sealed_at).map(first_open_window);
                end.into_iter().for_each(|end| self.ended.add_end(epoch, end));
            }
            _ => {}
        }
    }

    fn add_hour(&mut self, seal: &SealRow, (window, epoch): (Window, u32), (place, report): (&str, &mut AuditReport)) {
        if let Some(before) = self.last.insert(epoch, window).filter(|before| *before >= window) {
            let what = format!("its hour is not later than {before}, which this epoch had sealed before it");
            report.add_finding(AuditCheck::Link, place, what);
        } else if let Some(noted) = self.noted.as_ref().filter(|noted| self.was_past(noted, (window, epoch))) {
            let what = format!(
                "it adds to an hour that had ended when seal {} was noted: either the clock was set back since, or \
                 another program has written into the book",
                noted.number
            );
            report.add_finding(AuditCheck::Head, place, what);
        } else if let Some(later) = self.later_than(seal, (window, epoch)) {
            self.report_late_seal(seal, (window, epoch, later), (place, report));
        }
        if self.latest.as_ref().is_none_or(|(latest, _, _)| *latest <= window) {
            self.latest = Some((window, epoch, seal.sealed_at.clone()));
        }
    }

    /// Returns whether an hour was past: sealed at the head, over when this epoch began, or over when the epochs before
    /// it had ended.
    fn was_past(&self, noted: &NotedOrder, (window, epoch): (Window, u32)) -> bool {
        noted.latest.is_some_and(|latest| window <= latest)
            || noted.ended.before(epoch).is_some_and(|ended| window < ended)
            || self.began_at(epoch).is_none_or(|began| window < began)
    }

    /// Returns the first hour that was not over when an epoch began, by its own clock.
    fn began_at(&self, epoch: u32) -> Option<Window> {
        self.epochs.get(epoch).and_then(|row| parse_moment(&row.started_at)).map(first_open_window)
    }

    /// Describes an earlier seal of a later hour, if there is one. Seals of one hour are made together, in the order of
    /// epochs.
    fn later_than(&self, seal: &SealRow, (window, epoch): (Window, u32)) -> Option<String> {
        if let Some(ended) = self.ended.before(epoch).filter(|ended| window < *ended) {
            return Some(format!("its hour was over when the epoch before it ended, in {ended}"));
        }
        let (latest, by, at) = self.latest.as_ref()?;
        let is_in_order = *latest < window || (*latest == window && *by < epoch && *at == seal.sealed_at);
        (!is_in_order).then(|| format!("its hour is not later than {latest}, which was sealed before it"))
    }

    fn report_late_seal(
        &mut self,
        seal: &SealRow,
        (window, epoch, later): (Window, u32, String),
        (place, report): (&str, &mut AuditReport),
    ) {
        if self.was_set_back(seal, (window, epoch)) {
            self.count_set_back(epoch, window);
        } else {
            report.add_finding(AuditCheck::Link, place, later);
        }
    }

    fn was_set_back(&self, seal: &SealRow, (window, epoch): (Window, u32)) -> bool {
        let ended = parse_moment(&seal.sealed_at).map(|at| Window::of_unix_seconds(at.as_second()));
        self.began_at(epoch).is_some_and(|began| began <= window) && ended.is_some_and(|ended| window < ended)
    }

    fn count_set_back(&mut self, epoch: u32, window: Window) {
        match self.set_back.iter_mut().find(|(of, _, _)| *of == epoch) {
            Some((_, hours, first)) => (*hours, *first) = (*hours + 1, window.min(*first)),
            None => self.set_back.push((epoch, 1, window)),
        }
    }

    /// Ends the check at the end of the chain.
    pub(crate) fn finish(self, report: &mut AuditReport) {
        for (epoch, hours, first) in self.set_back {
            report.add_note(format!(
                "epoch {epoch} began with a clock that had been set back: {hours} of its hours, from {first} on, were \
                 sealed after later ones"
            ));
        }
    }
}

fn parse_moment(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

//! The order of hours: nothing is added to an hour that is past.
//!
//! Within an epoch each seal of an hour covers a later hour than the one before. Over all epochs an hour is sealed after every
//! earlier one, and together with those of other epochs of the same hour: a start seals what dead epochs have left before it
//! seals hours of its own. Only a gateway whose clock was set back before it started counts into hours that are sealed: its
//! epoch says so, since it began, by its own clock, in or before that hour, and it seals no hour before its end. Such an hour is
//! a note. Where a head was noted elsewhere, it is a finding all the same, because who adds to a past hour can also write such
//! an epoch.

use std::collections::HashMap;

use jiff::Timestamp;

use super::epochs::Epochs;
use super::finding::{Check, Report};
use crate::ledger::canon::{SealKind, SealRow};
use crate::ledger::keeper::over_at;
use crate::model::Window;

/// Where the walk along the chain stands.
#[derive(Debug)]
pub(super) struct HourOrder<'a> {
    epochs: &'a Epochs,
    /// Of each epoch, the hour sealed last.
    last: HashMap<u32, Window>,
    /// The latest hour that is sealed, the last epoch that sealed it, and when.
    latest: Option<(Window, u32, String)>,
    /// The latest hour that was sealed when the head was noted, and the number of that seal.
    noted: Option<(Window, i64)>,
    /// Of epochs that counted into sealed hours because their clock was set back: how many hours, and the first of them.
    set_back: Vec<(u32, u64, Window)>,
}

impl<'a> HourOrder<'a> {
    pub(super) fn new(epochs: &'a Epochs) -> Self {
        Self { epochs, last: HashMap::new(), latest: None, noted: None, set_back: Vec::new() }
    }

    /// The head was noted here: all that follows is compared with it.
    pub(super) fn note(&mut self, number: i64) {
        self.noted = self.latest.as_ref().map(|(window, _, _)| (*window, number));
    }

    /// The next seal, which is at `place`.
    pub(super) fn add(&mut self, seal: &SealRow, place: &str, report: &mut Report) {
        let (SealKind::Hour, Some(epoch), Some(window)) = (seal.kind, seal.epoch, seal.window) else { return };
        if let Some(before) = self.last.insert(epoch, window).filter(|before| *before >= window) {
            let what = format!("its hour is not later than {before}, which this epoch had sealed before it");
            report.find(Check::Link, place, what);
        } else if let Some((noted, number)) = self.noted.filter(|(noted, _)| window <= *noted) {
            let what = format!(
                "it adds to an hour that was past when seal {number} was noted, which had sealed {noted}: either the clock \
                 was set back since, or somebody has written into the book"
            );
            report.find(Check::Head, place, what);
        } else if let Some(later) = self.later_than(seal, (window, epoch)) {
            self.report_late(seal, (window, epoch, later), (place, report));
        }
        if self.latest.as_ref().is_none_or(|(latest, _, _)| *latest <= window) {
            self.latest = Some((window, epoch, seal.sealed_at.clone()));
        }
    }

    /// The hour that was sealed before this one and is not earlier; those of one hour are sealed at once, in the order of epochs.
    fn later_than(&self, seal: &SealRow, (window, epoch): (Window, u32)) -> Option<Window> {
        let (latest, by, at) = self.latest.as_ref()?;
        let is_in_order = *latest < window || (*latest == window && *by < epoch && *at == seal.sealed_at);
        (!is_in_order).then_some(*latest)
    }

    fn report_late(
        &mut self,
        seal: &SealRow,
        (window, epoch, later): (Window, u32, Window),
        (place, report): (&str, &mut Report),
    ) {
        if self.was_set_back(seal, (window, epoch)) {
            self.count_set_back(epoch, window);
        } else {
            let what = format!("its hour is not later than {later}, which was sealed before it");
            report.find(Check::Link, place, what);
        }
    }

    fn was_set_back(&self, seal: &SealRow, (window, epoch): (Window, u32)) -> bool {
        let moment = |text: &str| text.parse::<Timestamp>().ok();
        let began = self.epochs.get(epoch).and_then(|row| moment(&row.started_at)).map(over_at);
        let ended = moment(&seal.sealed_at).map(|at| Window::of_unix_seconds(at.as_second()));
        began.is_some_and(|began| began <= window) && ended.is_some_and(|ended| window < ended)
    }

    fn count_set_back(&mut self, epoch: u32, window: Window) {
        match self.set_back.iter_mut().find(|(of, _, _)| *of == epoch) {
            Some((_, hours, first)) => (*hours, *first) = (*hours + 1, window.min(*first)),
            None => self.set_back.push((epoch, 1, window)),
        }
    }

    /// The end of the chain.
    pub(super) fn finish(self, report: &mut Report) {
        for (epoch, hours, first) in self.set_back {
            report.note(format!(
                "epoch {epoch} began with a clock that had been set back: {hours} of its hours, from {first} on, were \
                 sealed after later ones"
            ));
        }
    }
}

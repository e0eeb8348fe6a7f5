//! A close notice (`CloseNotice`): asks a connection and its streams to close, and sets the deadline at which commands
//! in flight are cut off.
//!
//! Guarantees:
//! - A notice can be withdrawn until its deadline. The deadline of a drain cannot.
//! - A connection with a notice accepts no more requests.
//!
//! Leaves to others: why a connection is closed (`worker::peer`), and the close itself (`downstream`).

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The notice that a connection must close, and the deadline of its commands in flight.
#[derive(Default)]
pub(crate) struct CloseNotice {
    is_given: Cell<bool>,
    /// When the commands in flight are cut off. `None` after the notice is withdrawn.
    deadline: Cell<Option<Instant>>,
    /// When the drain of the listener cuts the commands in flight off.
    drain_deadline: Cell<Option<Instant>>,
    cut_off: Cell<Option<CutOff>>,
    /// Wakes the connection and each of its tunnels over HTTP/2.
    changed: Notify,
}

/// What has cut the commands in flight off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutOff {
    /// The caller has lost its authorization.
    Notice,
    /// The gateway has removed the listener.
    Drain,
}

impl CloseNotice {
    /// Announces the close: the connection takes no more commands. The commands in flight end within `grace`, or at the
    /// earlier deadline of a previous announcement.
    pub(crate) fn announce(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.is_given.set(true);
        self.deadline.set(Some(self.deadline.get().map_or(deadline, |before| before.min(deadline))));
        self.changed.notify_waiters();
    }

    /// Sets the deadline of a drain. The drain itself tells the connection to take no more commands.
    pub(crate) fn end_by(&self, deadline: Instant) {
        self.drain_deadline.set(Some(deadline));
        self.changed.notify_waiters();
    }

    /// Withdraws the deadline of a notice: the commands in flight may end normally. The connection still takes no more
    /// commands.
    pub(crate) fn withdraw(&self) {
        if self.deadline.take().is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Whether the connection must close after the commands in flight.
    pub(crate) fn is_given(&self) -> bool {
        self.is_given.get()
    }

    /// Waits for the notice.
    pub(crate) async fn wait_until_given(&self) {
        // Created before the check, so that no notification is lost in between.
        let notified = self.changed.notified();
        if !self.is_given.get() {
            notified.await;
        }
    }

    /// Waits for the deadline of the commands in flight.
    pub(crate) async fn wait_until_cut_off(&self) {
        loop {
            // Created before the check, so that no notification is lost in between.
            let changed = self.changed.notified();
            match self.next_cut_off() {
                None => changed.await,
                Some((deadline, cause)) if deadline <= Instant::now() => return self.cut_off.set(Some(cause)),
                Some((deadline, _)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(deadline) => {}
                },
            }
        }
    }

    /// The earlier of the two deadlines.
    fn next_cut_off(&self) -> Option<(Instant, CutOff)> {
        let notice = self.deadline.get().map(|deadline| (deadline, CutOff::Notice));
        let drain = self.drain_deadline.get().map(|deadline| (deadline, CutOff::Drain));
        notice.into_iter().chain(drain).min_by_key(|(deadline, _)| *deadline)
    }

    /// Whether the commands in flight have been cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.get().is_some()
    }

    /// Whether the gateway itself is the cause of the cut-off, and not the caller.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.cut_off.get() == Some(CutOff::Drain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn deadline_of_a_drain_stays_when_a_notice_is_withdrawn() {
        let (soon, late) = (Duration::from_millis(5), Duration::from_mins(1));
        // The grace of a notice, whether it is withdrawn, the grace of a drain; whether the drain is the cause.
        for (notice, withdrawn, drain, interrupted) in [
            (None, false, Some(soon), true),
            (Some(late), false, Some(soon), true),
            (Some(soon), false, None, false),
            (Some(soon), false, Some(late), false),
            (Some(soon), true, Some(soon * 4), true),
        ] {
            let close_notice = CloseNotice::default();
            notice.into_iter().for_each(|grace| close_notice.announce(grace));
            drain.into_iter().for_each(|grace| close_notice.end_by(Instant::now() + grace));
            if withdrawn {
                close_notice.withdraw();
            }
            assert!(!close_notice.is_cut_off() && !close_notice.is_interrupted());
            close_notice.wait_until_cut_off().await;
            assert_eq!((close_notice.is_cut_off(), close_notice.is_interrupted()), (true, interrupted));
        }
    }
}

//! A close notice (`CloseNotice`): asks a connection and its streams to close, and sets the deadline at which commands
//! in flight are cut off.
//!
//! Guarantees:
//! - A notice can be withdrawn until its deadline.
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
    is_cut_off: Cell<bool>,
    /// Wakes the connection and each of its tunnels over HTTP/2.
    changed: Notify,
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

    /// Withdraws the deadline: the commands in flight may end normally. The connection still takes no more commands.
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
            match self.deadline.get() {
                None => changed.await,
                Some(deadline) if deadline <= Instant::now() => return self.is_cut_off.set(true),
                Some(deadline) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(deadline) => {}
                },
            }
        }
    }

    /// Whether the commands in flight have been cut off.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.get()
    }
}

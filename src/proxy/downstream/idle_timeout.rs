//! The idle timeout of a client connection (`capacity.idle`): no command, and no byte of a further request.
//!
//! Guarantees:
//! - A connection with an open command is not idle.
//! - The time is that of the worker's tick ([`ConnectionActivity`]), so a timeout may end one tick late.
//!
//! Leaves to others: the close itself (`http1`, `http2`), and the idle timeouts of bodies: `message::body_rate` for
//! requests, `exchange::response_body` for responses.

use std::future::poll_fn;
use std::time::Duration;

use tokio::time::Instant;

use crate::proxy::io::connection_activity::ConnectionActivity;
use crate::proxy::worker::TrafficWorker;

/// The time at which an idle connection is closed, if no request begins before.
pub(crate) fn idle_deadline(activity: &ConnectionActivity, timeout: Duration) -> Instant {
    activity.idle_since() + timeout
}

/// Ready when the connection has had no command for `timeout`.
pub(crate) async fn connection_idle(worker: &TrafficWorker, activity: &ConnectionActivity, timeout: Duration) {
    loop {
        let deadline = idle_deadline(activity, timeout);
        if deadline <= activity.now() {
            return;
        }
        wait_until(worker, deadline).await;
    }
}

/// Ready at `deadline`.
pub(crate) async fn wait_until(worker: &TrafficWorker, deadline: Instant) {
    let mut timer = worker.tick_timers.timer_at(deadline);
    poll_fn(|context| timer.poll_elapsed(context)).await;
}

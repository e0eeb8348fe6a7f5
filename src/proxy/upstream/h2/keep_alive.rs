//! HTTP/2 keep-alive: pings that detect a dead server on a quiet session (RFC 9113 section 6.7).
//!
//! Guarantees:
//! - A session with requests is pinged if nothing was received for [`PING_INTERVAL`].
//! - The session ends if the ping is not acknowledged within [`PING_TIMEOUT`].
//! - A session without requests is not pinged.
//!
//! Leaves to others: the end of the session's requests (`session`).

use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::Instant;

use crate::proxy::io::deadline_timer::DeadlineTimer;

use super::session::SessionUsage;

/// The silence after which a session with requests is pinged.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(30);

pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The keep-alive state of one session.
pub(crate) struct KeepAlive {
    pings: Option<PingPong>,
    state: PingState,
    timer: DeadlineTimer,
}

#[derive(Clone, Copy)]
enum PingState {
    /// No timer runs.
    Idle,
    /// A ping is due at this time, unless something is received before.
    Due(Instant),
    /// A ping was sent, and its acknowledgement is awaited until this time.
    AwaitingPong(Instant),
}

impl KeepAlive {
    pub(crate) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, state: PingState::Idle, timer: DeadlineTimer::default() }
    }

    /// Ready when the server is unresponsive.
    pub(crate) fn poll_unresponsive(&mut self, context: &mut Context<'_>, usage: &SessionUsage) -> Poll<()> {
        loop {
            match self.state {
                PingState::Idle if usage.is_idle() => return Poll::Pending,
                PingState::Idle => self.state = PingState::Due(usage.last_received() + PING_INTERVAL),
                PingState::Due(at) => {
                    ready!(self.timer.poll_at(context, at));
                    match usage.last_received() + PING_INTERVAL > at {
                        true => self.state = PingState::Idle,
                        false if usage.is_idle() => return Poll::Pending,
                        false => self.send_ping(),
                    }
                }
                PingState::AwaitingPong(until) => match self.poll_pong(context) {
                    Poll::Ready(()) => {
                        usage.note_received();
                        self.state = PingState::Idle;
                    }
                    Poll::Pending => return self.timer.poll_at(context, until),
                },
            }
        }
    }

    fn send_ping(&mut self) {
        if let Some(pings) = &mut self.pings {
            let _ = pings.send_ping(Ping::opaque()); // a session that cannot send a ping ends by itself
        }
        self.state = PingState::AwaitingPong(Instant::now() + PING_TIMEOUT);
    }

    /// Ready when the acknowledgement has arrived. The end of a session is reported by its connection.
    fn poll_pong(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        match pings.poll_pong(context) {
            Poll::Ready(Ok(_)) => Poll::Ready(()),
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::task::Waker;
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::session::SessionPermit;
    use super::*;

    /// A session that last received something before a ping was due, with one request or none.
    fn quiet(is_idle: bool) -> (Rc<SessionUsage>, Option<SessionPermit>) {
        let usage = Rc::new(SessionUsage::received_at(Instant::now() - PING_INTERVAL - Duration::from_secs(1)));
        let permit = (!is_idle).then(|| SessionPermit::new(&usage));
        (usage, permit)
    }

    #[tokio::test]
    async fn idle_session_with_a_request_is_pinged_and_kept_by_the_response() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut server = h2::server::handshake(far).await.expect("a handshake");
            while server.accept().await.is_some() {}
        });
        let (_sender, mut session) = h2::client::Builder::new().handshake::<_, Bytes>(near).await.expect("a handshake");
        let mut keep_alive = KeepAlive::new(session.ping_pong());
        tokio::spawn(session);
        let (usage, _counted) = quiet(false);
        let before = usage.last_received();
        poll_fn(|context| {
            assert!(keep_alive.poll_unresponsive(context, &usage).is_pending());
            if usage.last_received() > before { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(matches!(keep_alive.state, PingState::Due(at) if at > Instant::now()));
    }

    #[tokio::test]
    async fn session_without_requests_is_not_pinged() {
        let (usage, _) = quiet(true);
        let mut keep_alive = KeepAlive::new(None);
        assert!(keep_alive.poll_unresponsive(&mut Context::from_waker(Waker::noop()), &usage).is_pending());
        assert!(matches!(keep_alive.state, PingState::Idle));
    }

    #[tokio::test]
    async fn unanswered_ping_ends_the_session() {
        let (usage, _counted) = quiet(false);
        let mut keep_alive = KeepAlive::new(None);
        assert!(keep_alive.poll_unresponsive(&mut Context::from_waker(Waker::noop()), &usage).is_pending());
        assert!(matches!(keep_alive.state, PingState::AwaitingPong(_)));
        keep_alive.state = PingState::AwaitingPong(Instant::now() - Duration::from_secs(1));
        assert!(keep_alive.poll_unresponsive(&mut Context::from_waker(Waker::noop()), &usage).is_ready());
    }
}

//! Pings on a session: they tell a dead server from a quiet one (RFC 9113 section 6.7).
//!
//! Guarantees: a session with requests of which nothing has come for [`PING_EVERY`] is pinged, and ends if no answer to
//! the ping comes within [`PING_PATIENCE`]. A session without requests is left alone.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::session::Used;
use super::{PING_EVERY, PING_PATIENCE};

/// See the module.
pub(super) struct KeepAlive {
    pings: Option<PingPong>,
    state: State,
    /// Made when there is something to wait for.
    alarm: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy)]
enum State {
    /// Nothing is waited for.
    Rest,
    /// A ping is due then, if nothing comes.
    Due(Instant),
    /// A ping was sent.
    Sent,
}

impl KeepAlive {
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, state: State::Rest, alarm: None }
    }

    /// Ready when the server is dead.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, used: &Used) -> Poll<()> {
        loop {
            match self.state {
                State::Rest if used.is_idle() => return Poll::Pending,
                State::Rest => self.wait(used.heard() + PING_EVERY, State::Due),
                State::Due(at) => {
                    ready!(self.poll_alarm(context));
                    match used.heard() + PING_EVERY > at {
                        true => self.state = State::Rest,
                        false if used.is_idle() => return Poll::Pending,
                        false => self.send(),
                    }
                }
                State::Sent => match self.poll_pong(context) {
                    Poll::Ready(()) => {
                        used.hear();
                        self.state = State::Rest;
                    }
                    Poll::Pending => return self.poll_alarm(context),
                },
            }
        }
    }

    fn wait(&mut self, until: Instant, state: impl FnOnce(Instant) -> State) {
        match &mut self.alarm {
            Some(alarm) => alarm.as_mut().reset(until),
            None => self.alarm = Some(Box::pin(sleep_until(until))),
        }
        self.state = state(until);
    }

    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.alarm.as_mut().map_or(Poll::Pending, |alarm| alarm.as_mut().poll(context))
    }

    fn send(&mut self) {
        if let Some(pings) = &mut self.pings {
            let _ = pings.send_ping(Ping::opaque()); // a session that cannot send it ends by itself
        }
        self.wait(Instant::now() + PING_PATIENCE, |_| State::Sent);
    }

    /// Ready when the answer has come. A session that ends says so itself.
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

    use super::super::session::Counted;
    use super::*;

    /// A session that was heard last when a ping was due, with one request or none.
    fn quiet(is_idle: bool) -> (Rc<Used>, Option<Counted>) {
        let used = Rc::new(Used::heard_at(Instant::now() - PING_EVERY - Duration::from_secs(1)));
        let counted = (!is_idle).then(|| Counted::new(&used));
        (used, counted)
    }

    #[tokio::test]
    async fn a_quiet_session_with_a_request_is_pinged_and_its_answer_is_heard() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut server = h2::server::handshake(far).await.expect("a handshake");
            while server.accept().await.is_some() {}
        });
        let (_sender, mut session) = h2::client::Builder::new().handshake::<_, Bytes>(near).await.expect("a handshake");
        let mut keep_alive = KeepAlive::new(session.ping_pong());
        tokio::spawn(session);
        let (used, _counted) = quiet(false);
        let before = used.heard();
        poll_fn(|context| {
            assert!(keep_alive.poll(context, &used).is_pending());
            if used.heard() > before { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert!(matches!(keep_alive.state, State::Due(at) if at > Instant::now()));
    }

    #[tokio::test]
    async fn a_session_without_requests_is_left_alone() {
        let (used, _) = quiet(true);
        let mut keep_alive = KeepAlive::new(None);
        assert!(keep_alive.poll(&mut Context::from_waker(Waker::noop()), &used).is_pending());
        assert!(matches!(keep_alive.state, State::Rest));
    }

    #[tokio::test]
    async fn a_ping_without_an_answer_ends_the_session() {
        let (used, _counted) = quiet(false);
        let mut keep_alive = KeepAlive::new(None);
        assert!(keep_alive.poll(&mut Context::from_waker(Waker::noop()), &used).is_pending());
        assert!(matches!(keep_alive.state, State::Sent));
        keep_alive.wait(Instant::now() - Duration::from_secs(1), |_| State::Sent);
        assert!(keep_alive.poll(&mut Context::from_waker(Waker::noop()), &used).is_ready());
    }
}

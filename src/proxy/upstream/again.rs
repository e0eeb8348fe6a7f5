//! What is sent again without the leave of its subsystem's configuration: a request of which a server has processed nothing (RFC 9113
//! section 8.7), and a safe one without a body that a kept connection lost (RFC 9110 section 9.2.2).
//!
//! Guarantees: at most [`AGAIN_MAX`] times a command, and after a loss once, on a new connection; a session that has refused the
//! request does not get it again. A request of which no server has processed anything ends as [`SendError::Refused`] or
//! [`SendError::Unreachable`], any other as [`SendError::Failed`]. Leaves to [`super::protocol`] whether a request can be
//! sent again, and to [`super::retry`] what else is.

use std::rc::Rc;

use super::h2::SessionMark;
use super::pool::{Again, Attempt, Links, Pool, Why};
use super::protocol::Outgoing;
use super::{Broken, Choice, Course, SERVERS_MAX, SendError, Sent, Upstreams};

/// How often one command is sent again for these reasons: a server and its stand-in may both restart. Go's client sends
/// again up to six times.
pub(super) const AGAIN_MAX: usize = 3;

/// What one command has had of it.
#[derive(Default)]
pub(super) struct Leave {
    used: usize,
    /// The sessions that have refused it.
    refused: Vec<SessionMark>,
    /// Why it is not known whether an attempt was processed.
    lost: Option<Broken>,
}

impl Leave {
    /// Takes note of an attempt: why it came to nothing, and whether the request may be sent again.
    fn note(&mut self, why: Why) -> (String, bool) {
        let may_be = self.used < AGAIN_MAX;
        self.used += 1;
        match why {
            Why::Refused(session, why) => {
                self.refused.push(session);
                (why, may_be)
            }
            Why::Lost(broken) => {
                let is_first = self.lost.is_none();
                (self.lost.get_or_insert(broken).to_string(), may_be && is_first)
            }
        }
    }

    /// Why there is no answer, after attempts of which none but a lost one can have been processed.
    fn end(&mut self, unprocessed: SendError) -> SendError {
        self.lost.take().map_or(unprocessed, SendError::Failed)
    }
}

/// How an offer ended that came to an answer, or may be made again.
enum Offered {
    Answered(Sent),
    Again(Again),
}

impl Upstreams {
    /// Sends a request again, as often as it may be.
    pub(super) async fn send_again(&self, mut again: Again, course: &mut Course<'_>) -> Result<Sent, SendError> {
        loop {
            let Again { request, pool, why } = again;
            let is_lost = matches!(why, Why::Lost(_));
            let (why, may_be) = course.leave.note(why);
            let Some(request) = request.filter(|_| may_be) else {
                return Err(course.leave.end(SendError::Refused(why)));
            };
            match self.offer(request, (pool, is_lost), course).await? {
                Offered::Answered(sent) => return Ok(sent),
                Offered::Again(next) => again = next,
            }
        }
    }

    /// Offers a request to a server, and to others as long as nothing of it is sent.
    async fn offer(
        &self,
        mut request: Outgoing,
        (pool, is_lost): (Rc<Pool>, bool),
        course: &mut Course<'_>,
    ) -> Result<Offered, SendError> {
        let mut choice = self.choose_again(pool, is_lost, course);
        let refused = course.leave.refused.clone();
        let links = if is_lost { Links::New } else { Links::Besides(&refused) };
        let mut why = String::new();
        for _ in 0..SERVERS_MAX {
            let Choice { pool, place, tried } = choice;
            course.tried = tried;
            let attempt = pool.send(request, (place, links), self.connect, &course.patience).await;
            if !matches!(attempt, Attempt::Unsent(..)) {
                pool.health.stats.retries.one();
            }
            match attempt {
                Attempt::Sent(sent) => return Ok(Offered::Answered(sent)),
                Attempt::Again(again) => return Ok(Offered::Again(again)),
                Attempt::Failed(error) => return Err(error),
                Attempt::Unsent(unsent, because) => (request, why) = (unsent, because),
            }
            let Ok(other) = self.choose(course.key, course.tried) else { break };
            choice = other;
        }
        Err(course.leave.end(SendError::Unreachable(why)))
    }

    /// The server that gets a request again: the same, if its connection was lost; otherwise another, if one has room. The place
    /// at the same one has just been given back.
    fn choose_again(&self, pool: Rc<Pool>, is_lost: bool, course: &Course<'_>) -> Choice {
        let mut tried = course.tried;
        self.position_of(&pool).into_iter().for_each(|position| tried.add(position));
        let other = if is_lost { None } else { self.choose(course.key, tried).ok() };
        other.unwrap_or_else(|| Choice { place: pool.take_place(), pool, tried })
    }
}

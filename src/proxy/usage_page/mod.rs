//! Usage pages: what each department may read about its own usage, made on one thread beside traffic.
//!
//! Guarantees:
//! - At most one page is made at a time, and at most [`QUESTIONS_MAX`] questions wait. A worker only waits, and goes on
//!   with other commands, for at most [`ANSWER_TIMEOUT`].
//! - A page is made from the ledger at most every [`PAGE_TIME`] for each department. Each page says when it was made.
//! - A page has the usage of one department, and no name of another.
//!
//! Leaves to others: who may ask (`exchange`), what a page says and how (`report::own_usage`).

mod accepted_format;
mod page_maker;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::clock::Clock;
use crate::ledger::LedgerReader;
use crate::limit::LimiterRegistry;
use crate::model::{CalendarOffset, Department};
use crate::policy::PolicySnapshot;
use crate::report::UsagePageFormat;

use self::page_maker::PageMaker;

pub(crate) use self::accepted_format::preferred_format;

/// How long a page is shown before it is made again.
pub(crate) const PAGE_TIME: Duration = Duration::from_secs(60);
/// How long a caller waits for a page: longer than a ledger on a busy disk needs, shorter than callers wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most questions that wait.
const QUESTIONS_MAX: usize = 64;

/// Asks the thread of usage pages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UsagePages(mpsc::Sender<(UsageQuestion, PageReply)>);

/// The questions that [`UsagePages`] asks, for [`UsagePageQueue::start`].
#[derive(Debug)]
pub struct UsagePageQueue(mpsc::Receiver<(UsageQuestion, PageReply)>);

type PageReply = oneshot::Sender<Result<UsagePageText, UsageUnavailable>>;

/// What a page is made from.
#[derive(Clone, Debug)]
pub struct UsageSources {
    /// The ledger.
    pub ledger: LedgerReader,
    /// The quotas and their use.
    pub limiters: Arc<LimiterRegistry>,
    /// The configuration, for limits.
    pub published: Arc<ArcSwap<PolicySnapshot>>,
    /// The calendar of days and months.
    pub calendar: CalendarOffset,
    /// The source of time.
    pub clock: Clock,
}

/// A department's question for its own usage.
#[derive(Clone, Debug)]
pub(crate) struct UsageQuestion {
    /// The department of the certificate.
    pub(crate) department: Department,
    /// When this certificate ends.
    pub(crate) certificate_ends: Option<Timestamp>,
    pub(crate) format: UsagePageFormat,
}

/// A page.
#[derive(Clone, Debug)]
pub(crate) struct UsagePageText {
    pub(crate) body: Bytes,
    pub(crate) format: UsagePageFormat,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UsageUnavailable {
    /// The queue is full.
    #[error("too many departments read their usage at the moment; try again in a second")]
    Busy,
    /// The ledger could not be read, or the gateway stops. The log has the error.
    #[error("the usage cannot be read from the ledger at the moment; try again in a second")]
    Unreadable,
}

impl UsagePages {
    /// The two ends of the queue of questions.
    pub fn queue() -> (Self, UsagePageQueue) {
        let (sender, receiver) = mpsc::channel(QUESTIONS_MAX);
        (Self(sender), UsagePageQueue(receiver))
    }

    /// The page that answers a question.
    pub(crate) async fn page_for(&self, question: UsageQuestion) -> Result<UsagePageText, UsageUnavailable> {
        self.page_within(ANSWER_TIMEOUT, question).await
    }

    async fn page_within(&self, wait: Duration, question: UsageQuestion) -> Result<UsagePageText, UsageUnavailable> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send((question, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => UsageUnavailable::Busy,
            mpsc::error::TrySendError::Closed(_) => UsageUnavailable::Unreadable,
        })?;
        match timeout(wait, answer).await {
            Ok(answer) => answer.unwrap_or(Err(UsageUnavailable::Unreadable)),
            Err(_) => Err(UsageUnavailable::Unreadable),
        }
    }
}

impl UsagePageQueue {
    /// Starts the thread that makes pages. It ends once every [`UsagePages`] is dropped.
    pub fn start(mut self, sources: UsageSources) -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().build()?;
        let make_pages = async move {
            let mut maker = PageMaker::new(sources);
            while let Some((question, reply)) = self.0.recv().await {
                if reply.is_closed() {
                    continue; // the caller has left
                }
                let _ = reply.send(maker.page_for(question).await); // the caller may leave meanwhile
            }
        };
        std::thread::Builder::new().name("usage-page".to_owned()).spawn(move || runtime.block_on(make_pages))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ledger_that_does_not_answer_ends_the_wait() {
        let (pages, _queue) = UsagePages::queue();
        let (department, format) = (Department::unknown(), UsagePageFormat::Html);
        let question = UsageQuestion { department, certificate_ends: None, format };
        assert_eq!(pages.page_within(Duration::ZERO, question).await.map(|_| ()), Err(UsageUnavailable::Unreadable));
    }

    #[tokio::test]
    async fn full_queue_refuses_at_once_and_a_stopped_thread_is_no_wait() {
        let (pages, queue) = UsagePages::queue();
        let department = Department::unknown();
        let ask = || {
            let format = UsagePageFormat::Json;
            pages.page_for(UsageQuestion { department: department.clone(), certificate_ends: None, format })
        };
        let mut waiting: Vec<_> = (0..QUESTIONS_MAX).map(|_| Box::pin(ask())).collect();
        for one in &mut waiting {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert_eq!(ask().await.map(|_| ()), Err(UsageUnavailable::Busy));
        drop(queue);
        for one in waiting {
            assert_eq!(one.await.map(|_| ()), Err(UsageUnavailable::Unreadable));
        }
    }
}

//! Shared scrapes: one page of metrics at a time, shared by all waiting scrapers.
//!
//! Guarantees:
//! - At most one page is rendered at any moment, so many concurrent scrapes need the memory of one page.
//! - A scraper gets a page whose rendering began after its request, so the page contains everything counted before.
//! - A page is dropped when its last waiter has it.
//!
//! Leaves to others: the rendering (`endpoints`, `telemetry`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;

/// A page, or why it could not be rendered.
pub(crate) type ScrapeResult = Result<Bytes, Arc<anyhow::Error>>;

/// The pages of metrics, rendered one after the other.
#[derive(Debug, Default)]
pub struct SharedScrapes {
    /// The number of pages begun so far.
    started: AtomicU64,
    /// The number of waiting scrapers.
    waiters: AtomicUsize,
    /// The last page with its number, kept while a scraper waits for it. Locked during rendering.
    last_page: Mutex<Option<(u64, ScrapeResult)>>,
}

impl SharedScrapes {
    /// A page whose rendering begins after this call: a shared one, or the one that `make` renders.
    pub(crate) async fn shared_page<F: Future<Output = anyhow::Result<Bytes>>>(
        &self,
        make: impl FnOnce() -> F,
    ) -> ScrapeResult {
        let begun = self.started.load(Ordering::SeqCst);
        let waiting = ScrapeWaiter::new(&self.waiters);
        let mut last = self.last_page.lock().await;
        let is_last_waiting = waiting.finish_waiting();
        if let Some((_, page)) = last.as_ref().filter(|(number, _)| *number > begun) {
            let page = page.clone();
            if is_last_waiting {
                *last = None;
            }
            return page;
        }
        *last = None;
        let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        let page = make().await.map_err(Arc::new);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            *last = Some((number, page.clone()));
        }
        page
    }
}

/// A waiting scraper. It may be dropped before its turn.
struct ScrapeWaiter<'a>(Option<&'a AtomicUsize>);

impl<'a> ScrapeWaiter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Some(count))
    }

    /// Ends the wait. Returns whether this was the last waiter.
    fn finish_waiting(mut self) -> bool {
        self.0.take().is_some_and(|count| count.fetch_sub(1, Ordering::SeqCst) == 1)
    }
}

impl Drop for ScrapeWaiter<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0.take() {
            count.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Renders pages that hold their number. A page is not finished at its first poll.
    async fn scrape(scrapes: &SharedScrapes, made: &AtomicU64) -> u64 {
        let page = scrapes.shared_page(|| async {
            let number = made.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            Ok(Bytes::from(number.to_string()))
        });
        let page = page.await.expect("a page");
        String::from_utf8(page.to_vec()).expect("text").parse().expect("a number")
    }

    #[tokio::test]
    async fn concurrent_scrapes_share_a_page_rendered_after_their_requests() {
        let (scrapes, made) = (SharedScrapes::default(), AtomicU64::new(0));
        let storm = futures_util::future::join_all((0..8).map(|_| scrape(&scrapes, &made)));
        let pages = storm.await;
        assert_eq!(pages, [1, 2, 2, 2, 2, 2, 2, 2], "the first page was begun before the other requests");
        assert!(scrapes.last_page.lock().await.is_none(), "without waiters no page is kept");
        assert_eq!(scrape(&scrapes, &made).await, 3, "a later request gets a later page");
    }

    #[tokio::test]
    async fn cancelled_scrape_does_not_block_others() {
        let (scrapes, made) = (SharedScrapes::default(), AtomicU64::new(0));
        assert!(scrape(&scrapes, &made).now_or_never().is_none());
        assert_eq!(scrape(&scrapes, &made).await, 2);
        assert_eq!(scrapes.waiters.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn failed_scrape_reports_its_error_to_all_waiters() {
        let scrapes = SharedScrapes::default();
        let fail = || scrapes.shared_page(|| async { Err(anyhow::anyhow!("the ledger has stopped")) });
        let (one, other) = tokio::join!(fail(), fail());
        for failed in [one, other] {
            assert_eq!(failed.expect_err("no page").to_string(), "the ledger has stopped");
        }
    }
}

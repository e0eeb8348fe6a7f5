//! One scrape at a time, shared by all who wait for it.
//!
//! Guarantees: at most one page of metrics is made at any moment, so a storm of scrapes costs the memory of one; whoever
//! asks gets a page that was begun after the question, so everything counted before is on it. The page is forgotten when
//! the last one who waited has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;

/// A page, or why there is none.
pub(crate) type ScrapeResult = Result<Bytes, Arc<anyhow::Error>>;

/// Pages of metrics, one after the other.
#[derive(Debug, Default)]
pub struct SharedScrapes {
    /// Pages begun so far.
    started: AtomicU64,
    /// Those who wait for a page.
    waiters: AtomicUsize,
    /// The last page that was made, with its number, while somebody waits for it. Held while one is made.
    last_page: Mutex<Option<(u64, ScrapeResult)>>,
}

impl SharedScrapes {
    /// A page that is begun from now on: another's who waits too, or what `make` makes.
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

/// Somebody who waits, and may leave before it is his turn.
struct ScrapeWaiter<'a>(Option<&'a AtomicUsize>);

impl<'a> ScrapeWaiter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Some(count))
    }

    /// Waits no more; whether nobody does.
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
    use super::*;
    use std::time::Duration;

    /// Makes pages that hold their number, slowly.
    async fn scrape(scrapes: &SharedScrapes, made: &AtomicU64) -> u64 {
        let page = scrapes.shared_page(|| async {
            let number = made.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(Bytes::from(number.to_string()))
        });
        let page = page.await.expect("a page");
        String::from_utf8(page.to_vec()).expect("text").parse().expect("a number")
    }

    #[tokio::test]
    async fn a_storm_shares_one_page_that_is_begun_after_all_have_asked() {
        let (scrapes, made) = (SharedScrapes::default(), AtomicU64::new(0));
        let storm = futures_util::future::join_all((0..8).map(|_| scrape(&scrapes, &made)));
        let pages = storm.await;
        assert_eq!(pages, [1, 2, 2, 2, 2, 2, 2, 2], "the first was begun before the others asked");
        assert!(scrapes.last_page.lock().await.is_none(), "nobody waits, nothing is kept");
        assert_eq!(scrape(&scrapes, &made).await, 3, "a later question gets a later page");
    }

    #[tokio::test]
    async fn one_who_leaves_while_a_page_is_made_holds_up_nobody() {
        let (scrapes, made) = (SharedScrapes::default(), AtomicU64::new(0));
        let short = |who| tokio::time::timeout(Duration::from_millis(5), who);
        assert!(short(scrape(&scrapes, &made)).await.is_err());
        assert_eq!(scrape(&scrapes, &made).await, 2);
        assert_eq!(scrapes.waiters.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_page_that_failed_says_why_to_all_who_waited() {
        let scrapes = SharedScrapes::default();
        let fail = || scrapes.shared_page(|| async { Err(anyhow::anyhow!("the ledger has stopped")) });
        let (one, other) = tokio::join!(fail(), fail());
        for failed in [one, other] {
            assert_eq!(failed.expect_err("no page").to_string(), "the ledger has stopped");
        }
    }
}

//! Sealed hours as a Prometheus has them: the samples of `/metrics/hours`, checked and put together again.
//!
//! Guarantees:
//! - A number is the count of a sample, or there is an error: nothing is rounded or guessed.
//! - An hour is whole if it has as many samples of commands, and of units, as `tallygate_usage_hour_series` says.
//! - The same sample from several series (two servers, two jobs) counts once. Series that contradict each other are an
//!   error that names both.
//!
//! Pure. Leaves to `cli`: the queries.

mod scraped_error;
mod scraped_hour;
pub(crate) mod scraped_series;
mod scraped_sum;

pub use self::scraped_error::ScrapedError;
pub use self::scraped_hour::{ScrapedHour, ScrapedHours, UsageLabels, head_families_matcher, hour_families_matcher};
pub use self::scraped_series::{ScrapedSample, ScrapedSeries};
pub use self::scraped_sum::{ScrapedReport, ScrapedSum, window_ranges, window_ranges_text};

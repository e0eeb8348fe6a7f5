//! Which hours a Prometheus could have scraped: `up` of the job while `/metrics/hours` offered them.
//!
//! The query evaluates `up` one hour after each hour's end, over the minutes in which the hour was offered.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::model::Window;
use crate::report::scraped::ScrapedSeries;

/// The hours from an hour to the moment at which its scrapes are evaluated: an hour after its end.
const EVALUATED_AFTER: u32 = 2;

/// The scrapes of hours, of each gateway.
#[derive(Debug, Default)]
pub struct UpHistory {
    /// By the value of the label that tells gateways apart; whether a scrape succeeded.
    gateways: BTreeMap<String, BTreeMap<Window, bool>>,
}

impl UpHistory {
    /// The query of the scrapes of a range of hours, and the moment of its evaluation in Unix seconds. `selector` is
    /// that of `up`. An hour is sealed and offered from about two minutes after its end to 50 minutes after it.
    pub fn query(selector: &str, range: &Range<Window>) -> (String, i64) {
        let hours = range.end.0 - range.start.0;
        let query = format!("max_over_time({selector}[48m] offset 10m)[{hours}h:1h]");
        (query, Window(range.end.0 + EVALUATED_AFTER - 1).start_unix_seconds())
    }

    /// Adds the answer to [`UpHistory::query`]. `sum_by` is the label that tells gateways apart.
    pub fn add(&mut self, series: &[ScrapedSeries], sum_by: Option<&str>) {
        for ScrapedSeries { labels, samples } in series {
            let gateway = sum_by.and_then(|label| labels.get(label)).cloned().unwrap_or_default();
            let hours = self.gateways.entry(gateway).or_default();
            for sample in samples {
                let evaluated = Window::of_unix_seconds(sample.millis.div_euclid(1000));
                let succeeded = hours.entry(Window(evaluated.0.saturating_sub(EVALUATED_AFTER))).or_default();
                *succeeded |= sample.value == "1";
            }
        }
    }

    /// Whether a scrape of a gateway succeeded while the hour was offered; `None` without a scrape.
    pub fn success(&self, gateway: &str, window: Window) -> Option<bool> {
        self.gateways.get(gateway)?.get(&window).copied()
    }

    /// The gateways that were scraped.
    pub fn gateways(&self) -> impl Iterator<Item = &str> {
        self.gateways.keys().map(String::as_str)
    }

    /// Whether a gateway was scraped before the hour, as far as the hours were added.
    pub fn was_scraped_before(&self, window: Window) -> bool {
        self.gateways.values().any(|hours| hours.first_key_value().is_some_and(|(first, _)| *first < window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scraped::ScrapedSample;

    #[test]
    fn scrapes_belong_to_the_hour_that_was_offered() {
        let hour = |window: u32| i64::from(window) * 3_600_000;
        let (query, at) = UpHistory::query("up{job=\"x\"}", &(Window(24)..Window(48)));
        assert_eq!(query, "max_over_time(up{job=\"x\"}[48m] offset 10m)[24h:1h]");
        assert_eq!(at, 49 * 3600, "an hour after the end of the last hour");
        let of = |instance: &str, samples: &[(u32, &str)]| ScrapedSeries {
            labels: [("instance".to_owned(), instance.to_owned())].into(),
            samples: samples
                .iter()
                .map(|(at, up)| ScrapedSample { millis: hour(*at), value: (*up).to_owned() })
                .collect(),
        };
        let answer = [of("a", &[(26, "0"), (27, "1"), (49, "0")]), of("b", &[(27, "0")])];
        let (mut one, mut several) = (UpHistory::default(), UpHistory::default());
        one.add(&answer, None);
        several.add(&answer, Some("instance"));
        let found =
            |history: &UpHistory, gateway: &str| [24, 25, 26, 47].map(|at| history.success(gateway, Window(at)));
        assert_eq!(found(&one, ""), [Some(false), Some(true), None, Some(false)]);
        assert_eq!(found(&several, "b"), [None, Some(false), None, None]);
        assert_eq!([24, 25].map(|at| one.was_scraped_before(Window(at))), [false, true]);
        assert_eq!(several.gateways().collect::<Vec<_>>(), ["a", "b"]);
    }
}

//! Series and samples of a Prometheus, as its query API gives them.

use std::collections::BTreeMap;

/// A series of a Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapedSeries {
    /// The labels, with the name of the family as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// The samples in their order.
    pub samples: Vec<ScrapedSample>,
}

impl ScrapedSeries {
    /// The sum of the increments of a counter between its samples. A decrease is a counter that began anew. A value
    /// that is no whole number, which no counter of a gateway has, counts as 0.
    pub fn increments(&self) -> u64 {
        let values: Vec<u64> = self.samples.iter().map(|sample| sample.value.parse().unwrap_or(0)).collect();
        let pairs = values.windows(2);
        pairs.map(|pair| pair[1].checked_sub(pair[0]).unwrap_or(pair[1])).fold(0, u64::saturating_add)
    }
}

/// A sample of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapedSample {
    /// The time, in Unix milliseconds.
    pub millis: i64,
    /// The value as it was written.
    pub value: String,
}

/// The label with the name of the family.
pub(super) const FAMILY_LABEL: &str = "__name__";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::Window;
    use crate::report::scraped::{ScrapedError, ScrapedHours};

    #[test]
    fn increments_of_a_counter_continue_over_a_restart() {
        for (values, expected) in [
            (&[][..], 0),
            (&["5"], 0),
            (&["5", "5", "9"], 4),
            (&["5", "9", "2", "3"], 7), // 4, then 2 since the restart, then 1
        ] {
            let samples: Vec<_> = (0..).zip(values.iter().copied()).collect();
            assert_eq!(series(("a_total", &[]), &samples).increments(), expected, "{values:?}");
        }
    }

    /// An hour of 2026-10-05, UTC.
    pub(crate) fn hour(hour: u32) -> Window {
        const DAY: u32 = 20_731; // 2026-10-05
        Window(DAY * 24 + hour)
    }

    /// A series with samples at hours.
    pub(crate) fn series((name, labels): (&str, &[(&str, &str)]), samples: &[(u32, &str)]) -> ScrapedSeries {
        let family = (FAMILY_LABEL, name);
        let labels = labels.iter().copied().chain([family]).map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sample = |(at, value): &(u32, &str)| ScrapedSample {
            millis: (i64::from(hour(*at).0) * 3600 + 3540) * 1000,
            value: (*value).to_owned(),
        };
        ScrapedSeries { labels: labels.collect(), samples: samples.iter().map(sample).collect() }
    }

    /// The samples of one department with usage of one subsystem, hour by hour from 10 on.
    pub(crate) fn commands_of(department: &str, commands: &[u64]) -> Vec<ScrapedSeries> {
        let texts: Vec<String> = commands.iter().map(u64::to_string).collect();
        let with = |value: &dyn Fn(usize) -> String, name: &str, labels: &[(&str, &str)]| {
            let values: Vec<_> = (0..texts.len()).map(value).collect();
            let samples: Vec<_> = (10..).zip(values.iter().map(String::as_str)).collect();
            series((name, labels), &samples)
        };
        let labels = [("department", department), ("subsystem", "cameras")];
        vec![
            with(&|at| texts[at].clone(), "tallygate_usage_hour_commands", &labels),
            with(&|_| "0".to_owned(), "tallygate_usage_hour_units", &labels),
            with(&|_| "1".to_owned(), "tallygate_usage_hour_series", &[]),
        ]
    }

    /// The series with one more label.
    pub(crate) fn labelled(mut all: Vec<ScrapedSeries>, (name, value): (&str, &str)) -> Vec<ScrapedSeries> {
        all.iter_mut().for_each(|one| drop(one.labels.insert(name.to_owned(), value.to_owned())));
        all
    }

    /// Three hours; the third has one sample less than it says.
    pub(crate) fn day() -> Vec<ScrapedSeries> {
        let pair = |name: &'static str, of: [&str; 2], samples: &[(u32, &str)]| {
            series((name, &[("department", of[0]), ("subsystem", of[1])]), samples)
        };
        let (commands, units) = ("tallygate_usage_hour_commands", "tallygate_usage_hour_units");
        vec![
            series((commands, &[("department", "parking")]), &[(10, "0"), (11, "0"), (12, "0")]),
            series((units, &[("department", "parking")]), &[(10, "0"), (11, "0"), (12, "0")]),
            pair(commands, ["parking", "cameras"], &[(10, "5"), (11, "2")]),
            pair(units, ["parking", "cameras"], &[(10, "11"), (11, "3")]),
            pair(commands, ["parking", "shop.cart"], &[(10, "9")]),
            pair(units, ["parking", "shop.cart"], &[(10, "0")]),
            pair(commands, ["fire", "cameras"], &[(10, "1")]),
            pair(units, ["fire", "cameras"], &[(10, "1")]),
            series(("tallygate_usage_hour_series", &[]), &[(10, "4"), (11, "2"), (12, "2")]),
        ]
    }

    /// Puts the hours 10 to 12 together.
    pub(crate) fn read(series: &[ScrapedSeries], sum_by: Option<&str>) -> Result<ScrapedHours, ScrapedError> {
        ScrapedHours::read(series, &(hour(10)..hour(13)), sum_by)
    }
}

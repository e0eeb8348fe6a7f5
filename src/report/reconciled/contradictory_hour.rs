//! An hour whose series contradict each other, taken apart by their source: the labels that are not those of usage.

use std::collections::BTreeMap;

use crate::ledger::UsageSums;
use crate::model::Window;
use crate::report::scraped::{ScrapedError, ScrapedHours, ScrapedSeries};

use super::usage_reconciliation::UsageTable;

/// The labels that a gateway itself writes. All others are of the source.
const OWN_LABELS: [&str; 6] = ["__name__", "department", "subsystem", "command", "period", "part"];

/// An hour of which several sources have different values.
#[derive(Debug)]
pub struct ContradictoryHour {
    /// The usage of each source, once each.
    sources: Vec<SourceHour>,
}

/// The hour of one source.
#[derive(Debug, PartialEq, Eq)]
struct SourceHour {
    is_whole: bool,
    usage: BTreeMap<(String, String), UsageSums>,
}

impl ContradictoryHour {
    /// Takes the series of an hour apart. Samples of other hours are ignored.
    pub fn read(series: &[ScrapedSeries], window: Window) -> Result<Self, ScrapedError> {
        let mut by_source: BTreeMap<Vec<(&str, &str)>, Vec<ScrapedSeries>> = BTreeMap::new();
        for one in series {
            let of_hour = |millis: i64| Window::of_unix_seconds(millis.div_euclid(1000)) == window;
            let samples: Vec<_> = one.samples.iter().filter(|sample| of_hour(sample.millis)).cloned().collect();
            if !samples.is_empty() {
                let source = source_labels(&one.labels).collect();
                by_source.entry(source).or_default().push(ScrapedSeries { labels: one.labels.clone(), samples });
            }
        }
        let mut sources = Vec::new();
        for series in by_source.values() {
            let source = SourceHour::read(series, window)?;
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        Ok(Self { sources })
    }

    /// The usage of all sources together, which is what a query without a matcher adds up.
    pub fn usage(&self) -> UsageTable<'_> {
        let mut table = UsageTable::new();
        for ((department, subsystem), sums) in self.sources.iter().flat_map(|source| &source.usage) {
            table.entry((department, subsystem)).or_default().add(*sums);
        }
        table
    }

    /// Whether one source has exactly the usage of the ledger.
    pub fn has_source_of(&self, ledger: &UsageTable<'_>) -> bool {
        let is_used = |sums: &UsageSums| *sums != UsageSums::default();
        self.sources.iter().filter(|source| source.is_whole).any(|source| {
            let own = source.usage.iter().filter(|(_, sums)| is_used(sums));
            let own = own.map(|((department, subsystem), sums)| ((department.as_str(), subsystem.as_str()), *sums));
            own.eq(ledger.iter().filter(|(_, sums)| is_used(sums)).map(|(labels, sums)| (*labels, *sums)))
        })
    }
}

impl SourceHour {
    fn read(series: &[ScrapedSeries], window: Window) -> Result<Self, ScrapedError> {
        let hours = ScrapedHours::read_with_contradictions(series, &(window..window.next()), None)?;
        let hour = hours.gateways().find_map(|(_, hours)| hours.get(&window).cloned()).unwrap_or_default();
        let mut usage: BTreeMap<(String, String), UsageSums> = BTreeMap::new();
        for (labels, sums) in hour.usage() {
            let key = (labels.department.clone(), labels.subsystem.clone().unwrap_or_default());
            usage.entry(key).or_default().add(sums);
        }
        Ok(Self { is_whole: hour.is_whole(), usage })
    }
}

/// The labels of a series that its scrape has added, `job` and `instance` among them.
pub fn source_labels(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    let others = labels.iter().filter(|(name, _)| !OWN_LABELS.contains(&name.as_str()));
    others.map(|(name, value)| (name.as_str(), value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scraped::scraped_series::tests::{commands_of, hour, labelled};

    #[test]
    fn source_that_equals_the_ledger_is_found_among_others() {
        let source =
            |instance: &str, commands: u64| labelled(commands_of("parking", &[commands]), ("instance", instance));
        // Two servers with the same samples, and another gateway.
        let series = [source("a", 3), source("b", 3), source("c", 40)].concat();
        let contradictory = ContradictoryHour::read(&series, hour(10)).expect("an hour");
        let commands = |commands| UsageSums { commands, units: 0 };
        let table = |sums| UsageTable::from([(("parking", "cameras"), sums), (("idle", "cameras"), commands(0))]);
        assert_eq!(contradictory.usage(), [(("parking", "cameras"), commands(43))].into());
        for (of_ledger, expected) in [(3, true), (40, true), (43, false), (4, false)] {
            assert_eq!(contradictory.has_source_of(&table(commands(of_ledger))), expected, "{of_ledger}");
        }
    }
}

//! From series of a Prometheus to hours: their usage, and whether they are whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::ledger::UsageSums;
use crate::model::Window;
use crate::report::hour_samples::{
    HEAD_NUMBER, HEAD_PART, HEAD_PART_DIGITS, HEAD_PARTS, HOUR_COMMANDS, HOUR_SERIES, HOUR_UNITS, sample_time,
};
use crate::report::sample_text::GaugeFamily;

use super::scraped_error::{ScrapedError, choosing_matcher, series_text};
use super::scraped_series::{FAMILY_LABEL, ScrapedSample, ScrapedSeries};

/// The greatest whole number up to which a float of 64 bits holds each.
const EXACT_MAX: u64 = (1 << 53) - 1;
/// The number of parts of a hash.
const PARTS: usize = HEAD_PARTS.len();
/// The digits of the last part.
const LAST_PART_DIGITS: usize = 64 - (PARTS - 1) * HEAD_PART_DIGITS;

/// The families of which hours are put together. The head of the chain tells ledgers apart that have equal counts.
const FAMILIES: [&GaugeFamily; 5] = [&HOUR_COMMANDS, &HOUR_UNITS, &HOUR_SERIES, &HEAD_NUMBER, &HEAD_PART];

/// The families of the head of the chain.
const HEAD_FAMILIES: [&GaugeFamily; 2] = [&HEAD_NUMBER, &HEAD_PART];

/// The matcher of PromQL for the series that make hours.
pub fn hour_families_matcher() -> String {
    format!("__name__=~\"{}\"", FAMILIES.map(|family| family.name).join("|"))
}

/// The matcher of PromQL for the series of the heads of the chain.
pub fn head_families_matcher() -> String {
    format!("__name__=~\"{}\"", HEAD_FAMILIES.map(|family| family.name).join("|"))
}

/// The labels of usage. They sort as the report does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageLabels {
    /// The department.
    pub department: String,
    /// The subsystem; `None` for the department's own sample, which is 0.
    pub subsystem: Option<String>,
    /// The command, if the samples have it.
    pub command: Option<String>,
}

/// A value and the position of the series that had it first.
#[derive(Clone, Copy, Debug)]
struct KnownValue {
    value: u64,
    series: usize,
}

/// One hour of one gateway.
#[derive(Clone, Debug, Default)]
pub struct ScrapedHour {
    commands: BTreeMap<Arc<UsageLabels>, KnownValue>,
    units: BTreeMap<Arc<UsageLabels>, KnownValue>,
    series: Option<KnownValue>,
    head_number: Option<KnownValue>,
    head_parts: [Option<KnownValue>; PARTS],
    /// The first contradiction between its series.
    contradiction: Option<Box<ScrapedError>>,
}

impl ScrapedHour {
    /// Whether all samples of the hour are there, and none contradicts another.
    pub fn is_whole(&self) -> bool {
        let counted = self.commands.len() as u64;
        self.contradiction.is_none()
            && self.series.is_some_and(|series| series.value == counted)
            && self.commands.keys().eq(self.units.keys())
    }

    /// The first contradiction between series of the hour: an error that is a choice.
    pub fn contradiction(&self) -> Option<&ScrapedError> {
        self.contradiction.as_deref()
    }

    /// The samples of commands that the hour has, and those that it should have, if it is known.
    pub fn sample_counts(&self) -> (u64, Option<u64>) {
        (self.commands.len() as u64, self.series.map(|series| series.value))
    }

    /// The usage of the hour, without the departments' own samples.
    pub fn usage(&self) -> impl Iterator<Item = (&UsageLabels, UsageSums)> {
        let used = self.commands.iter().filter(|(labels, _)| labels.subsystem.is_some());
        used.map(|(labels, commands)| {
            let units = self.units.get(labels).map_or(0, |units| units.value);
            (labels.as_ref(), UsageSums { commands: commands.value, units })
        })
    }

    /// The head of the hash chain as of the hour: number and hash, if all of its samples are there.
    pub fn head(&self) -> Option<(u64, String)> {
        let [first, second, third, fourth, last] = self.head_parts;
        let mut hash = String::new();
        for part in [first?, second?, third?, fourth?] {
            hash += &format!("{:0HEAD_PART_DIGITS$x}", part.value);
        }
        hash += &format!("{:0LAST_PART_DIGITS$x}", last?.value);
        Some((self.head_number?.value, hash))
    }

    /// Stores a value, unless there is one. Returns the value that is there.
    fn fill(&mut self, place: &ValuePlace, value: KnownValue) -> KnownValue {
        match place {
            ValuePlace::Commands(labels) => *self.commands.entry(Arc::clone(labels)).or_insert(value),
            ValuePlace::Units(labels) => *self.units.entry(Arc::clone(labels)).or_insert(value),
            ValuePlace::SeriesCount => *self.series.get_or_insert(value),
            ValuePlace::HeadNumber => *self.head_number.get_or_insert(value),
            ValuePlace::HeadPart(part) => *self.head_parts[*part].get_or_insert(value),
        }
    }

    /// Records a contradiction, unless the hour has one.
    fn contradict(&mut self, error: impl FnOnce() -> ScrapedError) {
        self.contradiction.get_or_insert_with(|| Box::new(error()));
    }

    /// Records that there are more samples than the hour has, if so.
    fn check_count(&mut self, window: Window) {
        let (found, expected) = self.sample_counts();
        if let Some(expected) = expected.filter(|expected| *expected < found) {
            self.contradict(|| ScrapedError::TooManySamples { window, found, expected });
        }
    }
}

/// Where the values of a series belong.
#[derive(Debug)]
enum ValuePlace {
    Commands(Arc<UsageLabels>),
    Units(Arc<UsageLabels>),
    SeriesCount,
    HeadNumber,
    HeadPart(usize),
}

impl ValuePlace {
    /// The place of the values of a series with these labels. `None` if a label of its family is missing.
    fn of_series(labels: &BTreeMap<String, String>) -> Option<Self> {
        let family = labels.get(FAMILY_LABEL).map_or("", String::as_str);
        if family == HOUR_SERIES.name {
            return Some(Self::SeriesCount);
        }
        if family == HEAD_NUMBER.name {
            return Some(Self::HeadNumber);
        }
        if family == HEAD_PART.name {
            let part = labels.get("part").and_then(|part| part.parse::<usize>().ok());
            return part.filter(|part| *part < PARTS).map(Self::HeadPart);
        }
        let of = |name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
        let usage = UsageLabels { department: of("department")?, subsystem: of("subsystem"), command: of("command") };
        match family {
            _ if family == HOUR_COMMANDS.name => Some(Self::Commands(Arc::new(usage))),
            _ if family == HOUR_UNITS.name => Some(Self::Units(Arc::new(usage))),
            _ => None,
        }
    }
}

/// The hours of a range, of each gateway.
#[derive(Clone, Debug, Default)]
pub struct ScrapedHours {
    /// By the value of the label that tells gateways apart; one with an empty value without such a label.
    gateways: BTreeMap<String, BTreeMap<Window, ScrapedHour>>,
}

impl ScrapedHours {
    /// Puts the series of the hours of `range` together. `sum_by` is the label that tells gateways apart, whose usage
    /// is added up; without it all series are of one gateway. A contradiction is an error.
    pub fn read(series: &[ScrapedSeries], range: &Range<Window>, sum_by: Option<&str>) -> Result<Self, ScrapedError> {
        let hours = Self::read_with_contradictions(series, range, sum_by)?;
        match hours.gateways.values().flat_map(BTreeMap::values).find_map(ScrapedHour::contradiction) {
            Some(contradiction) => Err(contradiction.clone()),
            None => Ok(hours),
        }
    }

    /// Like [`ScrapedHours::read`], but an hour whose series contradict each other is not whole, and has the
    /// contradiction.
    pub fn read_with_contradictions(
        series: &[ScrapedSeries],
        range: &Range<Window>,
        sum_by: Option<&str>,
    ) -> Result<Self, ScrapedError> {
        let mut hours = Self::default();
        for position in 0..series.len() {
            hours.add_series(series, position, (range, sum_by))?;
        }
        for (window, hour) in hours.gateways.values_mut().flatten() {
            hour.check_count(*window);
        }
        Ok(hours)
    }

    /// The gateways, each with its hours.
    pub fn gateways(&self) -> impl Iterator<Item = (&str, &BTreeMap<Window, ScrapedHour>)> {
        self.gateways.iter().map(|(gateway, hours)| (gateway.as_str(), hours))
    }

    fn add_series(
        &mut self,
        all: &[ScrapedSeries],
        position: usize,
        (range, sum_by): (&Range<Window>, Option<&str>),
    ) -> Result<(), ScrapedError> {
        let ScrapedSeries { labels, samples } = &all[position];
        let gateway = sum_by.and_then(|label| labels.get(label)).cloned().unwrap_or_default();
        let hours = self.gateways.entry(gateway).or_default();
        let place =
            ValuePlace::of_series(labels).ok_or_else(|| ScrapedError::NoDepartment { series: series_text(labels) })?;
        for sample in samples {
            let window = window_of(sample, range)
                .ok_or_else(|| ScrapedError::WrongTime { at: sample.millis, series: series_text(labels) })?;
            let value = KnownValue { value: count_of(sample, labels)?, series: position };
            let hour = hours.entry(window).or_default();
            let known = hour.fill(&place, value);
            if known.value != value.value {
                hour.contradict(|| conflict(window, (known, &all[known.series]), (value, &all[position])));
            }
        }
        Ok(())
    }
}

/// The hour of a sample, if its time is that of an hour of the range.
fn window_of(sample: &ScrapedSample, range: &Range<Window>) -> Option<Window> {
    let window = Window::of_unix_seconds(sample.millis.div_euclid(1000));
    (range.contains(&window) && sample_time(window) * 1000 == sample.millis).then_some(window)
}

fn count_of(sample: &ScrapedSample, labels: &BTreeMap<String, String>) -> Result<u64, ScrapedError> {
    let count = sample.value.parse().ok().filter(|count| *count <= EXACT_MAX);
    count.ok_or_else(|| ScrapedError::NotACount { value: sample.value.clone(), series: series_text(labels) })
}

fn conflict(window: Window, first: (KnownValue, &ScrapedSeries), second: (KnownValue, &ScrapedSeries)) -> ScrapedError {
    ScrapedError::Conflict {
        window,
        first_value: first.0.value,
        first: series_text(&first.1.labels),
        second_value: second.0.value,
        second: series_text(&second.1.labels),
        hint: choosing_matcher(&first.1.labels, &second.1.labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::scraped::scraped_series::tests::{commands_of, day, hour, labelled, read, series};

    #[test]
    fn hours_are_put_together_from_their_samples() {
        let hours = read(&day(), None).expect("hours");
        let (_, hours) = hours.gateways().next().expect("a gateway");
        let whole: Vec<_> = hours.values().map(ScrapedHour::is_whole).collect();
        assert_eq!(whole, [true, true, false]);
        let first = hours[&hour(10)].usage();
        let first: Vec<_> = first.map(|(labels, usage)| (labels.department.as_str(), usage.commands)).collect();
        assert_eq!(first, [("fire", 1), ("parking", 5), ("parking", 9)]);
    }

    #[test]
    fn same_samples_of_two_servers_count_once() {
        let twice = [labelled(day(), ("instance", "a")), labelled(day(), ("instance", "b"))].concat();
        let hours = read(&twice, None).expect("hours");
        let (_, hours) = hours.gateways().next().expect("a gateway");
        assert_eq!(hours[&hour(10)].usage().map(|(_, usage)| usage.commands).sum::<u64>(), 15);
        assert!(hours[&hour(11)].is_whole());
    }

    #[test]
    fn samples_that_contradict_each_other_are_an_error_with_both_series() {
        let gateway = |gateway: &str, commands| labelled(commands_of("parking", commands), ("gateway", gateway));
        let conflict = read(&[gateway("a", &[1, 2]), gateway("b", &[1, 3])].concat(), None).expect_err("two values");
        assert!(conflict.is_choice());
        assert_eq!(
            conflict.to_string(),
            "in the hour 2026-10-05T11:00:00Z the Prometheus has two values: 2 in \
             tallygate_usage_hour_commands{department=\"parking\",gateway=\"a\",subsystem=\"cameras\"}, and 3 in \
             tallygate_usage_hour_commands{department=\"parking\",gateway=\"b\",subsystem=\"cameras\"}; these are two \
             ledgers, or one of them was edited: choose one, for example with --matcher 'gateway=\"a\"', or add up \
             several gateways with --sum-by LABEL"
        );
        // Equal counts of two ledgers: the heads of their chains differ.
        let head = |gateway: &str, part| {
            let head = series(("tallygate_ledger_head_part", &[("part", "0")]), &[(10, part)]);
            [labelled(commands_of("parking", &[1]), ("gateway", gateway)), labelled(vec![head], ("gateway", gateway))]
                .concat()
        };
        let conflict = read(&[head("a", "17"), head("b", "18")].concat(), None).expect_err("two heads").to_string();
        assert!(
            conflict.contains("two values: 17 in tallygate_ledger_head_part{gateway=\"a\",part=\"0\"}"),
            "{conflict}"
        );
        // Two departments of two gateways, one sample each.
        let two = [gateway("a", &[1]), labelled(commands_of("fire", &[1]), ("gateway", "b"))].concat();
        let many = read(&two, None).expect_err("more samples than the hour has");
        assert!(matches!(many, ScrapedError::TooManySamples { found: 2, expected: 1, .. }), "{many}");
    }

    #[test]
    fn sample_that_no_gateway_wrote_is_an_error() {
        let labels = &[("department", "parking"), ("subsystem", "cameras")][..];
        let one = |name: &'static str, value: &'static str| series((name, labels), &[(10, value)]);
        let mut moved = one("tallygate_usage_hour_commands", "1");
        moved.samples[0].millis += 60_000;
        let outside = series(("tallygate_usage_hour_commands", labels), &[(14, "1")]);
        let bare = series(("tallygate_usage_hour_units", &[]), &[(10, "1")]);
        for (series, expected) in [
            (one("tallygate_usage_hour_commands", "1.5"), "the value \"1.5\" in tallygate_usage_hour_commands{"),
            (one("tallygate_usage_hour_units", "-1"), "not a whole number below 2^53"),
            (one("tallygate_usage_hour_units", "NaN"), "not a whole number below 2^53"),
            (one("tallygate_usage_hour_units", "9007199254740992"), "not a whole number below 2^53"),
            (moved, "set honor_timestamps: true"),
            (outside, "not one minute before the end of an hour of the query"),
            (bare, "has no label department"),
        ] {
            let error = read(&[series], None).expect_err(expected);
            assert!(error.to_string().contains(expected) && !error.is_choice(), "{error}");
        }
    }

    #[test]
    fn head_is_the_number_and_the_hash_of_five_parts() {
        let part = |part, value| series(("tallygate_ledger_head_part", &[("part", part)]), &[(10, value)]);
        let mut all = vec![
            part("0", "4503599627370495"), // 0xfffffffffffff
            part("1", "0"),
            part("2", "16"),
            part("3", "1"),
            part("4", "281474976710655"), // 0xffffffffffff
            series(("tallygate_ledger_head_number", &[]), &[(10, "7")]),
        ];
        let head = |all: &[ScrapedSeries]| {
            read(all, None).expect("hours").gateways().next().and_then(|(_, hours)| hours[&hour(10)].head())
        };
        let hash = ["fffffffffffff", "0000000000000", "0000000000010", "0000000000001", "ffffffffffff"].concat();
        assert_eq!(head(&all), Some((7, hash)));
        all.remove(2);
        assert_eq!(head(&all), None);
    }
}

//! A parser of the Prometheus text format, limited to the needs of the tests.

use std::collections::BTreeMap;

use super::audit_books::Key;

/// A scrape.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The text of the scrape.
    pub text: String,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    family: String,
    labels: BTreeMap<String, String>,
    value: String,
}

impl Metrics {
    /// Parses a scrape.
    pub fn parse(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let samples = lines.map(Sample::parse).collect();
        Self { text, samples }
    }

    /// Returns whether a family has a sample.
    pub fn has(&self, family: &str) -> bool {
        self.samples.iter().any(|sample| sample.family == family)
    }

    /// Returns the only sample of a family with these labels.
    pub fn value(&self, family: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&Sample| {
            sample.family == family
                && labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|found| found == value))
        };
        self.samples.iter().find(fits).map(|sample| sample.value.parse().expect("a number"))
    }

    /// Returns the sum of a family of integers.
    pub fn sum(&self, family: &str) -> i64 {
        self.samples.iter().filter(|sample| sample.family == family).map(Sample::whole).sum()
    }

    /// Returns `tallygate_commands_total` as rows of usage.
    pub fn commands(&self) -> BTreeMap<Key, u64> {
        let mut commands = BTreeMap::new();
        for sample in self.samples.iter().filter(|sample| sample.family == "tallygate_commands_total") {
            let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
            let key = Key {
                department: label("department"),
                subsystem: label("subsystem"),
                command: label("command"),
                outcome: label("outcome"),
            };
            let count = u64::try_from(sample.whole()).expect("a count is not negative");
            assert!(commands.insert(key, count).is_none(), "a series appears twice: {sample:?}");
        }
        commands.retain(|_, count| *count > 0);
        commands
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
        let (family, labels) = match series.split_once('{') {
            None => (series, ""),
            Some((family, labels)) => (family, labels.trim_end_matches('}')),
        };
        let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once("=\"").expect("a label has a value");
            (name.trim().to_owned(), value.trim_end_matches('"').to_owned())
        });
        Self { family: family.into(), labels: labels.collect(), value: value.into() }
    }

    fn whole(&self) -> i64 {
        self.value.parse().unwrap_or_else(|_| panic!("{self:?} is not a whole number"))
    }
}

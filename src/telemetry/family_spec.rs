//! The declaration of a metric family: its name, help, type and labels, and the conversion of plain rows to its
//! samples.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::histogram::DurationDistribution;

/// The declaration of a family.
#[derive(Debug)]
pub(crate) struct FamilySpec {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: MetricType,
    labels: &'static [&'static str],
}

/// One sample: the label values in the order of the declaration, and the value.
pub(crate) type MetricSample<const LABELS: usize> = ([String; LABELS], f64);

impl FamilySpec {
    /// Declares a counter: a number that only grows.
    pub(crate) const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, help, kind: MetricType::COUNTER, labels }
    }

    /// Declares a gauge: a number that goes up and down.
    pub(crate) const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, help, kind: MetricType::GAUGE, labels }
    }

    /// Declares a histogram: a distribution over buckets.
    pub(crate) const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Self {
        Self { name, help, kind: MetricType::HISTOGRAM, labels }
    }

    /// The description that a registry would require. Every declaration in `metrics` is valid, which a test of
    /// `metrics` verifies.
    #[cfg(test)]
    pub(crate) fn describe(&self) -> Result<prometheus::core::Desc, prometheus::Error> {
        let labels = self.labels.iter().map(|label| (*label).to_owned()).collect();
        prometheus::core::Desc::new(
            self.name.to_owned(),
            self.help.to_owned(),
            labels,
            std::collections::HashMap::new(),
        )
    }

    /// A family with the only sample of a counter or gauge without labels.
    pub(crate) fn single_family(&self, value: f64) -> MetricFamily {
        self.family_of([([], value)])
    }

    /// A family with the samples of a counter or gauge.
    pub(crate) fn family_of<const N: usize>(&self, samples: impl IntoIterator<Item = MetricSample<N>>) -> MetricFamily {
        let metrics = samples.into_iter().map(|(labels, value)| self.metric_of(labels, value)).collect();
        self.metric_family(metrics)
    }

    /// A family with the distributions of a histogram.
    pub(crate) fn histogram_family<const N: usize>(
        &self,
        distributions: impl IntoIterator<Item = ([String; N], DurationDistribution)>,
    ) -> MetricFamily {
        let metrics = distributions.into_iter().map(|(labels, seen)| {
            let mut metric = Metric::from_label(self.label_pairs(labels));
            metric.set_histogram(histogram_sample(&seen));
            metric
        });
        self.metric_family(metrics.collect())
    }

    fn metric_of<const N: usize>(&self, labels: [String; N], value: f64) -> Metric {
        let mut metric = Metric::from_label(self.label_pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        metric
    }

    fn label_pairs<const N: usize>(&self, values: [String; N]) -> Vec<LabelPair> {
        let pairs = self.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        });
        pairs.collect()
    }

    fn metric_family(&self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        family
    }
}

/// Converts a count to a float. Exact below 2^53; the text format has floats only.
pub(crate) fn to_float(value: u64) -> f64 {
    value as f64
}

fn histogram_sample(seen: &DurationDistribution) -> Histogram {
    let buckets = seen.buckets.iter().map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(*count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(seen.count);
    histogram.set_sample_sum(seen.sum.as_secs_f64());
    histogram
}

//! The text of `/metrics`, encoded family by family.
//!
//! Guarantees:
//! - Families are sorted by name and samples by their labels, as in every Prometheus exporter.
//! - At most one family exists as samples at a time. Samples take ten times the memory of text.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, Metric, MetricFamily};

/// Families already encoded as text, by name.
#[derive(Debug, Default)]
pub(crate) struct TextPage(BTreeMap<String, String>);

impl TextPage {
    /// Adds a family. A family without samples is left out.
    pub(crate) fn add_family(&mut self, mut family: MetricFamily) -> Result<(), prometheus::Error> {
        if family.get_metric().is_empty() {
            return Ok(());
        }
        family.mut_metric().sort_by(|one, other| label_values(one).cmp(label_values(other)));
        let name = family.name().to_owned();
        let text = TextEncoder::new().encode_to_string(&[family])?;
        self.0.insert(name, text);
        Ok(())
    }

    /// Adds several families.
    pub(crate) fn add_families(
        &mut self,
        families: impl IntoIterator<Item = MetricFamily>,
    ) -> Result<(), prometheus::Error> {
        families.into_iter().try_for_each(|family| self.add_family(family))
    }

    /// The whole text.
    pub(crate) fn into_text(self) -> String {
        let mut page = String::with_capacity(self.0.values().map(String::len).sum());
        self.0.into_values().for_each(|text| page.push_str(&text));
        page
    }
}

fn label_values(metric: &Metric) -> impl Iterator<Item = &str> {
    metric.get_label().iter().map(LabelPair::value)
}

//! The text of `/metrics`, family by family.
//!
//! Guarantees: families are in the order of their names and samples in the order of their labels, as every Prometheus
//! exporter shows them; of all families only one at a time exists as samples, which take ten times the memory of text.

use std::collections::BTreeMap;

use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, Metric, MetricFamily};

/// Families that are text already, by name.
#[derive(Debug, Default)]
pub(crate) struct TextPage(BTreeMap<String, String>);

impl TextPage {
    /// Adds a family; one without samples is left out.
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

    /// Adds families.
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

//! The cardinality cap of `/metrics`: departments beyond the cap are folded into the label `other`.
//!
//! Guarantees:
//! - Sums stay exact, because folding only renames labels.
//! - Departments are kept in the order of their names while their series fit.
//! - Counters of `other` never fall. Series are only ever added, so a department that was folded once stays folded.
//!
//! Leaves to the ledger: the record of every department.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{LedgerTotals, SeriesTotals};
use crate::model::{Finished, Name, Outcome};

/// The departments that are shown by name.
#[derive(Debug)]
pub(crate) struct KeptLabels(BTreeSet<Name>);

impl KeptLabels {
    /// Keeps departments while their series of `commands_total` fit into `series`.
    pub(crate) fn within(totals: &LedgerTotals, series: usize) -> Self {
        let mut needed: BTreeMap<&Name, usize> = BTreeMap::new();
        for one in &totals.series {
            *needed.entry(&one.department).or_default() += visible_outcomes(one).count();
        }
        let mut left = series;
        let fits = |(department, needs): (&Name, usize)| {
            left = left.checked_sub(needs)?;
            Some(department.clone())
        };
        Self(needed.into_iter().map_while(fits).collect())
    }

    /// The label of a department: its name, or `other` where it is folded.
    pub(crate) fn department_label(&self, department: &Name) -> String {
        if self.0.contains(department) { department.to_string() } else { Name::OTHER.to_owned() }
    }
}

/// The outcomes of a series that get a sample. `ok` is shown from the beginning, so that a scrape sees its first
/// increase. Other outcomes are shown once their count is above zero.
pub(crate) fn visible_outcomes(series: &SeriesTotals) -> impl Iterator<Item = (Outcome, u64)> {
    Outcome::all()
        .map(|outcome| (outcome, commands_of(series, outcome)))
        .filter(|(outcome, commands)| *commands > 0 || *outcome == Outcome::Finished(Finished::Ok))
}

fn commands_of(series: &SeriesTotals, outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Finished(finished) => series.finished[finished.index()],
        Outcome::Refused(refused) => series.refused[refused.index()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_totals::series;

    #[test]
    fn departments_keep_their_labels_while_their_series_fit() {
        let two_each = vec![series("b"), series("a"), series("c")];
        let totals = LedgerTotals { series: two_each, ..LedgerTotals::default() };
        for (cap, shown) in [(6, "a b c"), (5, "a b other"), (2, "a other other"), (1, "other other other")] {
            let kept = KeptLabels::within(&totals, cap);
            let labels = ["a", "b", "c"].map(|name| kept.department_label(&Name::parse(name).expect("a name")));
            assert_eq!(labels.join(" "), shown, "cap {cap}");
        }
    }

    #[test]
    fn folded_department_stays_folded() {
        let before = LedgerTotals { series: vec![series("b"), series("c")], ..LedgerTotals::default() };
        let after = LedgerTotals { series: vec![series("a"), series("b"), series("c")], ..LedgerTotals::default() };
        for cap in 0..=6 {
            let (then, now) = (KeptLabels::within(&before, cap), KeptLabels::within(&after, cap));
            assert!(then.0.contains(&series("b").department) || !now.0.contains(&series("b").department));
            assert!(then.0.contains(&series("c").department) || !now.0.contains(&series("c").department));
        }
    }
}

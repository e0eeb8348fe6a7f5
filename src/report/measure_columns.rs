//! The measures that a report shows, and a report that shows chosen measures only.
//!
//! A report of chosen measures has nothing that only one source of usage knows: no names, corrections, gateway or time
//! of the report. So the ledger and a Prometheus with all of its hours give the same bytes.

use crate::ledger::Measures;
use crate::ledger::audit::PeriodState;

/// The measures of a report, in the order of [`Measures::NAMES`]. At least one is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureColumns([bool; 5]);

/// Why a text is not [`MeasureColumns`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMeasure {
    /// The word is not a measure.
    #[error("{0:?} is not a measure; write one or more of commands, units, request_bytes, response_bytes, duration_ns")]
    Unknown(String),
    /// The measure occurs twice.
    #[error("{0} is repeated; write it once")]
    Twice(&'static str),
}

impl MeasureColumns {
    /// All measures.
    pub const ALL: Self = Self([true; 5]);
    /// The measures that hour samples have: commands and units.
    pub const OF_HOUR_SAMPLES: Self = Self([true, true, false, false, false]);

    /// Parses names of measures separated by commas. Their order has no meaning.
    pub fn parse(text: &str) -> Result<Self, BadMeasure> {
        let mut shown = [false; 5];
        for word in text.split(',').map(str::trim) {
            let position = Measures::<u64>::NAMES.iter().position(|name| *name == word);
            let position = position.ok_or_else(|| BadMeasure::Unknown(word.to_owned()))?;
            if shown[position] {
                return Err(BadMeasure::Twice(Measures::<u64>::NAMES[position]));
            }
            shown[position] = true;
        }
        Ok(Self(shown))
    }

    /// Whether all of the measures are among `others`.
    pub fn is_within(self, others: Self) -> bool {
        self.0.iter().zip(others.0).all(|(shown, other)| other || !shown)
    }

    /// The names of the shown measures.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.select(Measures::<u64>::NAMES)
    }

    /// Of five values in the order of [`Measures::NAMES`], those of the shown measures.
    pub(crate) fn select<T>(self, values: [T; 5]) -> impl Iterator<Item = T> {
        values.into_iter().zip(self.0).filter_map(|(value, shown)| shown.then_some(value))
    }
}

/// The choice of a report that shows chosen measures only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenMeasures {
    /// The measures that are shown.
    pub columns: MeasureColumns,
    /// Whether the usage of the period can still change.
    pub state: PeriodState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_known_and_unique() {
        assert_eq!(MeasureColumns::parse("units, commands"), Ok(MeasureColumns::OF_HOUR_SAMPLES));
        assert_eq!(MeasureColumns::parse("duration_ns").map(|one| one.names().collect()), Ok(vec!["duration_ns"]));
        assert_eq!(MeasureColumns::parse("units,units"), Err(BadMeasure::Twice("units")));
        for text in ["", "money", "commands,"] {
            assert!(matches!(MeasureColumns::parse(text), Err(BadMeasure::Unknown(_))), "{text:?}");
        }
        for (text, expected) in [("units", true), ("commands,units", true), ("commands,duration_ns", false)] {
            let columns = MeasureColumns::parse(text).expect("measures");
            assert_eq!(columns.is_within(MeasureColumns::OF_HOUR_SAMPLES), expected, "{text}");
        }
    }
}

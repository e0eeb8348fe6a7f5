//! A rate: events per second in thousandths, between two readings.
//!
//! Guarantees: whole numbers; cut off, not rounded.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::report::render::human_units::grouped_digits;

/// Events per second, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PerSecond(pub(super) u64);

impl PerSecond {
    /// The rate of a counter that grew by so many millionths. One that fell was begun again by a restart: no rate.
    pub(super) fn of(growth_millionths: i128, time: Duration) -> Self {
        let millis = i128::try_from(time.as_millis()).unwrap_or(i128::MAX).max(1);
        // Millionths per millisecond are thousandths per second.
        Self(u64::try_from(growth_millionths.max(0) / millis).unwrap_or(u64::MAX))
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// This part of `whole` in tenths of a per cent; `None` of nothing.
    pub(super) fn permille_of(self, whole: Self) -> Option<u64> {
        (whole.0 > 0).then(|| u64::try_from(u128::from(self.0) * 1000 / u128::from(whole.0)).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two digits of a small rate: one command in ten seconds is not nothing. None of a large one.
        match self.0 {
            0 => f.write_str("0"),
            10_000_000.. => f.write_str(&grouped_digits(self.0 / 1000)),
            1..1000 => write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10),
            _ => write!(f, "{}.{}", grouped_digits(self.0 / 1000), self.0 % 1000 / 100),
        }
    }
}

impl Serialize for PerSecond {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        serializer.serialize_f64(text.parse().map_err(serde::ser::Error::custom)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_growth_by_time() {
        for (millionths, millis, shown, json) in [
            (0, 1000, "0", "0.0"),
            (1_000_000, 10_000, "0.10", "0.1"),
            (5_000_000, 2_000, "2.5", "2.5"),
            (2_469_000_000, 2_000, "1,234.5", "1234.5"),
            (24_691_000_000, 2_000, "12,345", "12345.5"),
            (-9_000_000, 1_000, "0", "0.0"),
            (1_000_000, 0, "1,000.0", "1000.0"),
        ] {
            let rate = PerSecond::of(millionths, Duration::from_millis(millis));
            assert_eq!(rate.to_string(), shown);
            assert_eq!(serde_json::to_string(&rate).expect("a number"), json);
        }
        assert_eq!(PerSecond(1).permille_of(PerSecond(3)), Some(333));
        assert_eq!(PerSecond(1).permille_of(PerSecond(0)), None);
    }
}

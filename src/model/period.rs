//! Calendar days and months as periods of quotas.
//!
//! Guarantees: a period consists of whole windows, and its number fits 16 bits, so that a counter can hold it.
//!
//! Leaves to others: the offset of the calendar (`window`).

use std::fmt;
use std::ops::Range;

use jiff::ToSpan as _;
use jiff::civil::Date;

use super::window::{CalendarOffset, Month, Window};

/// The day of number 0.
const FIRST_DAY: Date = Date::constant(1970, 1, 1);

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeriodLength {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

/// A calendar day or month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CalendarPeriod {
    /// A day.
    Day(Date),
    /// A month.
    Month(Month),
}

impl PeriodLength {
    /// The word of the configuration and of metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The period that contains a window.
    pub fn containing(self, window: Window, calendar: CalendarOffset) -> CalendarPeriod {
        match self {
            Self::Day => CalendarPeriod::Day(calendar.date_of(window)),
            Self::Month => CalendarPeriod::Month(calendar.month_of(window)),
        }
    }

    /// The inverse of [`CalendarPeriod::number`].
    pub fn period_of_number(self, number: u16) -> CalendarPeriod {
        match self {
            Self::Day => CalendarPeriod::Day(FIRST_DAY.checked_add(i32::from(number).days()).unwrap_or(Date::MAX)),
            Self::Month => {
                let (year, month) = (i32::from(number) / 12, i32::from(number) % 12 + 1);
                let (year, month) = (i16::try_from(year), i8::try_from(month));
                CalendarPeriod::Month(Month { year: year.unwrap_or(i16::MAX), month: month.unwrap_or(1) })
            }
        }
    }
}

impl CalendarPeriod {
    /// How long the period is.
    pub const fn length(self) -> PeriodLength {
        match self {
            Self::Day(_) => PeriodLength::Day,
            Self::Month(_) => PeriodLength::Month,
        }
    }

    /// Days since 1970-01-01, until the year 2149; or months since the year 0, until the year 5461.
    pub fn number(self) -> u16 {
        let number = match self {
            Self::Day(date) => i64::from(date.since(FIRST_DAY).map_or(0, |since| since.get_days())),
            Self::Month(month) => i64::from(month.year) * 12 + i64::from(month.month) - 1,
        };
        u16::try_from(number.max(0)).unwrap_or(u16::MAX)
    }

    /// The half-open range of windows that the period covers.
    pub fn windows(self, calendar: CalendarOffset) -> Range<Window> {
        match self {
            Self::Day(date) => {
                let start = calendar.first_window(date);
                start..Window(start.0.saturating_add(24))
            }
            Self::Month(month) => calendar.windows_of(month),
        }
    }
}

impl fmt::Display for CalendarPeriod {
    /// `YYYY-MM-DD` or `YYYY-MM`, as reports take it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(date) => write!(f, "{date}"),
            Self::Month(month) => write!(f, "{month}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_and_their_numbers_are_the_same() {
        let calendar = CalendarOffset::default();
        for (window, length, number, text) in [
            (15, PeriodLength::Day, 0, "1970-01-01"),
            (16, PeriodLength::Day, 1, "1970-01-02"),
            (16, PeriodLength::Month, 1970 * 12, "1970-01"),
            (497_895, PeriodLength::Day, 20_745, "2026-10-19"),
            (497_895, PeriodLength::Month, 24_321, "2026-10"),
        ] {
            let period = length.containing(Window(window), calendar);
            assert_eq!((period.number(), period.to_string().as_str()), (number, text), "{window}");
            assert_eq!(length.period_of_number(number), period);
            assert!(period.windows(calendar).contains(&Window(window)), "{window}");
        }
    }

    #[test]
    fn day_ends_where_the_next_one_begins() {
        let calendar = CalendarOffset::parse("-05:00").expect("an offset");
        let day = PeriodLength::Day.containing(Window(500_000), calendar);
        let end = day.windows(calendar).end;
        assert_eq!(PeriodLength::Day.containing(end, calendar).number(), day.number() + 1);
        assert_eq!(PeriodLength::Day.containing(Window(end.0 - 1), calendar), day);
    }

    #[test]
    fn last_numbers_are_valid_periods() {
        assert_eq!(PeriodLength::Day.period_of_number(u16::MAX).to_string(), "2149-06-06");
        assert_eq!(PeriodLength::Month.period_of_number(u16::MAX).to_string(), "5461-04");
    }
}

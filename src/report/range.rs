//! The half-open range of windows that a report covers.

use jiff::Timestamp;
use jiff::civil::Date;

use crate::model::{CalendarOffset, Window};

/// The years whose days are windows: from the first one on, to the last that ends within all time there is.
const YEARS: std::ops::RangeInclusive<i16> = 1970..=9998;

/// From the first window to the one before the last, both known to be in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first window.
    pub from: Window,
    /// The first window that is not part of it.
    pub to: Window,
}

/// Why two texts are not a [`Range`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    /// Neither a date nor a time.
    #[error("{0:?} is not a date; write 2026-10-01, or a whole hour such as 2026-10-01T08:00:00+08:00")]
    NotADate(String),
    /// A time inside an hour.
    #[error("{0:?} is not a whole hour; usage is counted by the hour, so write one that ends in :00:00")]
    NotAnHour(String),
    /// A time that no window stands for.
    #[error("{0:?} lies outside of the ledger's years, which are 1970 to 9998; without --to it ends with this month")]
    OutOfTime(String),
    /// Nothing lies between.
    #[error(
        "the range is empty: it begins at {from} and ends before {to}; --to is the first moment that is not part of it"
    )]
    Empty {
        /// Its beginning.
        from: Window,
        /// Its end.
        to: Window,
    },
}

impl Range {
    /// Reads a range: dates are those of `calendar`, moments are RFC 3339. What is missing is the beginning or the end of
    /// the month that `now` falls in.
    pub fn parse(
        from: Option<&str>,
        to: Option<&str>,
        calendar: CalendarOffset,
        now: Window,
    ) -> Result<Self, BadRange> {
        let month = calendar.windows_of(calendar.month_of(now));
        let from = from.map_or(Ok(month.start), |text| window(text, calendar))?;
        let to = to.map_or(Ok(month.end), |text| window(text, calendar))?;
        if from < to { Ok(Self { from, to }) } else { Err(BadRange::Empty { from, to }) }
    }

    /// As the ledger wants it.
    pub fn windows(&self) -> std::ops::Range<Window> {
        self.from..self.to
    }
}

fn window(text: &str, calendar: CalendarOffset) -> Result<Window, BadRange> {
    const DATE_LENGTH: usize = "YYYY-MM-DD".len();
    if text.len() == DATE_LENGTH {
        let date: Date = text.parse().map_err(|_| BadRange::NotADate(text.to_owned()))?;
        if !YEARS.contains(&date.year()) {
            return Err(BadRange::OutOfTime(text.to_owned()));
        }
        return Ok(calendar.first_window(date));
    }
    let moment: Timestamp = text.parse().map_err(|_| BadRange::NotADate(text.to_owned()))?;
    if moment < Timestamp::UNIX_EPOCH {
        return Err(BadRange::OutOfTime(text.to_owned()));
    }
    let window = Window::of_unix_seconds(moment.as_second());
    let whole = window.start_unix_seconds() == moment.as_second() && moment.subsec_nanosecond() == 0;
    if whole { Ok(window) } else { Err(BadRange::NotAnHour(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(from: Option<&str>, to: Option<&str>) -> Result<String, BadRange> {
        let now: Timestamp = "2026-10-31T16:00:00Z".parse().expect("a time"); // already November in +08:00
        let now = Window::of_unix_seconds(now.as_second());
        Range::parse(from, to, CalendarOffset::default(), now).map(|range| format!("{} {}", range.from, range.to))
    }

    #[test]
    fn dates_are_those_of_the_ledgers_calendar() {
        for (from, to, windows) in [
            (None, None, "2026-10-31T16:00:00Z 2026-11-30T16:00:00Z"),
            (Some("2026-10-01"), Some("2026-11-01"), "2026-09-30T16:00:00Z 2026-10-31T16:00:00Z"),
            (Some("2026-12-31"), Some("2027-01-01"), "2026-12-30T16:00:00Z 2026-12-31T16:00:00Z"),
            (
                Some("2026-10-01T08:00:00+08:00"),
                Some("2026-10-01T01:00:00Z"),
                "2026-10-01T00:00:00Z 2026-10-01T01:00:00Z",
            ),
            (Some("2026-11-02"), None, "2026-11-01T16:00:00Z 2026-11-30T16:00:00Z"),
        ] {
            assert_eq!(parse(from, to).as_deref(), Ok(windows));
        }
    }

    #[test]
    fn what_is_not_a_range_of_whole_hours_is_refused() {
        for (from, to, problem) in [
            ("October", "2026-11-01", "is not a date"),
            ("2026-10-32", "2026-11-01", "is not a date"),
            ("2026-10-01T08:00:00", "2026-11-01", "is not a date"), // no offset: whose eight o'clock?
            ("2026-10-01T08:30:00Z", "2026-11-01", "is not a whole hour"),
            ("2026-10-01T08:00:00.5Z", "2026-11-01", "is not a whole hour"),
            ("9999-01-01", "9999-12-31", "outside of the ledger's years"),
            ("2026-11-01", "9999-12-31", "outside of the ledger's years"),
            ("1969-12-31", "2026-11-01", "outside of the ledger's years"),
            ("1969-12-31T23:00:00Z", "2026-11-01", "outside of the ledger's years"),
            ("2026-11-01", "2026-11-01", "the range is empty"),
            ("2026-11-02", "2026-11-01", "the range is empty"),
        ] {
            let said = parse(Some(from), Some(to)).expect_err(from).to_string();
            assert!(said.contains(problem), "{from} {to}: {said}");
        }
    }
}

//! The half-open range of windows that a report covers.

use jiff::Timestamp;
use jiff::civil::Date;

use crate::model::{CalendarOffset, Month, Window};

/// The years whose days are valid windows: from 1970 to the last year that ends within the range of timestamps.
const REPORTABLE_YEARS: std::ops::RangeInclusive<i16> = 1970..=9998;

/// A half-open range of windows. `from` is before `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRange {
    /// The first window.
    pub from: Window,
    /// The first window after the range.
    pub to: Window,
}

/// Why texts could not be parsed as a [`ReportRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReportRange {
    /// The text is neither a date nor a time.
    #[error(
        "{0:?} is not a date; write 2026-10-01, a month such as 2026-10, or a whole hour such as 2026-10-01T08:00:00+08:00"
    )]
    NotADate(String),
    /// The time is not on a whole hour.
    #[error("{0:?} is not a whole hour; usage is counted by the hour, so write one that ends in :00:00")]
    NotAnHour(String),
    /// The time is outside the range of windows.
    #[error("{0:?} is outside the years of a ledger, 1970 to 9998; without --to the range ends with this month")]
    OutOfTime(String),
    /// The text is neither a month nor a day.
    #[error("{0:?} is not a period; write a month such as 2026-10, or a day such as 2026-10-05")]
    NotAPeriod(String),
    /// The range is empty.
    #[error("the range is empty: it begins at {from} and ends before {to}; --to is exclusive")]
    Empty {
        /// The start of the range.
        from: Window,
        /// The end of the range.
        to: Window,
    },
}

impl ReportRange {
    /// Parses a range. Dates and months (their first day) are in `calendar`; moments are RFC 3339. A missing start or
    /// end defaults to that of the month of `now`.
    pub fn parse(
        from: Option<&str>,
        to: Option<&str>,
        calendar: CalendarOffset,
        now: Window,
    ) -> Result<Self, BadReportRange> {
        let month = calendar.windows_of(calendar.month_of(now));
        let from = from.map_or(Ok(month.start), |text| window(text, calendar))?;
        let to = to.map_or(Ok(month.end), |text| window(text, calendar))?;
        if from < to { Ok(Self { from, to }) } else { Err(BadReportRange::Empty { from, to }) }
    }

    /// Parses one period of `calendar`: a month, `2026-10`, or a day, `2026-10-05`.
    pub fn from_period(text: &str, calendar: CalendarOffset) -> Result<Self, BadReportRange> {
        let not_a_period = || BadReportRange::NotAPeriod(text.to_owned());
        let windows = if let Some(month) = Month::parse(text) {
            within_years(text, month.year)?;
            calendar.windows_of(month)
        } else {
            let date: Date = text.parse().map_err(|_| not_a_period())?;
            within_years(text, date.year())?;
            calendar.first_window(date)..calendar.first_window(date.tomorrow().map_err(|_| not_a_period())?)
        };
        Ok(Self { from: windows.start, to: windows.end })
    }

    /// The range in the form that the ledger takes.
    pub fn windows(&self) -> std::ops::Range<Window> {
        self.from..self.to
    }
}

fn window(text: &str, calendar: CalendarOffset) -> Result<Window, BadReportRange> {
    const DATE_LENGTH: usize = "YYYY-MM-DD".len();
    if let Some(month) = Month::parse(text) {
        within_years(text, month.year)?;
        return Ok(calendar.first_window(month.first_day()));
    }
    if text.len() == DATE_LENGTH {
        let date: Date = text.parse().map_err(|_| BadReportRange::NotADate(text.to_owned()))?;
        within_years(text, date.year())?;
        return Ok(calendar.first_window(date));
    }
    let moment: Timestamp = text.parse().map_err(|_| BadReportRange::NotADate(text.to_owned()))?;
    if moment < Timestamp::UNIX_EPOCH {
        return Err(BadReportRange::OutOfTime(text.to_owned()));
    }
    let window = Window::of_unix_seconds(moment.as_second());
    let whole = window.start_unix_seconds() == moment.as_second() && moment.subsec_nanosecond() == 0;
    if whole { Ok(window) } else { Err(BadReportRange::NotAnHour(text.to_owned())) }
}

fn within_years(text: &str, year: i16) -> Result<(), BadReportRange> {
    if REPORTABLE_YEARS.contains(&year) { Ok(()) } else { Err(BadReportRange::OutOfTime(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(from: Option<&str>, to: Option<&str>) -> Result<String, BadReportRange> {
        let now: Timestamp = "2026-10-31T16:00:00Z".parse().expect("a time"); // already November in +08:00
        let now = Window::of_unix_seconds(now.as_second());
        ReportRange::parse(from, to, CalendarOffset::default(), now).map(|range| format!("{} {}", range.from, range.to))
    }

    #[test]
    fn dates_are_in_the_calendar_of_the_ledger() {
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
            (Some("2026-11"), None, "2026-10-31T16:00:00Z 2026-11-30T16:00:00Z"),
            (Some("2026-10"), Some("2026-11"), "2026-09-30T16:00:00Z 2026-10-31T16:00:00Z"),
        ] {
            assert_eq!(parse(from, to).as_deref(), Ok(windows));
        }
    }

    #[test]
    fn ranges_without_whole_hours_are_refused() {
        for (from, to, problem) in [
            ("October", "2026-11-01", "is not a date"),
            ("2026-10-32", "2026-11-01", "is not a date"),
            ("2026-10-01T08:00:00", "2026-11-01", "is not a date"), // no offset: the hour is ambiguous
            ("2026-10-01T08:30:00Z", "2026-11-01", "is not a whole hour"),
            ("2026-10-01T08:00:00.5Z", "2026-11-01", "is not a whole hour"),
            ("9999-01-01", "9999-12-31", "is outside the years of a ledger"),
            ("2026-11-01", "9999-12-31", "is outside the years of a ledger"),
            ("1969-12-31", "2026-11-01", "is outside the years of a ledger"),
            ("1969-12-31T23:00:00Z", "2026-11-01", "is outside the years of a ledger"),
            ("2026-11-01", "2026-11-01", "the range is empty"),
            ("2026-11-02", "2026-11-01", "the range is empty"),
            ("2026-11", "2026-11", "the range is empty"),
            ("2026-13", "2027-01", "is not a date"),
            ("9999-01", "9999-02", "is outside the years of a ledger"),
        ] {
            let refusal = parse(Some(from), Some(to)).expect_err(from).to_string();
            assert!(refusal.contains(problem), "{from} {to}: {refusal}");
        }
    }

    #[test]
    fn period_is_a_whole_month_or_a_whole_day() {
        for (text, expected) in [
            ("2026-10", Ok("2026-09-30T16:00:00Z 2026-10-31T16:00:00Z")),
            ("2026-12", Ok("2026-11-30T16:00:00Z 2026-12-31T16:00:00Z")),
            ("2026-10-05", Ok("2026-10-04T16:00:00Z 2026-10-05T16:00:00Z")),
            ("2026", Err("is not a period")),
            ("2026-10-32", Err("is not a period")),
            ("1969-12", Err("is outside the years of a ledger")),
        ] {
            let range = ReportRange::from_period(text, CalendarOffset::default());
            match (range.map(|range| format!("{} {}", range.from, range.to)), expected) {
                (Ok(range), Ok(expected)) => assert_eq!(range, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        }
    }
}

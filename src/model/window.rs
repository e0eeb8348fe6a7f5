//! Windows (UTC hours), calendar months, and the UTC offset of the city's calendar.
//!
//! Guarantees:
//! - A command belongs to the window of its admission.
//! - Months are half-open and begin on whole windows, because offsets are whole hours.
//! - The offset is fixed and not a time zone, so no change of a time-zone database can change a bill.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

/// One UTC hour, counted from 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window(pub u32);

impl Window {
    const SECONDS: i64 = 3600;

    /// The window of a time in Unix seconds; times before 1970 belong to the first window.
    pub fn of_unix_seconds(seconds: i64) -> Self {
        Self(u32::try_from(seconds.div_euclid(Self::SECONDS)).unwrap_or(0))
    }

    /// The first second of the window, in Unix time.
    pub fn start_unix_seconds(self) -> i64 {
        i64::from(self.0) * Self::SECONDS
    }

    /// The next window.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Window {
    /// `YYYY-MM-DDTHH:00:00Z`, as in the ledger's view.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.start_unix_seconds()) {
            Ok(start) => write!(f, "{}", start.strftime("%Y-%m-%dT%H:00:00Z")),
            Err(_) => write!(f, "window {}", self.0),
        }
    }
}

/// The fixed offset from UTC for days and months; whole hours, default +08:00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarOffset {
    hours: i8,
}

/// The reason why a text is not a [`CalendarOffset`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an offset; write whole hours between -12:00 and +14:00, for example \"+08:00\"")]
pub struct BadOffset(pub String);

impl Default for CalendarOffset {
    fn default() -> Self {
        Self { hours: 8 }
    }
}

impl CalendarOffset {
    /// Reads `+HH:00` or `-HH:00`. Only whole hours, because the ledger's windows are UTC hours.
    pub fn parse(text: &str) -> Result<Self, BadOffset> {
        let bad = || BadOffset(text.to_owned());
        let hours = text.strip_suffix(":00").ok_or_else(bad)?;
        if hours.len() != 3 || !(hours.starts_with('+') || hours.starts_with('-')) {
            return Err(bad());
        }
        let hours: i8 = hours.parse().map_err(|_| bad())?;
        if (-12..=14).contains(&hours) { Ok(Self { hours }) } else { Err(bad()) }
    }

    /// The date of a window.
    pub fn date_of(self, window: Window) -> Date {
        self.local(window).date()
    }

    /// The calendar month of a window.
    pub fn month_of(self, window: Window) -> Month {
        let date = self.date_of(window);
        Month { year: date.year(), month: date.month() }
    }

    /// The first window of a date.
    pub fn first_window(self, date: Date) -> Window {
        let start = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_or(0, Timestamp::as_second);
        Window::of_unix_seconds(start - i64::from(self.hours) * 3600)
    }

    /// The first window of the day that contains a window.
    pub fn day_of(self, window: Window) -> Window {
        let local = i64::from(window.0) + i64::from(self.hours);
        let start = local.div_euclid(24) * 24 - i64::from(self.hours);
        Window(u32::try_from(start).unwrap_or(0))
    }

    /// The half-open range of windows that a month covers.
    pub fn windows_of(self, month: Month) -> std::ops::Range<Window> {
        self.first_window(month.first_day())..self.first_window(month.next().first_day())
    }

    fn local(self, window: Window) -> DateTime {
        let seconds = window.start_unix_seconds() + i64::from(self.hours) * 3600;
        Timestamp::from_second(seconds).map_or(DateTime::ZERO, |moment| Offset::UTC.to_datetime(moment))
    }
}

impl fmt::Display for CalendarOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+03}:00", self.hours)
    }
}

/// A calendar month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    /// The year.
    pub year: i16,
    /// 1 to 12.
    pub month: i8,
}

impl Month {
    /// Reads `YYYY-MM`.
    pub fn parse(text: &str) -> Option<Self> {
        let date: Date = format!("{text}-01").parse().ok()?;
        (text.len() == 7).then(|| Self { year: date.year(), month: date.month() })
    }

    /// The next month.
    pub fn next(self) -> Self {
        if self.month == 12 { Self { year: self.year + 1, month: 1 } } else { Self { month: self.month + 1, ..self } }
    }

    /// The previous month.
    pub fn previous(self) -> Self {
        if self.month == 1 { Self { year: self.year - 1, month: 12 } } else { Self { month: self.month - 1, ..self } }
    }

    /// The first day of the month.
    pub fn first_day(self) -> Date {
        Date::new(self.year, self.month, 1).unwrap_or(Date::ZERO)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        Window::of_unix_seconds(text.parse::<Timestamp>().expect("a time").as_second())
    }

    #[test]
    fn month_at_utc_plus_8_begins_at_16_utc() {
        let offset = CalendarOffset::default();
        let october = Month::parse("2026-10").expect("a month");
        let windows = offset.windows_of(october);
        assert_eq!(windows.start.to_string(), "2026-09-30T16:00:00Z");
        assert_eq!(windows.end.to_string(), "2026-10-31T16:00:00Z");
        assert_eq!(offset.month_of(windows.start), october);
        assert_eq!(offset.month_of(Window(windows.start.0 - 1)), october.previous());
        assert_eq!(offset.month_of(Window(windows.end.0)), october.next());
    }

    #[test]
    fn december_is_followed_by_january() {
        let december = Month { year: 2026, month: 12 };
        assert_eq!(december.next().to_string(), "2027-01");
        assert_eq!(december.next().previous(), december);
    }

    #[test]
    fn day_begins_with_its_first_window_even_at_the_extremes() {
        for (offset, hour, first) in [("+08:00", 17, 16), ("+08:00", 15, 0), ("-05:00", 4, 0), ("-05:00", 28, 5)] {
            let offset = CalendarOffset::parse(offset).expect("an offset");
            assert_eq!(offset.day_of(Window(hour)), Window(first), "{offset} {hour}");
        }
        let (offset, noon) = (CalendarOffset::default(), window("2026-10-01T04:00:00Z"));
        assert_eq!(offset.day_of(noon), offset.first_window(offset.date_of(noon)));
        assert!(offset.day_of(Window(u32::MAX)) > Window(u32::MAX - 24));
    }

    #[test]
    fn offsets_are_whole_hours() {
        for (text, shown) in [
            ("+08:00", Some("+08:00")),
            ("-03:00", Some("-03:00")),
            ("+05:30", None),
            ("8", None),
            ("+15:00", None),
            ("+8:00", None),
        ] {
            assert_eq!(CalendarOffset::parse(text).ok().map(|o| o.to_string()).as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn window_is_the_hour_of_its_seconds() {
        assert_eq!(window("2026-11-24T03:59:59Z"), window("2026-11-24T03:00:00Z"));
        assert_eq!(window("2026-11-24T03:00:00Z").next(), window("2026-11-24T04:00:00Z"));
        assert_eq!(Window::of_unix_seconds(-5), Window(0));
    }
}

//! The windows that a day of the book covers.
//!
//! Days before the horizon follow the calendars of their time, so their ends are read from the chain. Later days follow
//! the book's calendar, but no day begins before the horizon.

use std::ops::Range;

use rusqlite::Connection;

use crate::model::{CalendarOffset, Window};

/// The book's days.
#[derive(Debug)]
pub(crate) struct CalendarDays {
    pub(crate) calendar: CalendarOffset,
    /// Rows of hours before this window are kept as days only.
    pub(crate) compacted_before: Window,
    /// First windows of the compacted days, in order.
    compacted: Vec<Window>,
}

impl CalendarDays {
    pub(crate) fn from_book(book: &Connection) -> rusqlite::Result<Self> {
        let query = "SELECT calendar_offset, rolled_before FROM meta";
        let (text, compacted_before): (String, u32) =
            book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut query = book.prepare("SELECT \"window\" FROM seal WHERE kind = 'day' ORDER BY \"window\"")?;
        let rolled = query.query_map([], |row| row.get(0).map(Window))?.collect::<rusqlite::Result<_>>()?;
        let calendar = CalendarOffset::parse(&text).unwrap_or_default(); // opening the book has refused other texts
        Ok(Self { calendar, compacted_before: Window(compacted_before), compacted: rolled })
    }

    /// Returns the windows of the compacted day that begins with `first`.
    pub(crate) fn compacted_day(&self, first: Window) -> Range<Window> {
        let next = self.compacted.partition_point(|day| *day <= first);
        let end = self.compacted.get(next).copied().unwrap_or(self.compacted_before);
        first..end.max(first)
    }

    /// Returns whether a day that begins with `first` was compacted and sealed.
    pub(crate) fn is_compacted(&self, first: Window) -> bool {
        self.compacted.binary_search(&first).is_ok()
    }

    /// Returns the day that contains `window` and whose hours are kept.
    pub(crate) fn kept_day(&self, window: Window) -> Range<Window> {
        let date = self.calendar.date_of(window);
        let end = date.tomorrow().map_or(Window(u32::MAX), |next| self.calendar.first_window(next));
        self.calendar.first_window(date).max(self.compacted_before)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_ends_at_the_next_day_or_at_the_horizon() {
        let calendar = CalendarOffset::default(); // day 20,000 begins at 16:00 of the day before
        let midnight = 20_000 * 24 - 8;
        let rolled = [midnight - 48, midnight - 24].map(Window).to_vec();
        let days = CalendarDays { calendar, compacted_before: Window(midnight + 3), compacted: rolled };
        assert_eq!(days.compacted_day(Window(midnight - 48)), Window(midnight - 48)..Window(midnight - 24));
        assert_eq!(days.compacted_day(Window(midnight - 24)), Window(midnight - 24)..Window(midnight + 3));
        assert_eq!(days.kept_day(Window(midnight + 5)), Window(midnight + 3)..Window(midnight + 24));
        assert_eq!(days.kept_day(Window(midnight + 24)), Window(midnight + 24)..Window(midnight + 48));
    }
}

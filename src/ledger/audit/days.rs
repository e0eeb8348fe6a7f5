//! Which windows a day of the book covers.
//!
//! Days before the horizon were made by the calendars of their time, so their ends are read from the chain; later ones
//! follow the book's calendar, except that none begins before the horizon.

use std::ops::Range;

use rusqlite::Connection;

use crate::model::{CalendarOffset, Window};

/// The book's days.
#[derive(Debug)]
pub(super) struct Days {
    pub(super) calendar: CalendarOffset,
    /// Rows of hours before it are kept as days only.
    pub(super) horizon: Window,
    /// First windows of the days that were rolled up, in order.
    rolled: Vec<Window>,
}

impl Days {
    pub(super) fn read(book: &Connection) -> rusqlite::Result<Self> {
        let query = "SELECT calendar_offset, rolled_before FROM meta";
        let (text, horizon): (String, u32) = book.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut query = book.prepare("SELECT \"window\" FROM seal WHERE kind = 'day' ORDER BY \"window\"")?;
        let rolled = query.query_map([], |row| row.get(0).map(Window))?.collect::<rusqlite::Result<_>>()?;
        let calendar = CalendarOffset::parse(&text).unwrap_or_default(); // opening the book has refused others
        Ok(Self { calendar, horizon: Window(horizon), rolled })
    }

    /// The windows of a day that begins with `first` and has been rolled up.
    pub(super) fn rolled(&self, first: Window) -> Range<Window> {
        let next = self.rolled.partition_point(|day| *day <= first);
        let end = self.rolled.get(next).copied().unwrap_or(self.horizon);
        first..end.max(first)
    }

    /// Whether a day that begins with `first` was rolled up and sealed.
    pub(super) fn is_rolled(&self, first: Window) -> bool {
        self.rolled.binary_search(&first).is_ok()
    }

    /// The day whose hours are kept and that holds `window`.
    pub(super) fn kept(&self, window: Window) -> Range<Window> {
        let date = self.calendar.date_of(window);
        let end = date.tomorrow().map_or(Window(u32::MAX), |next| self.calendar.first_window(next));
        self.calendar.first_window(date).max(self.horizon)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins_and_none_begins_before_the_horizon() {
        let calendar = CalendarOffset::default(); // day 20,000 begins at 16:00 of the day before
        let midnight = 20_000 * 24 - 8;
        let rolled = [midnight - 48, midnight - 24].map(Window).to_vec();
        let days = Days { calendar, horizon: Window(midnight + 3), rolled };
        assert_eq!(days.rolled(Window(midnight - 48)), Window(midnight - 48)..Window(midnight - 24));
        assert_eq!(days.rolled(Window(midnight - 24)), Window(midnight - 24)..Window(midnight + 3));
        assert_eq!(days.kept(Window(midnight + 5)), Window(midnight + 3)..Window(midnight + 24));
        assert_eq!(days.kept(Window(midnight + 24)), Window(midnight + 24)..Window(midnight + 48));
    }
}

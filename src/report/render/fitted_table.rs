//! A table that fits its target: a terminal or a pipe.
//!
//! Guarantees:
//! - On a terminal of at least 40 columns, no line is wider than the terminal.
//! - Less important columns are left out first, and a note below the table names them.
//! - Text that is still too wide is cut off with an ellipsis.
//! - In a pipe, nothing is left out.

use std::io::{IsTerminal as _, stdout};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table, presets};

/// The target of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableTarget {
    /// A terminal of this width in columns: the table has borders.
    Terminal(u16),
    /// A file or a pipe: the table has columns only.
    Pipe,
}

/// The narrowest supported terminal width. A terminal without a reported width is assumed to have 80 columns.
const TERMINAL_COLUMNS_MIN: u16 = 40;
const TERMINAL_COLUMNS_DEFAULT: u16 = 80;

impl TableTarget {
    /// The target of standard output. For a terminal, the variable `COLUMNS` takes precedence over the reported width.
    pub fn from_stdout() -> Self {
        if !stdout().is_terminal() {
            return Self::Pipe;
        }
        let wanted = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let columns = wanted.or_else(|| rustix::termios::tcgetwinsize(stdout()).ok().map(|size| size.ws_col));
        Self::Terminal(
            columns.filter(|columns| *columns > 0).unwrap_or(TERMINAL_COLUMNS_DEFAULT).max(TERMINAL_COLUMNS_MIN),
        )
    }
}

/// A column's name, its alignment, and whether it may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnHeading {
    name: &'static str,
    is_number: bool,
    /// 0: never left out. Of the other columns, the highest rank is left out first.
    drop_rank: u8,
}

impl ColumnHeading {
    /// A text column that is always shown.
    pub const fn text(name: &'static str) -> Self {
        Self { name, is_number: false, drop_rank: 0 }
    }

    /// A number column that is always shown.
    pub const fn number(name: &'static str) -> Self {
        Self { name, is_number: true, drop_rank: 0 }
    }

    /// The same column, left out if it does not fit; the column with the highest `rank` goes first.
    pub const fn droppable(self, rank: u8) -> Self {
        Self { drop_rank: rank, ..self }
    }
}

/// Rows and their headings.
#[derive(Clone, Debug)]
pub struct FittedTable {
    headings: Vec<ColumnHeading>,
    rows: Vec<Vec<String>>,
}

impl FittedTable {
    /// A table without rows.
    pub fn new(headings: impl IntoIterator<Item = ColumnHeading>) -> Self {
        Self { headings: headings.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row with one cell per heading.
    pub fn add_row(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    /// Renders the table. Each line includes its line end.
    pub fn render(&self, look: TableTarget) -> String {
        let TableTarget::Terminal(width) = look else {
            return table_text(&self.table((0..self.headings.len()).collect(), look));
        };
        let mut kept: Vec<usize> = (0..self.headings.len()).collect();
        let mut left_out = Vec::new();
        while !self.fits(&kept, width) {
            let Some(position) = self.first_to_drop(&kept) else { break };
            left_out.push(self.headings[kept.remove(position)].name);
        }
        let mut table = self.table(kept, look);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        match left_out.is_empty() {
            true => table_text(&table),
            false => format!("{}(too narrow for: {})\n", table_text(&table), left_out.join(", ")),
        }
    }

    fn first_to_drop(&self, kept: &[usize]) -> Option<usize> {
        let spare = |position: &usize| self.headings[kept[*position]].drop_rank;
        (0..kept.len()).filter(|position| spare(position) > 0).max_by_key(spare)
    }

    /// Whether the kept columns fit. Each column has a border to its left and one space on either side; the last column
    /// also has a border to its right.
    fn fits(&self, kept: &[usize], width: u16) -> bool {
        let table = self.table(kept.to_vec(), TableTarget::Terminal(width));
        let cells = table.column_max_content_widths().into_iter().map(|cell| u32::from(cell) + 3).sum::<u32>();
        cells < u32::from(width)
    }

    fn table(&self, kept: Vec<usize>, look: TableTarget) -> Table {
        let mut table = Table::new();
        table.load_style(match look {
            TableTarget::Terminal(_) => presets::UTF8_FULL_CONDENSED,
            TableTarget::Pipe => presets::NOTHING,
        });
        let mut header = Row::from(kept.iter().map(|column| self.headings[*column].name).collect::<Vec<_>>());
        header.max_height(1);
        table.set_header(header);
        for row in &self.rows {
            let mut shown = Row::new();
            for column in &kept {
                shown.add_cell(Cell::new(row.get(*column).map_or("", String::as_str)));
            }
            shown.max_height(1);
            table.add_row(shown);
        }
        for (position, column) in kept.iter().enumerate().filter(|(_, column)| self.headings[**column].is_number) {
            debug_assert!(*column < self.headings.len());
            if let Some(column) = table.column_mut(position) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.set_truncation_indicator("…");
        table
    }
}

fn table_text(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> FittedTable {
        let mut table = FittedTable::new([
            ColumnHeading::text("department"),
            ColumnHeading::text("name").droppable(1),
            ColumnHeading::number("commands"),
            ColumnHeading::number("duration").droppable(2),
        ]);
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        table.add_row(row(["traffic-police", "交通警察局", "1,234", "1.2 s"]));
        table.add_row(row(["fire", "", "5", "12 ms"]));
        table
    }

    /// The width in terminal columns. Chinese characters take two columns.
    fn width(line: &str) -> usize {
        line.chars().map(|one| if ('\u{1100}'..'\u{ff00}').contains(&one) && one > '\u{2e80}' { 2 } else { 1 }).sum()
    }

    #[test]
    fn lines_fit_the_terminal_and_the_least_important_columns_are_dropped_first() {
        for (columns, left_out) in [
            (80, None),
            (53, None),
            (52, Some("(too narrow for: duration)")),
            (42, Some("(too narrow for: duration)")),
            (41, Some("(too narrow for: duration, name)")),
            (24, Some("(too narrow for: duration, name)")),
        ] {
            let text = table().render(TableTarget::Terminal(columns));
            let (shown, note) = match text.rsplit_once("(too") {
                Some((shown, note)) => (shown, Some(format!("(too{}", note.trim_end()))),
                None => (text.as_str(), None),
            };
            assert!(shown.lines().all(|line| width(line) <= usize::from(columns)), "{columns}\n{text}");
            assert_eq!(shown.lines().count(), 6, "no row is wrapped\n{text}");
            assert_eq!(note.as_deref(), left_out, "{columns}\n{text}");
        }
    }

    #[test]
    fn pipe_gets_all_columns() {
        let text = table().render(TableTarget::Pipe);
        assert!(text.contains("duration") && text.contains("交通警察局") && text.contains("12 ms"), "{text}");
    }
}

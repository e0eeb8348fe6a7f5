//! An overview as lines of text, for a screen of any size or for a pipe.
//!
//! Guarantees:
//! - No line is wider than the screen, and there are no more lines than it has. What does not fit is counted.
//! - In a pipe, nothing is left out.

use crate::report::render::human_units::{grouped_digits, human_duration, human_size};

use super::overview::{CertificateEnd, DepartmentRow, Overview, Quantiles, SubsystemRow};
use super::per_second::PerSecond;

/// The size of a screen, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScreenSize {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// How a line is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LineTone {
    #[default]
    Plain,
    Heading,
    Warning,
    Alarm,
}

/// One line of an overview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OverviewLine {
    pub(super) text: String,
    pub(super) tone: LineTone,
}

/// The smallest screen; a smaller one shows a part of it.
const SMALLEST: ScreenSize = ScreenSize { columns: 40, rows: 16 };
/// The width of lines in a pipe. Names that are longer make longer lines.
const PIPE_COLUMNS: usize = 80;
/// A certificate that ends within this time is a warning, in seconds.
const CERTIFICATE_WARNING: i64 = 14 * 86_400;
/// Widths of the columns of numbers of both tables.
const DEPARTMENT_WIDTHS: [usize; 6] = [10, 9, 10, 9, 8, 7];
const SUBSYSTEM_WIDTHS: [usize; 7] = [9, 9, 8, 8, 7, 6, 8];
/// The narrowest column of names.
const NAME_WIDTH_MIN: usize = 12;

/// The lines of an overview. Without a screen, nothing is left out.
pub(super) fn overview_lines(overview: &Overview, screen: Option<ScreenSize>) -> Vec<OverviewLine> {
    let columns = screen.map(|screen| screen.columns.max(SMALLEST.columns));
    let mut lines = head_lines(overview, columns.unwrap_or(PIPE_COLUMNS));
    let certificates = certificate_lines(&overview.certificates, columns);
    let departments: Vec<_> = overview.departments.iter().map(|row| department_line(row, columns)).collect();
    let subsystems: Vec<_> = overview.subsystems.iter().map(|row| subsystem_line(row, columns)).collect();
    // Two tables with an empty line and a heading each, and the certificates after an empty line.
    let used = lines.len() + 5 + certificates.len();
    let rows = screen.map(|screen| screen.rows.max(SMALLEST.rows).saturating_sub(used));
    let (department_rows, subsystem_rows) = shares(rows, departments.len(), subsystems.len());
    add_table(&mut lines, department_heading(columns), departments, department_rows);
    add_table(&mut lines, subsystem_heading(columns), subsystems, subsystem_rows);
    lines.push(plain(""));
    lines.extend(certificates);
    if let Some(screen) = screen {
        lines.truncate(screen.rows);
        lines.iter_mut().for_each(|line| line.text = cut(&line.text, screen.columns));
    }
    lines
}

/// Divides rows between two tables: each gets half, and what the other does not need.
fn shares(rows: Option<usize>, first: usize, second: usize) -> (usize, usize) {
    let Some(rows) = rows else { return (first, second) };
    let half = rows / 2;
    let of_second = second.min(half.max(rows.saturating_sub(first)));
    (first.min(rows - of_second), of_second)
}

fn add_table(lines: &mut Vec<OverviewLine>, heading: String, table: Vec<OverviewLine>, rows: usize) {
    lines.extend([plain(""), OverviewLine { text: heading, tone: LineTone::Heading }]);
    let all = table.len();
    // The last row says how many there are beyond it.
    let shown = if rows < all { rows.saturating_sub(1) } else { all };
    lines.extend(table.into_iter().take(shown));
    if shown < all && rows > 0 {
        lines.push(plain(format!("({} more)", all - shown)));
    }
}

fn plain(text: impl Into<String>) -> OverviewLine {
    OverviewLine { text: text.into(), tone: LineTone::Plain }
}

fn head_lines(overview: &Overview, columns: usize) -> Vec<OverviewLine> {
    let name = format!("tallygate {} at {}, up {}", overview.version, overview.admin, up_text(overview.up_seconds));
    let time = overview.at.strftime("%H:%M:%S UTC").to_string();
    let gap = columns.saturating_sub(name.chars().count() + time.len()).max(2);
    vec![
        OverviewLine { text: format!("{name}{}{time}", " ".repeat(gap)), tone: LineTone::Heading },
        readiness_line(overview),
        configuration_line(overview),
        traffic_line(overview),
        ledger_line(overview),
        process_line(overview),
        limits_line(overview),
    ]
}

fn readiness_line(overview: &Overview) -> OverviewLine {
    let notes = overview.notes.join("; ");
    match (overview.ready, notes.is_empty()) {
        (true, true) => plain("state     ready"),
        (true, false) => OverviewLine { text: format!("state     ready, {notes}"), tone: LineTone::Warning },
        (false, _) => OverviewLine { text: format!("state     NOT READY: {notes}"), tone: LineTone::Alarm },
    }
}

fn configuration_line(overview: &Overview) -> OverviewLine {
    let state = &overview.configuration;
    let mut text = format!("config    {} since {}", state.version, state.since.get(..19).unwrap_or(&state.since));
    let mut tone = LineTone::Plain;
    for (is_so, what) in [
        (state.rejected, "THE LAST ONE WAS REJECTED".to_owned()),
        (state.excluded_sources > 0, format!("{} sources left out", state.excluded_sources)),
        (
            state.settings_waiting_for_restart > 0,
            format!("{} settings wait for a restart", state.settings_waiting_for_restart),
        ),
    ] {
        if is_so {
            text += &format!("; {what}");
            tone = if state.rejected { LineTone::Alarm } else { LineTone::Warning };
        }
    }
    OverviewLine { text, tone }
}

fn traffic_line(overview: &Overview) -> OverviewLine {
    let traffic = &overview.traffic;
    let part =
        |of: PerSecond| of.permille_of(traffic.commands_per_second).map_or_else(|| "0".to_owned(), permille_text);
    let text = format!(
        "commands  {}/s, errors {} %, refused {} %, in flight {}, 99 % within {}",
        traffic.commands_per_second,
        part(traffic.errors_per_second),
        part(traffic.refused_per_second),
        grouped_digits(traffic.in_flight),
        bound_text(traffic.duration.most_within_microseconds),
    );
    let is_failing = traffic.errors_per_second.0 > 0;
    OverviewLine { text, tone: if is_failing { LineTone::Warning } else { LineTone::Plain } }
}

fn ledger_line(overview: &Overview) -> OverviewLine {
    let ledger = &overview.ledger;
    let ago = |millis: Option<u64>| {
        millis.map_or_else(|| "never".to_owned(), |millis| format!("{} ago", seconds_text(millis)))
    };
    let times = format!(
        "synced {}, folded {}; 99 % of syncs within {}",
        ago(ledger.synced_milliseconds_ago),
        ago(ledger.folded_milliseconds_ago),
        bound_text(ledger.sync_duration.most_within_microseconds),
    );
    let (state, tone) = match (ledger.imbalance, ledger.mended_windows) {
        (0, 0) => ("balances".to_owned(), LineTone::Plain),
        (0, mended) => (format!("balances, {mended} windows MENDED"), LineTone::Alarm),
        (imbalance, _) => (format!("DOES NOT BALANCE: {imbalance}"), LineTone::Alarm),
    };
    OverviewLine { text: format!("ledger    {state}; {times}"), tone }
}

fn process_line(overview: &Overview) -> OverviewLine {
    let process = &overview.process;
    let mut text = format!(
        "process   connections {}, {}/s new, CPU {} %, {}, {} of {} descriptors",
        grouped_digits(process.connections),
        process.connections_per_second,
        process.cpu.0 / 10,
        human_size(process.memory_bytes),
        process.descriptors,
        process.descriptors_max,
    );
    let failed = process.failed_handshakes_per_second;
    if failed.0 > 0 {
        text = text.replace(" new,", &format!(" new, {failed}/s FAIL,"));
    }
    OverviewLine { text, tone: if failed.0 > 0 { LineTone::Warning } else { LineTone::Plain } }
}

fn limits_line(overview: &Overview) -> OverviewLine {
    if overview.limits.is_empty() {
        return plain("limits    none met");
    }
    let met: Vec<_> = overview.limits.iter().map(|met| format!("{} {}/s", met.limit, met.per_second)).collect();
    OverviewLine { text: format!("limits    met: {}", met.join(", ")), tone: LineTone::Warning }
}

fn department_heading(columns: Option<usize>) -> String {
    let names = ["COMMANDS/S", "ERRORS/S", "REFUSED/S", "LIMITS/S", "FLIGHT", "QUOTA"];
    row_text("DEPARTMENT", &names.map(str::to_owned), &DEPARTMENT_WIDTHS, columns)
}

fn department_line(row: &DepartmentRow, columns: Option<usize>) -> OverviewLine {
    let cells = [
        row.commands_per_second.to_string(),
        row.errors_per_second.to_string(),
        row.refused_per_second.to_string(),
        row.limited_per_second.to_string(),
        grouped_digits(row.in_flight),
        row.quota_used_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
    ];
    let is_warning = row.errors_per_second.0 > 0 || row.limited_per_second.0 > 0 || row.quota_used_percent >= Some(100);
    let tone = if is_warning { LineTone::Warning } else { LineTone::Plain };
    OverviewLine { text: row_text(&row.department, &cells, &DEPARTMENT_WIDTHS, columns), tone }
}

fn subsystem_heading(columns: Option<usize>) -> String {
    let names = ["CMDS/S", "ERRORS/S", "50 %", "99 %", "FLIGHT", "QUEUE", "SERVERS"];
    row_text("SUBSYSTEM", &names.map(str::to_owned), &SUBSYSTEM_WIDTHS, columns)
}

fn subsystem_line(row: &SubsystemRow, columns: Option<usize>) -> OverviewLine {
    let Quantiles { half_within_microseconds, most_within_microseconds } = row.duration;
    let out = u64::try_from(row.servers_out.len()).unwrap_or(u64::MAX);
    let cells = [
        row.commands_per_second.to_string(),
        row.errors_per_second.to_string(),
        bound_text(half_within_microseconds),
        bound_text(most_within_microseconds),
        grouped_digits(row.in_flight),
        grouped_digits(row.queued),
        if row.servers == 0 {
            "-".to_owned()
        } else {
            format!("{} of {}", row.servers.saturating_sub(out), row.servers)
        },
    ];
    let tone = match (out, row.servers) {
        (0, _) if row.errors_per_second.0 == 0 => LineTone::Plain,
        (out, servers) if out == servers && out > 0 => LineTone::Alarm,
        _ => LineTone::Warning,
    };
    OverviewLine { text: row_text(&row.subsystem, &cells, &SUBSYSTEM_WIDTHS, columns), tone }
}

/// The certificates that end first: on a screen, as many as one line has room for; in a pipe, all of them.
fn certificate_lines(ends: &[CertificateEnd], columns: Option<usize>) -> Vec<OverviewLine> {
    let line = |text: String, first: &CertificateEnd| {
        let tone = match first.seconds_left {
            ..0 => LineTone::Alarm,
            left if left < CERTIFICATE_WARNING => LineTone::Warning,
            _ => LineTone::Plain,
        };
        OverviewLine { text: format!("ends      {text}"), tone }
    };
    let Some(first) = ends.first() else { return vec![plain("ends      no certificate")] };
    match columns {
        Some(columns) => vec![line(first_ends(ends, columns.saturating_sub(10)), first)],
        None => ends.iter().map(|end| line(end_text(end), end)).collect(),
    }
}

/// As many ends as there is room for, and the number of the others.
fn first_ends(ends: &[CertificateEnd], columns: usize) -> String {
    let mut text = String::new();
    for (shown, end) in ends.iter().enumerate() {
        let more = if shown == 0 { end_text(end) } else { format!("; {}", end_text(end)) };
        // Room for the number of those that are left out.
        if shown > 0 && text.chars().count() + more.chars().count() + 12 > columns {
            return format!("{text} ({} more)", ends.len() - shown);
        }
        text += &more;
    }
    text
}

fn end_text(end: &CertificateEnd) -> String {
    match end.seconds_left {
        ..0 => format!("{} {} HAS ENDED", end.role, end.name),
        left => format!("{} {} in {}", end.role, end.name, up_text(left.unsigned_abs())),
    }
}

/// A row of a table: the name, on a screen cut off, and cells of these widths aligned to the right.
fn row_text(name: &str, cells: &[String], widths: &[usize], columns: Option<usize>) -> String {
    let room = columns.unwrap_or(PIPE_COLUMNS).saturating_sub(widths.iter().sum()).max(NAME_WIDTH_MIN);
    let name = if columns.is_some() { cut(name, room - 1) } else { name.to_owned() };
    let mut text = format!("{name:<room$}");
    if name.chars().count() >= room {
        text.push(' ');
    }
    for (cell, width) in cells.iter().zip(widths) {
        text += &format!("{cell:>width$}");
    }
    text
}

/// The beginning of a text that fits, with a mark if something is left out.
fn cut(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{beginning}~")
}

/// A bound of durations. Above the last one there is no number.
fn bound_text(microseconds: Option<u64>) -> String {
    match microseconds {
        None => "-".to_owned(),
        Some(u64::MAX) => ">60 s".to_owned(),
        Some(micros) => human_duration(micros.saturating_mul(1000)),
    }
}

fn permille_text(permille: u64) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

fn seconds_text(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}

/// A long time in its two largest units.
fn up_text(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", grouped_digits(seconds / 86_400), seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::overview::Overview;
    use super::super::overview::tests::readings;
    use super::*;

    const SMALL: ScreenSize = ScreenSize { columns: 80, rows: 24 };

    /// A gateway with so many departments and subsystems, some with long names.
    fn busy(departments: usize, subsystems: usize) -> Overview {
        let mut page = String::from(
            "process_start_time_seconds 1795400000\ntallygate_ledger_imbalance 0\nprocess_open_fds 1048576\n\
             process_max_fds 1048576\nprocess_resident_memory_bytes 98765432109\nprocess_cpu_seconds_total 64\n\
             tallygate_connections_open 123456\ntallygate_connections_accepted_total 99999\n\
             tallygate_limit_hits_total{limit=\"department_connections\"} 12345\n",
        );
        for number in 0..departments {
            page += &format!(
                "tallygate_commands_total{{department=\"department-of-very-long-names-{number}\",subsystem=\"s0\",command=\"c\",outcome=\"ok\"}} {}\n",
                number * 100_000
            );
        }
        for number in 0..subsystems {
            page += &format!("tallygate_upstream_ejected{{subsystem=\"s{number}\",upstream=\"u\"}} 1\n");
            page += &format!(
                "tallygate_certificate_expiry_timestamp_seconds{{role=\"caller\",name=\"spiffe://city/{number}\"}} 1795999999\n"
            );
        }
        let [earlier, later] = readings("", &page);
        Overview::new("gate:9090", &earlier, &later)
    }

    fn texts(lines: &[OverviewLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_fit_a_screen_of_any_size() {
        for (departments, subsystems) in [(0, 0), (3, 2), (300, 1), (1, 300), (300, 300)] {
            let overview = busy(departments, subsystems);
            for (columns, rows) in [(80, 24), (40, 16), (200, 60), (20, 5), (0, 0)] {
                let lines = overview_lines(&overview, Some(ScreenSize { columns, rows }));
                assert!(lines.len() <= rows, "{columns}x{rows}: {:#?}", texts(&lines));
                for line in texts(&lines) {
                    assert!(line.chars().count() <= columns.max(1), "{columns}x{rows}: {line}");
                }
            }
        }
    }

    #[test]
    fn small_screen_shows_both_tables_and_counts_the_rest() {
        let lines = overview_lines(&busy(300, 300), Some(SMALL));
        let text = texts(&lines).join("\n");
        assert_eq!(lines.len(), 24, "{text}");
        assert!(text.contains("(295 more)\n\nSUBSYSTEM") && text.contains("(296 more)\n\nends"), "{text}");
        assert!(text.contains("department-of-very-long-n~"), "{text}");
        let lines = overview_lines(&busy(3, 2), Some(SMALL));
        assert!(!texts(&lines).join("\n").contains("DEPARTMENT  (") && lines.len() == 18, "{lines:#?}");
    }

    #[test]
    fn pipe_has_every_row() {
        let lines = overview_lines(&busy(300, 300), None);
        assert_eq!(lines.len(), 7 + 2 + 300 + 2 + 300 + 1 + 300, "{}", texts(&lines).join("\n"));
        assert!(
            texts(&lines).iter().any(|line| line.starts_with("department-of-very-long-names-299 ")),
            "names are whole"
        );
    }

    #[test]
    fn trouble_has_a_tone() {
        let mut overview = busy(1, 1);
        let tones = |overview: &Overview| -> Vec<LineTone> {
            overview_lines(overview, Some(SMALL))
                .iter()
                .map(|line| line.tone)
                .filter(|tone| *tone == LineTone::Alarm)
                .collect()
        };
        assert_eq!(tones(&overview).len(), 1, "a subsystem without a server");
        overview.ready = false;
        overview.ledger.imbalance = 1;
        overview.configuration.rejected = true;
        assert_eq!(tones(&overview).len(), 4);
    }
}

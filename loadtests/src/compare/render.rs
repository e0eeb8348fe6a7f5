//! Renders a comparison: Markdown tables, which the terminal shows too, and a bar chart.

use std::fmt::Write;

use super::result::{Comparison, Ratio, Spread, Summary};
use crate::driver::Protocol;
use crate::proxy::Kind;

/// Dimensions of the chart, in pixels.
const BAR_LEFT: u64 = 110;
const BAR_WIDTH: u64 = 420;
const BAR_STEP: u64 = 24;
const CHART_WIDTH: u64 = 640;

/// Nanoseconds as microseconds with one decimal.
pub fn micros(nanoseconds: u64) -> String {
    let tenths = (nanoseconds + 50) / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// Thousandths with two decimals, rounded up, so that a missed target never looks met.
pub fn times(thousandths: u64) -> String {
    let hundredths = thousandths.div_ceil(10);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn title(case: Protocol) -> &'static str {
    match case {
        Protocol::H1 => "h1, 32 connections kept alive",
        Protocol::H2 => "h2, 8 connections x 16 streams",
        Protocol::Fresh => "new TLS connection + 1 command",
    }
}

/// The tables of costs and ratios.
pub fn tables(comparison: &Comparison) -> String {
    let head =
        ["work", "proxy", "CPU us a command", "min..max", "user", "system", "commands/s", "p50 us", "p99 us", "busy %"];
    let mut text = table(&head, comparison.summaries.iter().map(summary_row));
    if !comparison.ratios.is_empty() {
        let head = ["work", "Tallygate's CPU a command over", "ratio", "min..max", "target", ""];
        text += "\n";
        text += &table(&head, comparison.ratios.iter().map(ratio_row));
    }
    text
}

fn summary_row(summary: &Summary) -> Vec<String> {
    vec![
        title(summary.case).to_owned(),
        summary.proxy.name().to_owned(),
        micros(summary.cpu_ns.median),
        range(summary.cpu_ns, micros),
        micros(summary.user_ns.median),
        micros(summary.system_ns.median),
        summary.commands_per_second.median.to_string(),
        summary.p50_us.median.to_string(),
        summary.p99_us.median.to_string(),
        summary.busy_percent.median.to_string(),
    ]
}

fn ratio_row(ratio: &Ratio) -> Vec<String> {
    let verdict = match ratio.target {
        Some(target) if ratio.thousandths.median <= target => "met",
        Some(_) => "missed",
        None => "",
    };
    vec![
        title(ratio.case).to_owned(),
        ratio.peer.name().to_owned(),
        times(ratio.thousandths.median),
        range(ratio.thousandths, times),
        ratio.target.map_or_else(String::new, |target| format!("<= {}", times(target))),
        verdict.to_owned(),
    ]
}

/// Minimum and maximum of a spread.
pub fn range(spread: Spread, show: fn(u64) -> String) -> String {
    format!("{}..{}", show(spread.min), show(spread.max))
}

/// A Markdown table, padded so that it is legible as plain text too.
pub fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows);
    let widths: Vec<_> =
        (0..head.len()).map(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0).max(3)).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let show = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    lines.iter().map(show).collect()
}

/// The Markdown page beside the JSON file.
pub fn markdown(comparison: &Comparison, plot: &str) -> String {
    let machine = &comparison.setting.machine;
    let mut text = format!(
        "# CPU of one command, {}\n\n{}\n![the same as bars]({plot})\n\n",
        comparison.setting.date,
        tables(comparison)
    );
    let facts = [
        ("command", format!("`loadtests {}`", comparison.setting.command_line)),
        ("machine", format!("{}, {} cores, kernel {}", machine.cpu, machine.cores, machine.kernel)),
        ("load average before the run", machine.load_before.clone()),
        ("durability", format!("{:?}", comparison.setting.durability).to_lowercase()),
    ];
    let versions = comparison.setting.versions.iter().map(|(kind, version)| (kind.name(), version.clone()));
    for (name, value) in facts.into_iter().chain(versions) {
        let _ = writeln!(text, "* {name}: {value}"); // writing to a String cannot fail
    }
    text += "\nMedians over the rounds; ratios are taken within a round. The books of every sample balanced.\n";
    text
}

/// Horizontal bars: one group for each kind of work, with one scale per group.
pub fn plot(comparison: &Comparison) -> String {
    let mut bars = String::new();
    let mut y = 30;
    for case in cases(comparison) {
        let group: Vec<_> = comparison.summaries.iter().filter(|summary| summary.case == case).collect();
        let longest = group.iter().map(|summary| summary.cpu_ns.max).max().unwrap_or(1).max(1);
        let _ = writeln!(bars, r#"<text x="10" y="{y}" font-weight="bold">{}, CPU us a command</text>"#, title(case));
        for summary in group {
            y += BAR_STEP;
            bars += &bar(summary, y, longest);
        }
        y += 2 * BAR_STEP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{CHART_WIDTH}\" height=\"{y}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{bars}</svg>\n"
    )
}

fn cases(comparison: &Comparison) -> Vec<Protocol> {
    let mut cases: Vec<_> = comparison.summaries.iter().map(|summary| summary.case).collect();
    cases.dedup(); // equal cases of a round are adjacent
    cases
}

/// One line of the chart: name, bar to the median, whisker from minimum to maximum, figure.
fn bar(summary: &Summary, y: u64, longest: u64) -> String {
    let along = |nanoseconds: u64| BAR_LEFT + BAR_WIDTH * nanoseconds / longest;
    let Spread { median, min, max } = summary.cpu_ns;
    let colour = match summary.proxy {
        Kind::Tallygate => "#2b6cb0",
        Kind::Haproxy | Kind::Nginx | Kind::Before => "#a0aec0",
    };
    let (top, middle, width) = (y - 14, y - 5, along(median) - BAR_LEFT);
    format!(
        "<text x=\"20\" y=\"{y}\">{}</text>\n\
         <rect x=\"{BAR_LEFT}\" y=\"{top}\" width=\"{width}\" height=\"18\" fill=\"{colour}\"/>\n\
         <path d=\"M{} {middle}H{}\" stroke=\"black\"/>\n<text x=\"{}\" y=\"{y}\">{}</text>\n",
        summary.proxy.name(),
        along(min),
        along(max),
        along(max) + 8,
        micros(median),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_just_over_its_target_is_not_rounded_to_it() {
        assert_eq!(times(1001), "1.01");
        assert_eq!(times(1000), "1.00");
        assert_eq!(times(990), "0.99");
    }

    #[test]
    fn nanoseconds_are_shown_as_rounded_microseconds() {
        assert_eq!(micros(21_849), "21.8");
        assert_eq!(micros(21_850), "21.9");
    }

    #[test]
    fn tables_are_aligned() {
        let text = table(&["a", "long head"], [vec!["something".to_owned(), "b".to_owned()]].into_iter());
        let lengths: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lengths, [lengths[0]; 3]);
    }
}
